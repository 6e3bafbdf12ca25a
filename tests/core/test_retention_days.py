"""Ninety days of a busy schedule, a retention DAG run at the end of each: nothing needed goes, everything due does."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_aml_data import OutputFileDatasetConfig, Workspace
from airflow_aml_data.core.catalog import Catalog, HistoryEntry
from airflow_aml_data.core.compute.local import Command
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.plan import StepDeclaration
from airflow_aml_data.core.retention.plan import RetentionScope, make_plan
from airflow_aml_data.core.retention.reconcile import reconcile
from airflow_aml_data.core.retention.sweep import sweep_plan
from airflow_aml_data.core.step import run_step
from airflow_aml_data.errors import DataDeleted, StepFailed
from tests.core.steps import Steps

pytestmark = pytest.mark.slow

DAYS = 90
KEPT_DAYS = 30
STORE = "workspaceblobstore"


class Script:
    """A script in this process: writes its output, fails when told."""

    def __init__(self, fails: bool) -> None:
        self._fails = fails

    def run(self, command: Command, on_line: Callable[[str], None]) -> int:
        for name, value in command.environment.items():
            if name.startswith("AZURE_ML_OUTPUT_"):
                Path(value).mkdir(parents=True, exist_ok=True)
                Path(value, "data.txt").write_text("x" * random.Random(value).randrange(1, 200))
        return int(self._fails)


@dataclass
class Made:
    """What the test itself knows of an output."""

    reference: OutputReference
    touched: datetime
    kept: bool = False
    leased: bool = False


@dataclass
class Schedule:
    """A few DAGs, day after day.

    :param open_runs: Runs that a person has cleared, and that wait to run again.
    :param at_work: Steps that read, and what.
    :param cleared: Tries that were made because a person cleared the step.
    :param deleted: The history of deletions, at the end.
    """

    steps: Steps
    shuffle: random.Random
    day: float = 0.0
    runs: int = 0
    made: list[Made] = field(default_factory=list)
    freed: int = 0
    open_runs: set[tuple[str, str]] = field(default_factory=set)
    at_work: list[tuple[StepRun, Made]] = field(default_factory=list)
    cleared: list[StepRun] = field(default_factory=list)
    deleted: list[HistoryEntry] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=self.day)

    def next_run(self) -> StepRun:
        self.runs += 1
        return StepRun(dag_id=f"dag{self.runs % 3}", run_id=f"run{self.runs}", task_id=f"step{self.runs}")

    def step(
        self, *, inputs: Any = (), output: Any = None, fails: bool = False, run: StepRun | None = None
    ) -> list[OutputReference]:
        declared = StepDeclaration(
            run=run or self.next_run(),
            command=["script"],
            inputs=inputs,
            outputs=[output] if output else [],
        )
        return list(
            run_step(
                self.steps.connected,
                declared,
                Script(fails),
                on_line=lambda _: None,
                scratch_root=self.steps.scratch,
            ).outputs
        )

    def produce(self) -> None:
        output = OutputFileDatasetConfig("out").as_upload()
        if registers := self.shuffle.random() < 0.1:
            output = output.register_on_complete(f"data{self.runs}")
        (reference,) = self.step(output=output)
        self.made.append(Made(reference, self.now(), kept=registers))

    def fail(self) -> None:
        with pytest.raises(StepFailed):
            self.step(output=OutputFileDatasetConfig("out"), fails=True)

    def read(self) -> None:
        """A late consumer, a cleared run or a run that overlaps: within the days that are promised."""
        promised = [each for each in self.made if self.now() - each.touched < timedelta(days=KEPT_DAYS)]
        if promised:
            each = self.shuffle.choice(promised)
            self.step(inputs=[each.reference.as_dataset().as_named_input("data").as_download()])
            each.touched = self.now()

    def read_any(self) -> None:
        """Somebody reads what is still there, also what may go today."""
        if alive := [each for each in self.made if self._is_there(each)]:
            oldest = min(alive, key=lambda each: each.touched)
            self.step(inputs=[oldest.reference.as_dataset().as_named_input("data").as_download()])
            oldest.touched = self.now()

    def clear(self) -> None:
        """A person clears a step: its next try writes again, beside what the first one wrote."""
        if alive := [each for each in self.made if self._is_there(each)]:
            first = self.steps.connected.catalog.get_output(self.shuffle.choice(alive).reference.output_id)
            run = StepRun(
                dag_id=first.dag_id, run_id=first.run_id, task_id=first.task_id, try_number=first.try_number + 1
            )
            if run not in self.cleared:
                self.cleared.append(run)
                (reference,) = self.step(output=OutputFileDatasetConfig("out").as_upload(), run=run)
                self.made.append(Made(reference, self.now()))

    def overlap(self) -> None:
        """A step of another run reads for weeks, also while the retention DAG runs."""
        if alive := [each for each in self.made if self._is_there(each) and not each.leased]:
            each = self.shuffle.choice(alive)
            run = self.next_run()
            self.steps.connected.catalog.lease_outputs(run, [each.reference.output_id], lease_seconds=DAYS * 24 * 3600)
            each.touched, each.leased = self.now(), True
            self.at_work.append((run, each))

    def end_overlap(self) -> None:
        """It has read to its end, long after its data was due."""
        if self.at_work and self.now() - self.at_work[0][1].touched > timedelta(days=KEPT_DAYS + 5):
            run, each = self.at_work.pop(0)
            assert self._is_there(each)
            self.steps.connected.catalog.release_leases(run)
            each.leased = False

    def pin(self) -> None:
        if alive := [each for each in self.made if self._is_there(each)]:
            each = self.shuffle.choice(alive)
            self.steps.connected.catalog.pin_output(each.reference.output_id, by="ann", reason="")
            each.kept = True

    def leave_open(self) -> None:
        """A run that a person has cleared, and that waits to run again."""
        if alive := [each for each in self.made if self._is_there(each)]:
            each = self.shuffle.choice(alive)
            found = self.steps.connected.catalog.get_output(each.reference.output_id)
            self.open_runs = {(found.dag_id, found.run_id)}

    def clean_up(self) -> None:
        catalog = self.steps.connected.catalog
        before = self._stored_bytes()
        looked = reconcile(self.steps.connected, STORE)
        assert (looked.unknown, looked.missing, looked.found) == ([], [], [])
        plan = make_plan(
            self.steps.connected, RetentionScope(datastores=(STORE,), maximum_share=1), self._open, by="test"
        )
        if self.shuffle.random() < 0.5:
            self.read_any()  # while a person thinks about the plan
        catalog.decide_plan(plan.id, approved=True, by="ann")
        done = sweep_plan(self.steps.connected, plan.id, self._open)
        assert done.state == "ended"
        assert before - self._stored_bytes() == done.freed_bytes
        self.freed += done.freed_bytes

    def check(self) -> None:
        """Everything due is gone, all else is there."""
        for each in self.made:
            found = self.steps.connected.catalog.get_output(each.reference.output_id)
            due = self.now() - each.touched >= timedelta(days=KEPT_DAYS) and not each.leased
            protected = each.kept or (found.dag_id, found.run_id) in self.open_runs
            if protected and found.state != "deleted":
                assert self._is_there(each)
            else:
                assert self._is_there(each) == (not due), f"day {self.day}: {found}"

    def _open(self, runs: Any) -> set[tuple[str, str]]:
        return set(runs) & self.open_runs

    def _is_there(self, each: Made) -> bool:
        return (self.steps.root / each.reference.path / "data.txt").exists()

    def _stored_bytes(self) -> int:
        return sum(each.stat().st_size for each in self.steps.root.rglob("*") if each.is_file())

    def live(self, days: Sequence[Sequence[str]]) -> None:
        """Let things happen day after day, and clean up at the end of each."""
        with pytest.MonkeyPatch.context() as patch:
            catalog = Catalog(self.steps.connected.config.catalog_connection_string, now=self.now)
            patch.setattr(ConnectedWorkspace, "catalog", property(lambda _: catalog))
            for day, events in enumerate(days):
                for number, event in enumerate(events):
                    self.day = day + number / 20
                    getattr(self, event)()
                self.day = day + 0.9
                self.clean_up()
                self.check()
            self.deleted = [each for each in catalog.history(limit=100_000) if each.event == "deleted"]
            assert sum(int(each.detail.split(" bytes")[0].split()[-1]) for each in self.deleted) == self.freed
            for each in self.made:
                if not self._is_there(each):
                    with pytest.raises(DataDeleted, match="run step"):
                        self.step(inputs=[each.reference.as_dataset().as_named_input("data").as_download()])
                    break
            catalog.close()


EVENTS = ("produce", "read", "fail", "pin", "leave_open", "clear", "overlap", "end_overlap")


def a_day(shuffle: random.Random) -> list[str]:
    """What happens on a busy day, in any order."""
    events = ["produce", "read"] * 2
    events += [each for each in EVENTS[2:] if shuffle.random() < 0.15]
    shuffle.shuffle(events)
    return events


def test_ninety_days(steps: Steps) -> None:
    schedule = Schedule(steps, random.Random(1))
    schedule.live([a_day(schedule.shuffle) for _ in range(DAYS)])
    assert len(schedule.deleted) > DAYS / 2


@settings(max_examples=8)
@given(
    days=st.lists(st.lists(st.sampled_from(EVENTS), max_size=3), min_size=KEPT_DAYS + 2, max_size=KEPT_DAYS + 10),
    seed=st.integers(0, 99),
)
def test_whatever_happens_in_whatever_order(days: list[list[str]], seed: int, empty_catalog: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        home = Path(folder, "airflow_home", "azureml_workspace")
        home.mkdir(parents=True)
        shutil.copy(empty_catalog, home / "catalog.db")
        patch.setenv("AIRFLOW_HOME", str(home.parent))
        Schedule(Steps(Workspace(), Path(folder)), random.Random(seed)).live([["produce"], *days])
