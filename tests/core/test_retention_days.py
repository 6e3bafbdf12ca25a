"""Ninety days of a busy schedule, a retention DAG run at the end of each: nothing needed goes, everything due does."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_aml_data import OutputFileDatasetConfig
from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.compute.local import Command
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.plan import StepDeclaration
from airflow_aml_data.core.retention.plan import RetentionScope, make_plan
from airflow_aml_data.core.retention.sweep import sweep_plan
from airflow_aml_data.core.step import run_step
from airflow_aml_data.errors import DataDeleted, StepFailed
from tests.core.steps import Steps

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

    :param broken: Reads that found their data gone although it was promised; there must be none.
    """

    steps: Steps
    shuffle: random.Random
    day: float = 0.0
    runs: int = 0
    made: list[Made] = field(default_factory=list)
    freed: int = 0
    open_runs: set[tuple[str, str]] = field(default_factory=set)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=self.day)

    def step(
        self, *, inputs: Any = (), output: Any = None, fails: bool = False, run_id: str = ""
    ) -> list[OutputReference]:
        self.runs += 1
        declared = StepDeclaration(
            run=StepRun(dag_id=f"dag{self.runs % 3}", run_id=run_id or f"run{self.runs}", task_id=f"step{self.runs}"),
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
        plan = make_plan(
            self.steps.connected, RetentionScope(datastores=(STORE,), maximum_share=1), self._open, by="test"
        )
        if self.shuffle.random() < 0.1:
            self.read()  # while a person thinks about the plan
        catalog.decide_plan(plan.id, approved=True, by="ann")
        done = sweep_plan(self.steps.connected, plan.id, self._open)
        assert done.state == "ended"
        assert before - self._stored_bytes() == done.freed_bytes
        self.freed += done.freed_bytes

    def check(self) -> None:
        """Everything due is gone, all else is there."""
        for each in self.made:
            found = self.steps.connected.catalog.get_output(each.reference.output_id)
            due = self.now() - each.touched >= timedelta(days=KEPT_DAYS)
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_ninety_days(steps: Steps, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    schedule = Schedule(steps, random.Random(seed))
    catalog = Catalog(steps.connected.config.catalog_connection_string, now=schedule.now)
    monkeypatch.setattr(ConnectedWorkspace, "catalog", property(lambda _: catalog))
    for day in range(DAYS):
        events = [schedule.produce] * 2 + [schedule.read] * 2
        events += [
            event for event in (schedule.fail, schedule.pin, schedule.leave_open) if schedule.shuffle.random() < 0.1
        ]
        schedule.shuffle.shuffle(events)
        for number, event in enumerate(events):
            schedule.day = day + number / 10
            event()
        schedule.day = day + 0.9
        schedule.clean_up()
        schedule.check()

    deleted = [each for each in catalog.history(limit=100_000) if each.event == "deleted"]
    assert sum(int(each.detail.split(" bytes")[0].split()[-1]) for each in deleted) == schedule.freed
    assert len(deleted) > DAYS / 2
    with pytest.raises(DataDeleted):
        gone = next(each for each in schedule.made if not schedule._is_there(each))
        schedule.step(inputs=[gone.reference.as_dataset().as_named_input("data").as_download()])
