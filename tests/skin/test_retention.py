"""The retention DAG, from the real ``dags/`` folder, where no person is asked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.skin.conftest import FinishedRun, parse_folder, run

pytestmark = pytest.mark.slow

RETENTION = Path(__file__).parents[2] / "dags" / "aml_data_retention.py"
ALL = {"maximum_share": 1, "approval": False}


@pytest.fixture
def retention(dags_folder: Path) -> Callable[..., FinishedRun]:
    """Run it, with values of its trigger form."""
    shutil.copy(RETENTION, dags_folder)
    bag = parse_folder(dags_folder)
    assert not bag.import_errors, bag.import_errors

    def run_it(**params: Any) -> FinishedRun:
        return run(bag.dags["aml_data_retention"], params)

    return run_it


def test_what_is_due_is_deleted_and_reported(old, retention):
    finished = retention(**ALL)
    assert finished.state == "success"
    assert finished.task_states["approval"] == "skipped"
    report = finished.xcom("report")
    assert list(old.stored()) == [report["page"]]
    (total,) = report["by_dag"]
    assert (total["dag_id"], total["outputs"], total["freed_bytes"]) == ("dag", 2, report["freed_bytes"])
    assert (report["state"], report["decided_by"]) == ("ended", "the DAG's settings")
    assert report["freed_bytes"] == report["planned_bytes"] > 0
    planned = finished.xcom("plan")
    assert (planned["outputs"], planned["files"], planned["batches"]) == (2, 4, [0])
    assert planned["table"].count("unchanged for 31 days, never read") == 2


def test_a_dry_run_deletes_nothing_and_closes_its_plan(old, retention):
    finished = retention(**ALL, dry_run=True)
    assert finished.state == "success"
    assert len(old.stored()) == 3  # and the report
    report = finished.xcom("report")
    assert (report["state"], report["decided_by"]) == ("rejected", "the dry run")


def test_a_plan_that_is_too_large_fails_and_deletes_nothing(old, retention):
    finished = retention(approval=False)
    assert finished.state == "failed"
    assert finished.task_states["plan"] == "failed"
    assert len(old.stored()) == 2


def test_what_no_step_accounts_for_stays_when_nobody_is_asked(old, retention):
    stray = old.root / "dataset/dag.run.step.try1.0123456789/out/stray.txt"
    stray.parent.mkdir(parents=True)
    stray.write_text("stray")
    then = (datetime.now(UTC) - timedelta(days=31)).timestamp()
    os.utime(stray, (then, then))

    finished = retention(**ALL)

    assert finished.xcom("reconcile")["workspaceblobstore"]["unknown_bytes"] == 5
    planned = finished.xcom("plan")
    assert planned["outputs"] == 3
    assert "no step accounts for it; unchanged for 31 days" in planned["table"]
    assert old.stored().keys() == {str(stray.relative_to(old.root)), finished.xcom("report")["page"]}


def test_nothing_due_skips_everything(steps, retention):
    steps.write("a.txt")
    finished = retention(**ALL)
    assert finished.task_states == {
        **dict.fromkeys(("due", "plan", "who_decides", "approval", "decide", "sweep"), "skipped"),
        **dict.fromkeys(("reconcile", "report"), "success"),
    }


def test_less_than_the_floor_needs_a_reason(old, retention):
    finished = retention(**ALL, retention_days=29)
    assert finished.task_states["reconcile"] == "failed"
    assert retention(**ALL, retention_days=29, allow_early_deletion="the disk is full").state == "success"
    assert [each for each in old.stored() if not each.startswith("retention_reports/")] == []
