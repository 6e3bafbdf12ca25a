"""Who may write where, and how an output becomes a committed one."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.catalog import Catalog, NewDatasetVersion, NewOutput
from airflow_aml_data.errors import (
    DataChanged,
    DatasetNotFound,
    InvalidDeclaration,
    InvalidName,
    InvalidPath,
    OutputInUse,
    StaleTry,
)
from tests.catalog.conftest import Clock, make_committed, make_output, make_run, write_output


def states(catalog: Catalog) -> dict[str, str]:
    return {output.id: output.state for output in catalog.find_outputs()}


def test_a_begun_output_is_being_written(fresh_catalog, clock):
    run = make_run(map_index=4)

    abandoned = fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)

    output = fresh_catalog.get_output(f"{run.id}/prepared")
    assert abandoned == []
    assert (output.state, output.path, output.map_index, output.step_run_id) == (
        "writing",
        "data/prepared",
        4,
        run.id,
    )
    assert output.created_at == clock()
    assert (output.files, output.manifest_path, output.changed_at, output.used_at) == (None,) * 4


def test_a_committed_output_tells_what_its_manifest_says(fresh_catalog):
    output_id = write_output(fresh_catalog, make_run())

    output = fresh_catalog.get_output(output_id)

    said = make_committed()
    assert output.state == "committed"
    assert (
        output.files,
        output.size_bytes,
        output.manifest_path,
        output.manifest_digest,
        output.changed_at,
    ) == (
        said.files,
        said.size_bytes,
        said.manifest_path,
        said.manifest_digest,
        said.changed_at,
    )


def test_moments_come_back_in_utc_from_any_zone(catalog_url, clock):
    from datetime import timezone

    clock.moment = clock.moment.astimezone(timezone(timedelta(hours=-7)))
    catalog = Catalog(catalog_url, now=clock)

    catalog.begin_outputs(make_run(), [make_output()], lease_seconds=60)

    created = catalog.find_outputs()[0].created_at
    assert created == clock.moment
    assert created.utcoffset() == timedelta(0)


def test_a_newer_try_abandons_what_the_earlier_one_was_writing(fresh_catalog):
    old, new = make_run(), make_run(try_number=2, unique="u2")
    fresh_catalog.begin_outputs(old, [make_output()], lease_seconds=60)

    abandoned = fresh_catalog.begin_outputs(new, [make_output()], lease_seconds=60)

    assert [(output.id, output.state) for output in abandoned] == [(f"{old.id}/prepared", "abandoned")]
    assert states(fresh_catalog) == {f"{old.id}/prepared": "abandoned", f"{new.id}/prepared": "writing"}


def test_a_stale_try_cannot_commit_nor_register(fresh_catalog):
    old, new = make_run(), make_run(try_number=2, unique="u2")
    fresh_catalog.begin_outputs(old, [make_output()], lease_seconds=60)
    fresh_catalog.begin_outputs(new, [make_output()], lease_seconds=60)

    with pytest.raises(StaleTry, match=r"is abandoned .* Try 2 of the same task has begun"):
        fresh_catalog.commit_outputs(old, [make_committed()], [NewDatasetVersion(name="sales", definition={})])

    assert fresh_catalog.list_datasets() == []
    assert fresh_catalog.commit_outputs(new, [make_committed()]) == []


def test_a_stale_try_cannot_begin(fresh_catalog):
    fresh_catalog.begin_outputs(make_run(try_number=3, unique="u3"), [make_output()], lease_seconds=60)

    with pytest.raises(StaleTry, match="Try 3 of task 'prepare'"):
        fresh_catalog.begin_outputs(make_run(), [make_output()], lease_seconds=60)


def test_what_an_earlier_try_committed_stays_committed(fresh_catalog):
    earlier = write_output(fresh_catalog, make_run())

    abandoned = fresh_catalog.begin_outputs(make_run(try_number=2, unique="u2"), [make_output()], lease_seconds=60)

    assert abandoned == []
    assert states(fresh_catalog)[earlier] == "committed"


def test_a_second_writer_of_the_place_is_told_who_writes_there(fresh_catalog):
    fresh_catalog.begin_outputs(make_run("first", map_index=2), [make_output()], lease_seconds=60)

    with pytest.raises(OutputInUse) as refusal:
        fresh_catalog.begin_outputs(make_run("second"), [make_output("other")], lease_seconds=60)

    assert str(refusal.value) == (
        "Output 'other' cannot be written to 'data/prepared' on datastore 'lake': task 'first' of DAG "
        "'sales' (run 'manual__1', map index 2, try 1) has been writing to 'data/prepared' there since "
        "2026-01-31 12:00:00 UTC. Run this task after that one, or give one of them a destination with "
        "{run-id}. If that task was killed, its claim ends at 2026-01-31 12:01:00 UTC."
    )
    assert len(states(fresh_catalog)) == 1


def test_a_refused_claim_leaves_every_other_claim_of_the_call_out(fresh_catalog):
    fresh_catalog.begin_outputs(make_run("first"), [make_output()], lease_seconds=60)

    with pytest.raises(OutputInUse):
        fresh_catalog.begin_outputs(
            make_run("second"), [make_output("free", "elsewhere"), make_output("taken")], lease_seconds=60
        )

    assert len(states(fresh_catalog)) == 1


PATHS = st.lists(st.sampled_from(["a", "b", "a-", "a.", "a0", "A", "é", "a b"]), max_size=3).map("/".join)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(first=PATHS, second=PATHS)
def test_two_tasks_may_write_at_once_unless_one_folder_lies_in_the_other(fresh_catalog, first, second):
    number = next(_numbers)
    lake = f"lake{number}"
    writer, other = make_run("first", run_id=f"r{number}"), make_run("second", run_id=f"r{number}")
    fresh_catalog.begin_outputs(writer, [make_output(path=first, datastore=lake)], lease_seconds=60)
    parts, others = first.split("/") if first else [], second.split("/") if second else []
    shorter = min(len(parts), len(others))

    granted = True
    try:
        fresh_catalog.begin_outputs(other, [make_output(path=second, datastore=lake)], lease_seconds=60)
    except OutputInUse:
        granted = False

    assert granted == (parts[:shorter] != others[:shorter])


_numbers = count()


def test_one_step_may_write_outputs_inside_each_other(fresh_catalog):
    run = make_run()

    fresh_catalog.begin_outputs(run, [make_output("all", ""), make_output("part", "a/b")], lease_seconds=60)

    assert len(states(fresh_catalog)) == 2


def test_a_claim_whose_lease_ran_out_is_taken_over(fresh_catalog, clock):
    killed, next_one = make_run("killed"), make_run("next")
    fresh_catalog.begin_outputs(killed, [make_output(path="data")], lease_seconds=60)
    clock.advance(60)

    abandoned = fresh_catalog.begin_outputs(next_one, [make_output()], lease_seconds=60)

    assert [output.id for output in abandoned] == [f"{killed.id}/prepared"]
    with pytest.raises(StaleTry, match=r"Its lease ran out and .*next.* claimed its place"):
        fresh_catalog.commit_outputs(killed, [make_committed()])


def test_a_lease_that_is_renewed_holds(fresh_catalog, clock):
    run = make_run("slow")
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)
    clock.advance(50)
    fresh_catalog.renew_leases(run, lease_seconds=60)
    clock.advance(50)

    with pytest.raises(OutputInUse):
        fresh_catalog.begin_outputs(make_run("next"), [make_output()], lease_seconds=60)


def test_an_output_whose_lease_ran_out_can_be_committed_while_its_place_is_free(fresh_catalog, clock):
    run = make_run()
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)
    clock.advance(3600)

    fresh_catalog.commit_outputs(run, [make_committed()])

    assert states(fresh_catalog) == {f"{run.id}/prepared": "committed"}


def test_a_place_is_free_once_its_writer_has_committed(fresh_catalog):
    write_output(fresh_catalog, make_run("first"))

    assert fresh_catalog.begin_outputs(make_run("second"), [make_output()], lease_seconds=60) == []


def test_a_place_is_free_once_its_writer_has_abandoned_it(fresh_catalog):
    run = make_run("first")
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)
    fresh_catalog.abandon_outputs(run, "The script ended with exit code 1.")

    assert fresh_catalog.begin_outputs(make_run("second"), [make_output()], lease_seconds=60) == []


def test_abandoning_twice_is_abandoning_once(fresh_catalog):
    run = make_run()
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)

    fresh_catalog.abandon_outputs(run, "killed \0 \ud800")
    fresh_catalog.abandon_outputs(run, "killed again")

    entries = fresh_catalog.history(output_id=f"{run.id}/prepared")
    assert [(entry.event, entry.detail) for entry in entries[:-1]] == [("abandoned", "killed  \\ud800")]


def test_abandoning_leaves_committed_outputs_alone(fresh_catalog):
    run = make_run()
    fresh_catalog.begin_outputs(run, [make_output(), make_output("extra", "extra")], lease_seconds=60)
    fresh_catalog.commit_outputs(run, [make_committed()])

    fresh_catalog.abandon_outputs(run, "cancelled")

    assert states(fresh_catalog) == {f"{run.id}/prepared": "committed", f"{run.id}/extra": "abandoned"}


def test_beginning_may_be_repeated_by_the_same_run(fresh_catalog, clock):
    run = make_run()
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)
    clock.advance(50)

    assert fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60) == []

    clock.advance(50)
    with pytest.raises(OutputInUse):
        fresh_catalog.begin_outputs(make_run("other"), [make_output()], lease_seconds=60)
    assert len(fresh_catalog.history(output_id=f"{run.id}/prepared")) == 1


def test_a_begun_output_cannot_move(fresh_catalog):
    run = make_run()
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)

    with pytest.raises(InvalidDeclaration, match="cannot move to 'elsewhere'"):
        fresh_catalog.begin_outputs(run, [make_output(path="elsewhere")], lease_seconds=60)


def test_a_finished_output_cannot_be_begun_again(fresh_catalog):
    run = make_run()
    write_output(fresh_catalog, run)

    with pytest.raises(StaleTry, match="is committed already"):
        fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)


def test_an_output_commits_once(fresh_catalog):
    run = make_run()
    write_output(fresh_catalog, run)

    with pytest.raises(StaleTry, match="is committed and cannot be committed any more"):
        fresh_catalog.commit_outputs(run, [make_committed()])


def test_one_bad_output_keeps_the_others_from_being_committed(fresh_catalog):
    run = make_run()
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)

    with pytest.raises(InvalidDeclaration, match="/unknown' was never begun"):
        fresh_catalog.commit_outputs(run, [make_committed(), make_committed("unknown")])

    assert states(fresh_catalog) == {f"{run.id}/prepared": "writing"}


def test_outputs_and_the_datasets_made_of_them_appear_together(fresh_catalog):
    run = make_run()
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)
    new = [
        NewDatasetVersion(name=name, definition={"n": name}, output_id=f"{run.id}/prepared", producer=run)
        for name in ("zebra", "ape", "zebra")
    ]

    made = fresh_catalog.commit_outputs(run, [make_committed()], new)

    assert [(version.name, version.version) for version in made] == [("zebra", 1), ("ape", 1), ("zebra", 2)]
    assert fresh_catalog.get_dataset("zebra") == made[2]


def test_a_registration_that_fails_commits_nothing(fresh_catalog):
    run = make_run()
    fresh_catalog.begin_outputs(run, [make_output()], lease_seconds=60)
    new = [
        NewDatasetVersion(name="good", definition={}),
        NewDatasetVersion(name="worse", definition={}, output_id="nobody/knows"),
    ]

    with pytest.raises(DataChanged, match="'nobody/knows' \\(not in the catalog\\)"):
        fresh_catalog.commit_outputs(run, [make_committed()], new)

    assert states(fresh_catalog) == {f"{run.id}/prepared": "writing"}
    with pytest.raises(DatasetNotFound):
        fresh_catalog.get_dataset("good")


def test_the_same_name_twice_in_a_call_is_refused(fresh_catalog):
    with pytest.raises(InvalidDeclaration, match="Output 'prepared' is named twice"):
        fresh_catalog.begin_outputs(make_run(), [make_output(), make_output(path="b")], lease_seconds=60)


def test_a_run_without_outputs_may_begin_commit_and_abandon(fresh_catalog):
    run = make_run()

    assert fresh_catalog.begin_outputs(run, [], lease_seconds=60) == []
    assert fresh_catalog.commit_outputs(run, []) == []
    fresh_catalog.abandon_outputs(run, "nothing to do")
    assert fresh_catalog.history() == []


def test_outputs_are_found_newest_first_by_what_is_known(fresh_catalog, clock: Clock):
    ids = []
    for dag_id, run_id, task_id in [("a", "1", "t"), ("a", "2", "t"), ("b", "1", "t"), ("a", "1", "u")]:
        clock.advance(1)
        run = make_run(task_id, dag_id=dag_id, run_id=run_id)
        ids.append(write_output(fresh_catalog, run))

    def found(**known):
        return [ids.index(output.id) for output in fresh_catalog.find_outputs(**known)]

    assert found() == [3, 2, 1, 0]
    assert found(dag_id="a") == [3, 1, 0]
    assert found(dag_id="a", run_id="1") == [3, 0]
    assert found(dag_id="a", run_id="1", task_id="t") == [0]
    assert found(task_id="t", limit=2) == [2, 1]
    assert found(datastore="other") == []
    assert found(datastore="lake") == found()
    assert found(state="writing") == []


def test_an_unknown_output_names_the_catalog_it_is_not_in(fresh_catalog):
    with pytest.raises(DataChanged, match=r"'x/y' is not in the catalog .*Was the reference made with another"):
        fresh_catalog.get_output("x/y")


def test_the_history_tells_an_outputs_life_newest_first(fresh_catalog, clock):
    run = make_run()
    output_id = write_output(fresh_catalog, run)
    write_output(fresh_catalog, make_run("other"), make_output(path="other"))

    entries = fresh_catalog.history(output_id=output_id)

    assert [entry.event for entry in entries] == ["committed", "begun"]
    assert {(entry.step_run_id, entry.at) for entry in entries} == {(run.id, clock())}
    assert entries[0].detail == "3 files, 5000000000 bytes, manifest xxh3:0f."
    assert fresh_catalog.history(limit=1)[0].output_id != output_id


@pytest.mark.parametrize(
    ("name", "path", "error"),
    [
        ("2nd", "a", InvalidName),
        ("a", "a/../b", InvalidPath),
        ("a", "/a", InvalidPath),
        ("a", "a" * 1025, InvalidPath),
    ],
)
def test_an_output_nobody_could_store_is_refused_when_it_is_made(name, path, error):
    with pytest.raises(error):
        NewOutput(name=name, datastore="lake", path=path, mode="upload")
