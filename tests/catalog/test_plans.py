"""Deletion plans, pins and what readers of deleted outputs are told, in both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_aml_data.core.catalog import Claim, FinishedDeletion, NewDatasetVersion, PlannedDeletion, PlannedFile
from airflow_aml_data.errors import DataChanged, DataDeleted, InvalidDeclaration, PlanNotReady
from tests.catalog.conftest import make_output, make_run, write_output

FILES = (PlannedFile("data/prepared/a", "e1", 10), PlannedFile(".aml_data/prepared.json", "", 5))


def may_go(places):
    return lambda output: ""


@pytest.fixture
def output_id(fresh_catalog):
    return write_output(fresh_catalog, make_run())


@pytest.fixture
def plan(fresh_catalog, output_id, clock):
    return fresh_catalog.create_plan(
        [PlannedDeletion(output_id, "old", FILES)],
        as_of=clock(),
        by="test",
        settings={"a": 1},
        kept={"pinned by ann": (2, 30)},
        managed={"lake": 100},
        stopped=False,
    )


def test_a_plan_is_numbered_and_keeps_what_it_was_given(fresh_catalog, clock, plan, output_id):
    assert (plan.state, plan.created_by, plan.created_at) == ("planned", "test", clock())
    assert (plan.outputs, plan.files, plan.size_bytes, plan.deleted_files) == (1, 2, 15, 0)
    assert (plan.settings, plan.kept, plan.managed_bytes) == ({"a": 1}, {"pinned by ann": [2, 30]}, {"lake": 100})
    assert fresh_catalog.planned_files(plan.id, [output_id]) == {output_id: sorted(FILES)}
    (entry,) = fresh_catalog.plan_entries(plan.id)
    assert (entry.output_id, entry.datastore, entry.path, entry.reason) == (output_id, "lake", "data/prepared", "old")
    another = fresh_catalog.create_plan([], as_of=clock(), by="test", settings={}, kept={}, managed={}, stopped=True)
    assert [each.id for each in fresh_catalog.find_plans()] == [another.id, plan.id]
    assert (another.id, another.state, another.outputs, another.size_bytes) == (plan.id + 1, "stopped", 0, 0)


def test_a_plan_is_decided_on_once(fresh_catalog, clock, plan):
    decided = fresh_catalog.decide_plan(plan.id, approved=True, by="ann")
    assert (decided.state, decided.decided_by, decided.decided_at) == ("approved", "ann", clock())
    with pytest.raises(PlanNotReady, match=f"Plan {plan.id} is approved. Needed: planned"):
        fresh_catalog.decide_plan(plan.id, approved=False, by="bob")
    with pytest.raises(PlanNotReady, match="Plan 99 is unknown"):
        fresh_catalog.decide_plan(99, approved=True, by="ann")
    with pytest.raises(InvalidDeclaration, match="There is no plan 99"):
        fresh_catalog.get_plan(99)


def test_only_what_a_plan_holds_can_be_struck_out(fresh_catalog, plan):
    with pytest.raises(InvalidDeclaration, match="holds no output 'other'"):
        fresh_catalog.decide_plan(plan.id, approved=True, by="ann", keep=["other"])
    assert fresh_catalog.get_plan(plan.id).state == "planned"


def test_a_claimed_output_cannot_be_read_and_one_that_is_deleted_says_by_which_plan(
    fresh_catalog, clock, plan, output_id
):
    fresh_catalog.decide_plan(plan.id, approved=True, by="ann")
    assert fresh_catalog.claim_for_deletion(plan.id, [output_id], may_go, by="sweep") == Claim({output_id}, set(), {})
    with pytest.raises(DataDeleted, match=f"'prepared' was being deleted by plan {plan.id}"):
        fresh_catalog.lease_outputs(make_run("train"), [output_id], lease_seconds=60)

    fresh_catalog.finish_deletion(plan.id, [FinishedDeletion(output_id, 2, 15)], by="sweep")
    fresh_catalog.finish_deletion(plan.id, [FinishedDeletion(output_id, 2, 15)], by="sweep")

    with pytest.raises(
        DataDeleted, match=f"deleted on 2026-01-31 by plan {plan.id}: run step 'prepare' of DAG 'sales'"
    ):
        fresh_catalog.register_dataset(
            NewDatasetVersion(name="late", definition={}, output_id=output_id), create_new_version=True
        )
    done = fresh_catalog.end_plan(plan.id)
    assert (done.state, done.ended_at, done.deleted_files, done.freed_bytes) == ("ended", clock(), 2, 15)
    assert [each.event for each in fresh_catalog.history(output_id=output_id)] == ["deleted", "committed", "begun"]
    assert (fresh_catalog.get_output(output_id).state, fresh_catalog.get_output(output_id).deleted_at) == (
        "deleted",
        clock(),
    )


def test_who_has_claimed_an_output_last_counts_its_files(fresh_catalog, plan, output_id):
    fresh_catalog.decide_plan(plan.id, approved=True, by="ann")
    fresh_catalog.claim_for_deletion(plan.id, [output_id], may_go, by="first")
    assert fresh_catalog.claim_for_deletion(plan.id, [output_id], may_go, by="second") == Claim(set(), {output_id}, {})
    fresh_catalog.finish_deletion(plan.id, [FinishedDeletion(output_id, 1, 5)], by="first")
    assert fresh_catalog.get_output(output_id).state == "deleting"
    fresh_catalog.finish_deletion(plan.id, [FinishedDeletion(output_id, 2, 15)], by="second")
    assert fresh_catalog.end_plan(plan.id).freed_bytes == 15


def test_a_plan_does_not_end_before_all_of_it_is_done(fresh_catalog, plan, output_id):
    fresh_catalog.decide_plan(plan.id, approved=True, by="ann")
    assert fresh_catalog.end_plan(plan.id).state == "approved"
    fresh_catalog.claim_for_deletion(plan.id, [output_id], may_go, by="sweep")
    assert fresh_catalog.end_plan(plan.id).state == "approved"


def test_each_output_is_judged_again_by_what_is_there_now(fresh_catalog, clock, plan, output_id):
    fresh_catalog.decide_plan(plan.id, approved=True, by="ann")
    fresh_catalog.lease_outputs(make_run("train"), [output_id], lease_seconds=60)
    clock.advance(30)
    fresh_catalog.register_dataset(
        NewDatasetVersion(
            name="since", definition={"sources": [{"output_id": output_id}, {"datastore": "lake", "path": "x/*"}]}
        ),
        create_new_version=True,
    )
    judged = []

    def judge(places):
        def why_kept(output):
            judged.append((output.id, output.lease, output.used_at, [tuple(each) for each in places]))
            return "because"

        return why_kept

    assert fresh_catalog.claim_for_deletion(plan.id, [output_id], judge, by="sweep").kept == {output_id: "because"}
    dataset = "'since' version 1"
    assert judged == [
        (
            output_id,
            make_run("train").id,
            clock() - timedelta(seconds=30),
            [(dataset, output_id, "", ""), (dataset, "", "lake", "x/*")],
        )
    ]
    (entry,) = fresh_catalog.plan_entries(plan.id)
    assert (entry.state, entry.detail) == ("skipped", "because")
    assert fresh_catalog.get_output(output_id).state == "committed"
    assert fresh_catalog.end_plan(plan.id).state == "ended"


def test_candidates_are_those_nobody_has_touched_since(fresh_catalog, clock):
    old, used, elsewhere = (
        write_output(fresh_catalog, make_run(name), make_output(path=name, datastore=store))
        for name, store in (("old", "lake"), ("used", "lake"), ("elsewhere", "other"))
    )
    clock.advance(3600)
    fresh_catalog.lease_outputs(make_run("train"), [used], lease_seconds=60)
    write_output(fresh_catalog, make_run("new"), make_output(path="new"))
    then = clock() - timedelta(seconds=60)
    with fresh_catalog.candidates(["lake"], changed_before=then, begun_before=then) as found:
        assert [each.id for each in found] == [old]
    with fresh_catalog.candidates([], changed_before=clock(), begun_before=clock()) as found:
        assert list(found) == []  # nothing means nothing
    assert fresh_catalog.used_of_late(["lake"], changed_before=then) == [1, 5_000_000_000]
    assert fresh_catalog.used_of_late(["other"], changed_before=then) == [0, 0]
    with fresh_catalog.candidates(["lake", "other"], changed_before=clock(), begun_before=clock()) as found:
        leased = {each.id: each.lease for each in found}
    assert (leased[old], leased[elsewhere], leased[used]) == ("", "", make_run("train").id)


def test_bytes_are_counted_by_datastore(fresh_catalog, output_id, plan):
    assert fresh_catalog.managed_bytes() == {"lake": 5_000_000_000}
    fresh_catalog.decide_plan(plan.id, approved=True, by="ann")
    fresh_catalog.claim_for_deletion(plan.id, [output_id], may_go, by="sweep")
    fresh_catalog.finish_deletion(plan.id, [FinishedDeletion(output_id, 2, 15)], by="sweep")
    assert fresh_catalog.managed_bytes() == {}


def test_pins_are_in_the_history(fresh_catalog, output_id):
    fresh_catalog.pin_output(output_id, by="ann", reason="audit")
    assert fresh_catalog.get_output(output_id).pin == "ann: audit"
    for _ in range(2):
        fresh_catalog.unpin_output(output_id, by="bob")
    assert fresh_catalog.get_output(output_id).pin is None
    assert [each.detail for each in fresh_catalog.history(output_id=output_id)][:2] == [
        "No longer kept, says bob.",
        "Kept by ann: audit.",
    ]
    with pytest.raises(DataChanged, match="not in the catalog"):
        fresh_catalog.pin_output("unknown", by="ann", reason="")
