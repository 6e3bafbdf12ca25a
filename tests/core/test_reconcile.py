"""The catalog compared with its stores: what nobody accounts for, and what is gone."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig
from airflow_aml_data.core.catalog import NewOutput
from airflow_aml_data.core.identity import STEP_RUN_ID, StepRun
from airflow_aml_data.core.retention.plan import RetentionScope, make_plan
from airflow_aml_data.core.retention.reconcile import Reconciliation, _groups, _Texts, reconcile
from airflow_aml_data.core.retention.sweep import sweep_plan
from airflow_aml_data.core.storage.base import StoredFile, Survey
from airflow_aml_data.errors import DataChanged, InvalidConfiguration
from tests.core.steps import READ, Steps
from tests.core.test_retention import STORE, nobody

pytestmark = pytest.mark.slow

STRANGE = "dataset/dag.run.step.try1.0123456789/out"


def put(steps: Steps, path: str, *, days_old: float = 40) -> Path:
    """A file that no step has told the catalog of."""
    file = steps.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("stray")
    then = (datetime.now(UTC) - timedelta(days=days_old)).timestamp()
    os.utime(file, (then, then))
    return file


def look(steps: Steps) -> Reconciliation:
    return reconcile(steps.connected, STORE, maximum_share=1)


def clean_up(steps: Steps, *, is_person: bool = True) -> list[str]:
    """Plan, approve, sweep; what was deleted."""
    catalog = steps.connected.catalog
    plan = make_plan(steps.connected, RetentionScope(datastores=(STORE,), maximum_share=1), nobody, by="a test")
    catalog.decide_plan(plan.id, approved=True, by="ann", is_person=is_person)
    sweep_plan(steps.connected, plan.id, nobody)
    return [each.path for each in catalog.plan_entries(plan.id) if each.state == "deleted"]


def test_files_that_nobody_accounts_for_go_when_a_person_says_so(steps):
    made = steps.write("a.txt")
    put(steps, f"{STRANGE}/b.txt")
    put(steps, f"{STRANGE}/deep/c.txt")

    (unknown,) = look(steps).unknown

    assert (unknown.path, unknown.files, unknown.size_bytes) == (STRANGE.rpartition("/")[0], 2, 10)
    assert clean_up(steps, is_person=False) == []
    assert len(steps.stored()) == 3
    assert clean_up(steps) == [unknown.path]
    assert list(steps.stored()) == [f"{made.path}/a.txt"]
    assert [each.event for each in steps.connected.catalog.history(output_id=unknown.output_id)] == ["deleted", "found"]
    assert look(steps).unknown == []


@pytest.mark.parametrize("path", ["dataset/mine/a.txt", "raw/a.txt", "a.txt", "dataset/a.txt"])
def test_what_carries_no_step_runs_id_is_the_users_own(steps, path):
    steps.write("a.txt")
    put(steps, path)
    assert look(steps).unknown == []


@pytest.mark.parametrize(("days", "listed", "deleted"), [(6, 0, 0), (8, 1, 0), (29, 1, 0), (31, 1, 1)])
def test_a_grace_period_and_the_retention_period(steps, days, listed, deleted):
    put(steps, f"{STRANGE}/b.txt", days_old=days)
    assert len(look(steps).unknown) == listed
    assert len(clean_up(steps)) == deleted


def test_what_a_person_pins_stays_until_it_is_let_go(steps):
    put(steps, f"{STRANGE}/a.txt")
    (unknown,) = look(steps).unknown
    catalog = steps.connected.catalog
    catalog.pin_output(unknown.output_id, by="ann", reason="another Airflow's")
    assert look(steps).unknown == [unknown]
    assert clean_up(steps) == []
    catalog.unpin_output(unknown.output_id, by="ann")
    assert clean_up(steps) == [unknown.path]


def test_what_is_registered_or_written_since_stays(steps):
    folder = STRANGE.rpartition("/")[0]
    put(steps, f"{STRANGE}/a.txt")
    Dataset.File.from_files((Datastore.get(steps.workspace, STORE), f"{STRANGE}/a.txt")).register(steps.workspace, "x")
    look(steps)
    assert clean_up(steps) == []
    steps.workspace.datasets["x"].unregister_all_versions()
    put(steps, f"{STRANGE}/new.txt", days_old=0)

    assert clean_up(steps) == [folder]  # found before new.txt was there

    assert list(steps.stored()) == [f"{STRANGE}/new.txt"]


def test_what_a_cut_off_step_left_beside_its_outputs(steps):
    """Staging areas of step runs that are over, and unfinished files; not those of a step that is at work."""
    steps.write("a.txt")
    run = steps.declare(READ, task_id="at_work").run
    new = NewOutput(name="out", datastore=STORE, path=f"dataset/{run.id}/out", mode="upload")
    steps.connected.catalog.begin_outputs(run, [new], lease_seconds=600)
    for path in (
        f"staging/{run.id}/out/a.txt",
        "staging/dag.run.step.try1.0123456789/out/a.txt",
        "staging/dag.run.step.try1.0123456789/out.undo/a.txt",
        "partial/0123",
        "manifests/dag.run.step.try1.0123456789/out.json",
    ):
        put(steps, f".aml_data/{path}")

    found = {each.path.removeprefix(".aml_data/") for each in look(steps).unknown}

    gone = {f"{kind}/dag.run.step.try1.0123456789" for kind in ("staging", "manifests")} | {"partial/0123"}
    assert found == gone
    assert {each.removeprefix(".aml_data/") for each in clean_up(steps)} == gone
    left = {str(each.relative_to(steps.root / ".aml_data")) for each in (steps.root / ".aml_data").rglob("*.txt")}
    assert left == {f"staging/{run.id}/out/a.txt"}


def test_outputs_whose_files_are_gone_cannot_be_read_until_they_are_there_again(steps, tmp_path):
    first, second = steps.write("a.txt", task_id="first"), steps.write("a.txt", task_id="second")
    shutil.move(steps.root / first.path, tmp_path / "away")

    assert look(steps).missing == [first.output_id]

    with pytest.raises(DataChanged, match=r"gone from .* no plan deleted them: run step 'first' of DAG 'dag'"):
        steps.run(READ, arguments=[first.as_dataset().as_named_input("x").as_mount()], task_id="reader")
    steps.run(READ, arguments=[second.as_dataset().as_named_input("x").as_mount()], task_id="reader")
    assert look(steps).missing == []
    shutil.move(tmp_path / "away", steps.root / first.path)
    assert look(steps).found == [first.output_id]
    steps.run(READ, arguments=[first.as_dataset().as_named_input("x").as_mount()], task_id="reader2")
    events = [each.event for each in steps.connected.catalog.history(output_id=first.output_id)]
    assert events == ["found", "missing", "committed", "begun"]


def test_an_output_of_empty_files_is_there(steps):
    steps.run(
        "import sys\nopen(sys.argv[1] + '/_SUCCESS', 'w')", arguments=[OutputFileDatasetConfig("out").as_upload()]
    )
    found = look(steps)
    assert (found.missing, found.unknown) == ([], [])


def test_one_of_two_outputs_of_a_step_is_gone(steps):
    outputs = [OutputFileDatasetConfig(name).as_upload() for name in ("one", "two")]
    script = "import sys\nfor each in sys.argv[1:]: open(each + '/a', 'w').write('x')"
    one, _ = steps.run(script, arguments=outputs).outputs
    shutil.rmtree(steps.root / one.path)
    assert look(steps).missing == [one.output_id]


def test_places_of_any_form(steps):
    """Outputs that lie elsewhere, deeper, or are a single file are found there; a shared place is left alone."""
    for number, path in enumerate(("x/{run-id}", "{run-id}/deep/er", "a/b/{run-id}/c", "fixed/place")):
        steps.write("a.txt", output=OutputFileDatasetConfig("out", destination=(STORE, path)), task_id=f"t{number}")
    found = look(steps)
    assert (found.missing, found.unknown) == ([], [])
    shutil.rmtree(steps.root / "fixed")
    assert look(steps).missing == []


def test_a_connection_to_another_place_marks_nothing(steps):
    reference = steps.write("a.txt")
    shutil.move(steps.root, steps.root.with_name("elsewhere"))
    with pytest.raises(InvalidConfiguration, match="Does its connection lead to where they were written"):
        reconcile(steps.connected, STORE)
    assert steps.connected.catalog.get_output(reference.output_id).state == "committed"


def test_unknown_files_that_somebody_removed_are_forgotten(steps):
    put(steps, f"{STRANGE}/b.txt")
    (unknown,) = look(steps).unknown
    shutil.rmtree(steps.root / "dataset")
    assert look(steps).unknown == []
    assert steps.connected.catalog.get_output(unknown.output_id).state == "missing"
    put(steps, f"{STRANGE}/b.txt")
    assert [each.output_id for each in look(steps).unknown] == [unknown.output_id]


PARTS = st.text(max_size=70)


@given(PARTS, PARTS, PARTS, st.integers(-1, 3), st.integers(1, 20))
def test_every_step_runs_id_is_found_in_a_path(dag_id, run_id, task_id, map_index, try_number):
    run = StepRun(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index, try_number=try_number)
    for path in (run.id, f"dataset/{run.id}/out/a.txt", f"a/{run.id}"):
        found = STEP_RUN_ID.search(path)
        assert found is not None
        assert found[1] == run.id


NAMES = st.sampled_from(["a", "b", "dag.r.s.try1.0123456789", "dag.r.s.try1.012345678a", "dag.r.s.try2.0123456789"])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=20), st.booleans())
def test_every_file_of_a_step_run_is_counted_once_in_any_order(paths, is_sorted):
    files = (
        sorted({"/".join(each) + "/f" for each in paths}) if is_sorted else ["/".join(each) + "/f" for each in paths]
    )
    expected: dict[str, int] = {}
    for each in files:
        if found := STEP_RUN_ID.search(each):
            expected[each[: found.end()]] = expected.get(each[: found.end()], 0) + 1
    seen, counted = _Texts(), dict[str, int]()
    for group in _groups(Survey.of(StoredFile(each, 1, "e", 1.0) for each in files), seen):
        counted[group.path] = counted.get(group.path, 0) + group.files
    assert counted == expected
    assert all(each in seen for each in expected)
