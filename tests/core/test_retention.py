"""Plans and sweeps: what goes, what stays, and what is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Barrier, BrokenBarrierError, current_thread
from typing import Any

import pytest

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig
from airflow_aml_data.core.catalog import Plan
from airflow_aml_data.core.configuration import WorkspaceConfig
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.retention import plan as plan_module
from airflow_aml_data.core.retention.plan import RetentionScope, make_plan
from airflow_aml_data.core.retention.rules import RetentionPolicy
from airflow_aml_data.core.retention.sweep import sweep_plan
from airflow_aml_data.core.storage.base import Deletion, StoredFile
from airflow_aml_data.core.storage.local import LocalStorage
from airflow_aml_data.errors import DataDeleted, InvalidDeclaration, PlanNotReady, StepFailed, StorageError
from tests.core.conftest import Calendar
from tests.core.steps import READ, Steps

pytestmark = pytest.mark.slow

STORE = "workspaceblobstore"


def nobody(runs: Any) -> set[Any]:
    """No run of Airflow's is open."""
    return set()


@pytest.fixture
def plan(steps: Steps, calendar: Calendar) -> Callable[..., Plan]:
    """Plan for all datastores, and sweep when told."""

    def plan(*, sweep: bool = False, runs: Any = nobody, share: float = 1.0, **policy: Any) -> Plan:
        scope = RetentionScope(datastores=(STORE,), policy=RetentionPolicy(**policy), maximum_share=share)
        made = make_plan(steps.connected, scope, runs, by="a test")
        if not sweep:
            return made
        steps.connected.catalog.decide_plan(made.id, approved=True, by="a person")
        return sweep_plan(steps.connected, made.id, runs)

    return plan


def deleted(steps: Steps) -> list[str]:
    return [each.id for each in steps.connected.catalog.find_outputs(state="deleted")]


def test_what_is_29_days_old_stays_and_what_is_31_days_old_goes(steps, calendar, plan):
    reference = steps.write("a.txt", "deep/b.txt")
    calendar.days = 29
    assert plan(sweep=True).outputs == 0
    assert len(steps.stored()) == 2

    calendar.days = 31
    done = plan(sweep=True)

    assert steps.stored() == {}
    assert steps.leftovers() == []
    assert (done.state, done.outputs, done.files, done.deleted_files) == ("ended", 1, 3, 3)
    assert done.freed_bytes == done.size_bytes > 0
    assert deleted(steps) == [reference.output_id]
    entry = steps.connected.catalog.history(output_id=reference.output_id)[0]
    assert (entry.event, entry.detail) == (
        "deleted",
        f"Plan {done.id}, approved by a person: 3 files, {done.freed_bytes} bytes deleted.",
    )


def test_who_reads_deleted_data_is_told_what_to_run_again(steps, calendar, plan):
    reference = steps.write("a.txt", task_id="prepare")
    calendar.days = 31
    plan(sweep=True)
    with pytest.raises(
        DataDeleted, match=r"Output 'out' was deleted on 20.* by plan 2?1: run step 'prepare' of DAG 'dag', run 'r1'"
    ):
        steps.run(READ, arguments=[reference.as_dataset().as_named_input("x").as_mount()], task_id="train")


@pytest.mark.parametrize("how", ["to_path", "download", "to_pandas_dataframe"])
def test_so_is_who_has_only_the_reference(steps, calendar, plan, how):
    """As a TaskFlow task has."""
    reference = steps.write("a.csv", task_id="prepare")
    calendar.days = 31
    plan(sweep=True)
    with pytest.raises(DataDeleted, match=r"was deleted on 20.* by plan .*run step 'prepare' of DAG 'dag', run 'r1'"):
        getattr(reference, how)()


def pinned(steps: Steps, reference: OutputReference) -> None:
    steps.connected.catalog.pin_output(reference.output_id, by="ann", reason="for the audit")


def registered(steps: Steps, reference: OutputReference) -> None:
    reference.as_dataset().register(steps.workspace, "kept")


def folder_registered(steps: Steps, reference: OutputReference) -> None:
    folder = reference.path.rpartition("/")[0]
    Dataset.File.from_files((Datastore.get(steps.workspace, STORE), folder)).register(steps.workspace, "all of them")


def leased(steps: Steps, reference: OutputReference) -> None:
    run = steps.declare(READ, task_id="reader").run
    steps.connected.catalog.lease_outputs(run, [reference.output_id], lease_seconds=40 * 24 * 3600)


def used(steps: Steps, reference: OutputReference) -> None:
    steps.run(READ, arguments=[reference.as_dataset().as_named_input("x").as_mount()], task_id="reader")


@pytest.mark.parametrize(
    ("keep", "days", "why"),
    [
        (pinned, 0, "pinned by ann: for the audit"),
        (registered, 0, "registered as 'kept' version 1"),
        (folder_registered, 0, "registered as 'all of them' version 1"),
        (leased, 0, "in use by "),
        (used, 20, "used since "),
    ],
)
def test_what_is_needed_stays_and_the_plan_says_why(steps, calendar, plan, keep, days, why):
    reference = steps.write("a.txt")
    calendar.days = days
    keep(steps, reference)
    calendar.days = 31
    made = plan(abandoned_days=1)
    assert made.outputs == 0
    assert [reason[: len(why)] for reason in made.kept] == [why]
    assert list(made.kept.values()) == [[1, len("new a.txt")]]


def test_what_is_registered_while_the_plan_is_made_stays(steps, calendar, plan, monkeypatch):
    """After the planner has read what is registered, and before the plan is written down."""
    reference = steps.write("a.txt")
    calendar.days = 31
    planned = plan_module._planned

    def register_meanwhile(*args: Any) -> Any:
        calendar.days += 0.001
        registered(steps, reference)
        calendar.days += 0.001
        return planned(*args)

    monkeypatch.setattr(plan_module, "_planned", register_meanwhile)
    assert plan(sweep=True).deleted_files == 0
    assert len(steps.stored()) == 1


def test_a_thousand_reasons_are_told_by_their_kind(steps, calendar, plan, monkeypatch):
    monkeypatch.setattr("airflow_aml_data.core.retention.plan._REASONS", 1)
    for name in ("a", "b", "c"):
        steps.write("a.txt", task_id=name).as_dataset().register(steps.workspace, name)
    calendar.days = 31
    kept = plan().kept
    assert sorted(counts for counts in kept.values()) == [[1, 9], [2, 18]]
    assert "registered" in kept


@pytest.mark.parametrize("keep", [pinned, registered, folder_registered, leased, used])
def test_what_is_needed_since_the_plan_was_made_stays(steps, calendar, plan, keep):
    reference = steps.write("a.txt")
    calendar.days = 31
    made = plan()
    keep(steps, reference)
    catalog = steps.connected.catalog
    catalog.decide_plan(made.id, approved=True, by="a person")
    done = sweep_plan(steps.connected, made.id, nobody)
    assert (done.state, done.deleted_files) == ("ended", 0)
    assert [each.state for each in catalog.plan_entries(made.id)] == ["skipped"]
    assert steps.stored() == {f"{reference.path}/a.txt": "new a.txt"}


def test_what_a_run_that_has_not_ended_made_stays(steps, calendar, plan):
    steps.write("a.txt", run_id="old")
    steps.write("a.txt", run_id="cleared")
    calendar.days = 31
    done = plan(sweep=True, runs=lambda runs: runs & {("dag", "cleared")})
    assert done.outputs == 1
    assert done.kept == {"its run has not ended": [1, len("new a.txt")]}
    assert [path.split("/")[1] for path in steps.stored()] == [
        each.step_run_id for each in steps.connected.catalog.find_outputs(run_id="cleared")
    ]


def test_files_that_were_written_again_under_the_same_name_stay(steps, calendar, plan):
    output = OutputFileDatasetConfig("out", destination=(STORE, "shared")).as_upload(overwrite=True)
    steps.write("a.txt", "b.txt", output=output, run_id="r1")
    calendar.days = 20
    steps.write("a.txt", output=output, run_id="r2")
    calendar.days = 31
    done = plan(sweep=True)
    assert steps.stored() == {"shared/a.txt": "new a.txt"}
    assert done.deleted_files == 2  # b.txt and the manifest
    (entry,) = steps.connected.catalog.plan_entries(done.id)
    assert entry.detail == "1 files were written again since: they stay"


def test_files_that_change_after_the_plan_stay(steps, calendar, plan):
    reference = steps.write("a.txt", "b.txt")
    calendar.days = 31
    made = plan()
    (steps.root / reference.path / "b.txt").write_text("touched")
    steps.connected.catalog.decide_plan(made.id, approved=True, by="a person")
    sweep_plan(steps.connected, made.id, nobody)
    assert steps.stored() == {f"{reference.path}/b.txt": "touched"}
    (entry,) = steps.connected.catalog.plan_entries(made.id)
    assert (entry.state, entry.detail) == ("deleted", "1 files were written again after the plan: they stay")


def test_files_that_are_written_again_while_the_sweep_deletes_stay(steps, calendar, plan, monkeypatch):
    reference = steps.write("a.txt", "b.txt")
    calendar.days = 31
    made = plan()
    steps.connected.catalog.decide_plan(made.id, approved=True, by="a person")
    delete = LocalStorage.delete_unchanged

    def written_first(storage, files):
        (steps.root / reference.path / "b.txt").write_text("new b.TXT")
        return delete(storage, files)

    monkeypatch.setattr(LocalStorage, "delete_unchanged", written_first)
    done = sweep_plan(steps.connected, made.id, nobody)
    assert steps.stored() == {f"{reference.path}/b.txt": "new b.TXT"}
    assert (done.files, done.deleted_files) == (3, 2)
    (entry,) = steps.connected.catalog.plan_entries(made.id)
    assert entry.detail == "1 files were written again after the plan: they stay"


def test_what_the_store_keeps_does_not_stop_the_sweep(steps, calendar, plan, monkeypatch):
    reference = steps.write("a.txt", "b.txt")
    calendar.days = 31
    made = plan()
    steps.connected.catalog.decide_plan(made.id, approved=True, by="a person")
    delete = LocalStorage.delete_unchanged

    def keeps_a(storage, files):
        files = list(files)
        kept = [each for each in files if each.path.endswith("a.txt")]
        done = delete(storage, [each for each in files if each not in kept])
        return [*done, *(Deletion(each, "kept", "It is leased.") for each in kept)]

    monkeypatch.setattr(LocalStorage, "delete_unchanged", keeps_a)
    done = sweep_plan(steps.connected, made.id, nobody)
    assert (done.state, done.deleted_files) == ("ended", 2)
    assert steps.stored() == {f"{reference.path}/a.txt": "new a.txt"}
    (entry,) = steps.connected.catalog.plan_entries(made.id)
    assert entry.detail == "1 files stay because the store keeps them: It is leased."


def test_files_that_nobody_planned_stay(steps, calendar, plan):
    reference = steps.write("a.txt")
    (steps.root / reference.path / "mine.txt").write_text("put there by hand")
    calendar.days = 31
    plan(sweep=True)
    assert steps.stored() == {f"{reference.path}/mine.txt": "put there by hand"}


def test_an_output_says_for_how_long_it_is_kept(steps, calendar, plan):
    steps.write("a.txt", output=OutputFileDatasetConfig("out", retention_days=60).as_upload())
    calendar.days = 59
    assert plan().outputs == 0
    calendar.days = 61
    assert plan().outputs == 1


def test_an_output_that_is_to_be_kept_is_never_deleted(steps, calendar, plan):
    steps.write("a.txt", output=OutputFileDatasetConfig("out", keep=True).as_upload())
    calendar.days = 1000
    assert plan().kept == {"pinned by its declaration": [1, len("new a.txt")]}


def test_what_failed_attempts_left_goes_after_its_own_time(steps, calendar, plan):
    with pytest.raises(StepFailed):
        steps.run(
            "import sys; open(sys.argv[1] + '/half.txt', 'w').write('x'); sys.exit(1)",
            arguments=[OutputFileDatasetConfig("out")],
        )
    assert len(steps.stored()) == 1
    calendar.days = 6
    assert plan().outputs == 0
    calendar.days = 8
    plan(sweep=True)
    assert steps.stored() == {}


def test_a_plan_that_would_delete_too_much_cannot_be_approved(steps, calendar, plan):
    steps.write("a.txt")
    calendar.days = 31
    made = plan(share=0.5)
    assert made.state == "stopped"
    with pytest.raises(PlanNotReady, match=f"Plan {made.id} is stopped"):
        steps.connected.catalog.decide_plan(made.id, approved=True, by="a person")
    with pytest.raises(PlanNotReady):
        sweep_plan(steps.connected, made.id, nobody)


def test_what_is_struck_out_stays(steps, calendar, plan):
    keep, _ = (steps.write("a.txt", run_id=each) for each in ("r1", "r2"))
    calendar.days = 31
    made = plan()
    steps.connected.catalog.decide_plan(made.id, approved=True, by="ann", keep=[keep.output_id])
    done = sweep_plan(steps.connected, made.id, nobody)
    assert list(steps.stored()) == [f"{keep.path}/a.txt"]
    assert {each.output_id: each.state for each in steps.connected.catalog.plan_entries(done.id)}[keep.output_id] == (
        "struck_out"
    )


def test_nobody_writes_where_a_sweep_deletes(steps, calendar, plan):
    output = OutputFileDatasetConfig("out", destination=(STORE, "shared")).as_upload(overwrite=True)
    reference = steps.write("a.txt", output=output)
    calendar.days = 31
    made, catalog = plan(), steps.connected.catalog
    catalog.decide_plan(made.id, approved=True, by="ann")
    assert catalog.claim_for_deletion(made.id, [reference.output_id], lambda _: lambda _: "", by="x").kept == {}
    with pytest.raises(StorageError, match=f"plan {made.id} is deleting output"):
        steps.write("b.txt", output=output, run_id="r2")
    sweep_plan(steps.connected, made.id, nobody)
    steps.write("b.txt", output=output, run_id="r2")
    assert steps.stored() == {"shared/b.txt": "new b.txt"}


def test_a_sweep_that_was_cut_off_is_counted_whole(steps, calendar, plan):
    reference = steps.write("a.txt", "b.txt")
    calendar.days = 31
    made, catalog = plan(), steps.connected.catalog
    catalog.decide_plan(made.id, approved=True, by="ann")
    catalog.claim_for_deletion(made.id, [reference.output_id], lambda _: lambda _: "", by="x")
    steps.connected.storage(STORE).delete_files([f"{reference.path}/a.txt"])  # and then it was killed
    done = sweep_plan(steps.connected, made.id, nobody)
    assert (done.state, done.deleted_files, done.freed_bytes) == ("ended", done.files, done.size_bytes)
    assert steps.stored() == {}


def test_a_rejected_plan_deletes_nothing(steps, calendar, plan):
    steps.write("a.txt")
    calendar.days = 31
    made = plan()
    steps.connected.catalog.decide_plan(made.id, approved=False, by="ann")
    with pytest.raises(PlanNotReady, match="is rejected"):
        sweep_plan(steps.connected, made.id, nobody)
    assert len(steps.stored()) == 1


def test_two_sweeps_of_one_plan_count_once(steps, calendar, plan):
    steps.write("a.txt")
    calendar.days = 31
    made = plan()
    steps.connected.catalog.decide_plan(made.id, approved=True, by="ann")
    first, second = (sweep_plan(steps.connected, made.id, nobody) for _ in range(2))
    assert first == second
    assert [each.event for each in steps.connected.catalog.history() if each.event == "deleted"] == ["deleted"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datastores": ()}, "No datastore is named"),
        ({"datastores": (STORE,), "maximum_share": 0}, "maximum_share is 0"),
    ],
)
def test_an_unsafe_scope_is_refused(options, message):
    with pytest.raises(InvalidDeclaration, match=message):
        RetentionScope(**options)


@pytest.mark.parametrize(("days", "gone"), [(44, 0), (46, 1)])
def test_a_datastore_has_a_period_of_its_own(steps, calendar, tmp_path, days, gone):
    steps.write("a.txt")
    config = steps.connected.config
    stores = {STORE: replace(config.datastores[STORE], retention_days=45)}
    told = replace(config, datastores=stores).to_mapping()
    workspace = ConnectedWorkspace(WorkspaceConfig.from_mapping("x", told, home=tmp_path))
    calendar.days = days
    assert (
        make_plan(workspace, RetentionScope(datastores=(STORE,), maximum_share=1), nobody, by="a test").outputs == gone
    )


@pytest.mark.parametrize("policy", [{"retention_days": 29}, {"datastore_days": {STORE: 1}}, {"abandoned_days": 0}])
def test_a_period_below_the_floor_needs_a_reason(policy):
    with pytest.raises(InvalidDeclaration, match="Allowed"):
        RetentionPolicy(**policy)
    if "abandoned_days" not in policy:
        RetentionPolicy(**policy, allow_early_deletion="the disk is full")


def test_two_sweeps_at_once_delete_everything_and_count_it_once(steps, calendar, plan, monkeypatch):
    for number in range(6):
        steps.write(*(f"{each}.txt" for each in range(20)), task_id=f"t{number}")
    calendar.days = 31
    made = plan()
    steps.connected.catalog.decide_plan(made.id, approved=True, by="a person")
    both = Barrier(2)
    delete = LocalStorage.delete_unchanged

    def in_turns(storage: LocalStorage, files: Iterable[StoredFile]) -> list[Deletion]:
        """File by file with the other sweep, which begins at the other end."""
        done = []
        for each in sorted(files, reverse=current_thread().name.endswith("_1")):
            with suppress(BrokenBarrierError):
                both.wait(0.2)
            done += delete(storage, [each])
        return done

    monkeypatch.setattr(LocalStorage, "delete_unchanged", in_turns)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: sweep_plan(steps.connected, made.id, nobody), range(2)))

    done = steps.connected.catalog.get_plan(made.id)
    assert steps.stored() == {}
    assert (done.state, done.deleted_files, done.freed_bytes) == ("ended", made.files, made.size_bytes)
    events = [each for each in steps.connected.catalog.history(limit=1000) if each.event == "deleted"]
    assert len(events) == 6


def test_a_place_with_two_names_is_refused_when_one_is_left_out(steps, calendar, monkeypatch):
    other = steps.root / "inside"
    other.mkdir(parents=True)
    config = steps.connected.config

    from airflow_aml_data.core.storage.base import DatastoreConfig

    both = {**config.datastores, "other": DatastoreConfig(name="other", kind="local", options={"root": str(other)})}
    workspace = ConnectedWorkspace(replace(config, datastores=both))
    with pytest.raises(InvalidDeclaration, match="'other' lies in the same place as 'workspaceblobstore'"):
        make_plan(workspace, RetentionScope(datastores=(STORE,)), nobody, by="a test")
    assert make_plan(workspace, RetentionScope(datastores=(STORE, "other")), nobody, by="a test").outputs == 0
