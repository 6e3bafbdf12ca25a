"""Run steps as jobs of the Azure ML that is running, without Airflow."""

from __future__ import annotations

import time
from typing import Any

from airflow_aml_data.core.azureml import jobs
from airflow_aml_data.core.azureml.jobs import JobSettings, JobState
from airflow_aml_data.core.job import SubmittedStep, finish_step, submit_step
from airflow_aml_data.core.plan import StepDeclaration
from airflow_aml_data.core.results import StepResult
from tests.core.steps import Steps

CLUSTER = JobSettings(compute="cpu-cluster", environment="sklearn:1")


class JobSteps(Steps):
    """Steps of one DAG run, each of which may run here or there."""

    def submit(
        self, script: str, *, settings: JobSettings = CLUSTER, **more: Any
    ) -> tuple[StepDeclaration, SubmittedStep]:
        """Submit the job of a step, and do not wait."""
        remembered: list[SubmittedStep] = []
        declared = self.declare(script, interpreter="python", **more)
        submit_step(self.connected, declared, settings, remembered.append)
        return declared, remembered[0]

    def wait(self, step: SubmittedStep) -> JobState:
        """The end of its job."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            state = jobs.find(self.connected.azureml, step.job)
            if state is None or state.is_ended:
                assert state is not None
                return state
            time.sleep(0.05)
        raise TimeoutError(step.job)

    def run_job(self, script: str, **more: Any) -> StepResult:
        """Run a step as a job, to its end."""
        declared, step = self.submit(script, **more)
        return finish_step(self.connected, declared, step, self.wait(step), scratch_root=self.scratch)
