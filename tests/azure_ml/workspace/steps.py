"""Run steps as jobs of the Azure ML that is running, without Airflow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_aml_data.core.azureml import jobs
from airflow_aml_data.core.azureml.jobs import JobLog, JobSettings, JobState
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.job import SubmittedStep, finish_step, submit_step
from airflow_aml_data.core.plan import StepDeclaration
from airflow_aml_data.core.results import StepResult
from tests.core.steps import Steps

CLUSTER = JobSettings(compute="cpu-cluster", environment="sklearn:1")


@dataclass
class JobSteps(Steps):
    """Steps of one DAG run, each of which may run here or there.

    :param submitted: Task to its step.
    """

    submitted: dict[str, SubmittedStep] = field(default_factory=dict)

    def declare(self, script: str, *, run_id: str = "", **more: Any) -> StepDeclaration:
        """As here, in DAG runs of the test's own: containers outlive tests."""
        return super().declare(script, run_id=f"{self.folder.name}_{run_id}", **more)

    def submit(
        self, script: str, *, settings: JobSettings = CLUSTER, **more: Any
    ) -> tuple[StepDeclaration, SubmittedStep]:
        """Submit the job of a step, and do not wait."""
        return self._submit(self.declare(script, interpreter="python", **more), settings)

    def wait(self, step: SubmittedStep) -> JobState:
        """The end of its job."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            state = jobs.find(self.connected.azureml, step.job)
            assert state is not None
            if state.is_ended:
                return state
            time.sleep(0.05)
        raise TimeoutError(step.job)

    def run_job(self, script: str, **more: Any) -> StepResult:
        """Run a step as a job, to its end."""
        return self._finish(*self.submit(script, **more))

    def run_job_command(self, command: Sequence[Any], **more: Any) -> StepResult:
        """Run a shell command as a job, to its end."""
        run = StepRun(dag_id="dag", run_id=self.folder.name, task_id="command")
        return self._finish(*self._submit(StepDeclaration(run=run, command=command, shell=True, **more), CLUSTER))

    def log(self, task_id: str) -> str:
        """What the task's job printed."""
        return "\n".join(JobLog(self.connected.azureml, self.submitted[task_id].job).rest())

    def _submit(self, declared: StepDeclaration, settings: JobSettings) -> tuple[StepDeclaration, SubmittedStep]:
        def remember(step: SubmittedStep) -> None:
            self.submitted[declared.run.task_id] = step

        submit_step(self.connected, declared, settings, remember)
        return declared, self.submitted[declared.run.task_id]

    def _finish(self, declared: StepDeclaration, step: SubmittedStep) -> StepResult:
        return finish_step(self.connected, declared, step, self.wait(step), scratch_root=self.scratch)
