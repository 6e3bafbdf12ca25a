"""A task whose step runs as an Azure ML job: submitted once, found again by whoever comes after a crash, committed when it has ended."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_aml_data.core.azureml import jobs
from airflow_aml_data.core.azureml.jobs import JobLog, JobState
from airflow_aml_data.core.claims import renewed
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.job import (
    SubmittedStep,
    cancel_step,
    finish_step,
    output_url,
    submit_step,
    take_over_step,
)
from airflow_aml_data.core.plan import StepDeclaration
from airflow_aml_data.core.records import AZUREML_JOB
from airflow_aml_data.core.results import StepResult
from airflow_aml_data.core.storage import retry
from airflow_aml_data.errors import AmlDataError, AzureMlError, InvalidDeclaration, JobFailed, TransfersCancelled
from airflow_aml_data.operators.base import StepOperator, dag_folder
from airflow_aml_data.operators.environments import settings_for
from airflow_aml_data.operators.links import STEP_LINKS
from airflow_aml_data.triggers.job import JobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

_STATE_KEY = "azureml_job"
_CANCEL_SECONDS = 4.0
"""Airflow kills a task five seconds after it has told it to end."""
_PATIENCE_SECONDS = 60.0


class TaskJob:
    """The job of one task; made anew in each of the task's processes."""

    def __init__(
        self, operator: StepOperator, context: Context, workspace: ConnectedWorkspace, declared: StepDeclaration
    ) -> None:
        self._operator, self._context = operator, context
        self._workspace, self._declared = workspace, declared
        self._log = operator.log
        self._step: SubmittedStep | None = None
        self._cancelled = threading.Event()
        self._for_cancelling = ConnectedWorkspace(workspace.config)
        """Its own: cancelling interrupts the other's work."""

    def execute(self) -> StepResult:
        """Submit the job, or find that of an earlier try; then wait for it here, or leave that to the trigger."""
        state = self._adopted() or self._submitted()
        step = self._known_step()
        self._tell(state, step)
        timeout = self._operator.execution_timeout
        if self._is_deferrable and not state.is_ended:
            self._operator.defer(
                trigger=JobTrigger(
                    conn_id=self._workspace.config.name,
                    step=step.to_json(),
                    deadline=time.time() + timeout.total_seconds() if timeout else None,
                    poll_seconds=self._operator.poll_seconds,
                ),
                method_name="execute_complete",
            )
        with renewed(self._workspace.catalog, step.run):
            try:
                state = self._wait(state)
            except AirflowTaskTimeout:
                self._give_up("execution_timeout of the task has passed", patience_seconds=_PATIENCE_SECONDS)
                raise
            except TransfersCancelled:  # while it looked at the job
                self._end()
        return finish_step(self._workspace, self._declared, step, state, is_log_told=True)

    def finish(self, event: dict[str, Any]) -> StepResult:
        """Commit what the job has left, or end it when its time is over.

        :param event: What the trigger has told.
        """
        step = self._step = SubmittedStep.from_json(event["step"])
        if step is None:
            raise InvalidDeclaration(
                "The job was submitted by another release of airflow-aml-data. Clear the task to submit it anew."
            )
        if event["timed_out"]:
            self._give_up("execution_timeout of the task has passed", patience_seconds=_PATIENCE_SECONDS)
            raise AirflowTaskTimeout(
                f"Job {step.job!r} took longer than the task's execution_timeout, {self._operator.execution_timeout}, and was cancelled."
            )
        state = jobs.find(self._workspace.azureml, step.job)
        if state is None:
            state = _missing(step.job)
        return finish_step(self._workspace, self._declared, step, state)

    def cancel(self) -> None:
        """Cancel the job, from within a signal handler too: what is being done is not gone on with."""
        self._cancelled.set()
        step = self._step
        if step is None:
            return
        thread = threading.Thread(target=self._ask_to_cancel, args=(step,), daemon=True)
        thread.start()
        thread.join(_CANCEL_SECONDS)

    @property
    def _is_deferrable(self) -> bool:
        chosen = self._operator.deferrable
        return conf.getboolean("operators", "default_deferrable", fallback=False) if chosen is None else chosen

    def _adopted(self) -> JobState | None:
        """The job of an earlier try that Airflow lost sight of; None when there is none to go on with.

        A task that somebody cleared has another number of tries it may take: its job is not wanted any more.
        """
        known: Any = self._context["task_state_store"].get(_STATE_KEY)
        service = self._workspace.azureml
        state = jobs.find(service, known["job"]) if known else None
        if state is None or state.status in ("Failed", "Canceled", "CancelRequested"):
            return None
        step = SubmittedStep.from_json(known["step"])
        if step is None or known["max_tries"] != self._context["ti"].max_tries:
            if not state.is_ended:
                self._log.info(
                    "Job %s is of a try that was cleared, or of another release: it is cancelled.", state.name
                )
                jobs.cancel(service, state.name, patience_seconds=_PATIENCE_SECONDS)
            return None
        if not take_over_step(self._workspace, self._declared, step):
            return None
        self._log.info("An earlier try has submitted job %s, which is %s: going on with it.", step.job, state.status)
        self._step = step
        return state

    def _submitted(self) -> JobState:
        ti = self._context["ti"]
        tags = {
            "dag_id": ti.dag_id,
            "run_id": ti.run_id,
            "task_id": ti.task_id,
            "map_index": str(-1 if ti.map_index is None else ti.map_index),
            "try_number": str(ti.try_number),
        }
        operator = self._operator
        settings = settings_for(
            operator.runconfig,
            operator.compute_target,
            dag_folder(operator),
            execution_timeout=operator.execution_timeout,
            tags=tags,
        )
        state = submit_step(self._workspace, self._declared, settings, self._remember)
        if self._cancelled.is_set():
            self._end()
        return state

    def _remember(self, step: SubmittedStep) -> None:
        """Write down which job is about to be submitted."""
        if self._cancelled.is_set():
            raise JobFailed(step.job, "Canceled", "the task was ended before the job was submitted")
        self._step = step
        value: Any = {"job": step.job, "step": step.to_json(), "max_tries": self._context["ti"].max_tries}
        self._context["task_state_store"].set(_STATE_KEY, value)

    def _known_step(self) -> SubmittedStep:
        if self._step is None:
            raise RuntimeError("No job was submitted.")
        return self._step

    def _tell(self, state: JobState, step: SubmittedStep) -> None:
        """Let the UI lead to the job and to what it writes, from now on."""
        told = {"name": step.job, "studio_url": state.studio_url, "output_url": output_url(self._workspace, step)}
        self._operator.job_links = told
        self._operator.operator_extra_links = links = [each for each in STEP_LINKS if told[each.key]]
        ti = self._context["ti"]
        ti.xcom_push(key=AZUREML_JOB, value=told)
        for link in links:
            ti.xcom_push(key=link.xcom_key, value=told[link.key])

    def _wait(self, state: JobState) -> JobState:
        """Wait on this worker, and pass on what the job prints. That the service is out of reach for a while is no reason to give up."""
        printed = JobLog(self._workspace.azureml, state.name)
        for wait in jobs.waits(self._operator.poll_seconds):
            try:
                for line in printed.rest() if state.is_ended else printed.lines():
                    self._log.info(line)
                if state.is_ended:
                    break
                state = jobs.find(self._workspace.azureml, state.name) or _missing(state.name)
            except AzureMlError as error:
                self._log.warning("Job %s: %s", state.name, error)
            if not state.is_ended and self._cancelled.wait(wait):
                self._end()
        return state

    def _end(self) -> NoReturn:
        """The task was ended by a user."""
        with retry.clearing():
            self._give_up("the task was ended")
        raise JobFailed(self._known_step().job, "Canceled", "the task was ended")

    def _give_up(self, reason: str, patience_seconds: float = 0.0) -> None:
        cancel_step(self._workspace, self._known_step(), reason, patience_seconds=patience_seconds)

    def _ask_to_cancel(self, step: SubmittedStep) -> None:
        with retry.clearing():
            try:
                jobs.cancel(self._for_cancelling.azureml, step.job)
            except AmlDataError as error:
                self._log.warning("Job %s could not be cancelled: %s", step.job, error)


def _missing(name: str) -> JobState:
    return JobState(name=name, status=jobs.MISSING)
