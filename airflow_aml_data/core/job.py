"""The use-case for a step on Azure ML: plan -> ship -> submit, and when its job has ended: commit.

Nobody need be there in between. What the second half has to know of the first is a :class:`SubmittedStep`.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow_aml_data.core import claims, records
from airflow_aml_data.core.azureml import jobs
from airflow_aml_data.core.azureml.jobs import JobSettings, JobState, NewJob
from airflow_aml_data.core.commit import commit_job, files_before
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.in_job.told import RECORDS_FILE, REPORT_FILE, TOLD_FILE, Report
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.plan import (
    PlannedOutput,
    StepDeclaration,
    StepPlan,
    declared_data,
    plan_step,
    with_run_files,
)
from airflow_aml_data.core.records import Record
from airflow_aml_data.core.results import StepResult, check_end, describe, details_of, metrics_for_xcom
from airflow_aml_data.core.run_files import RUN_FILES
from airflow_aml_data.core.scratch import scratch_folder
from airflow_aml_data.core.ship import job_folder, pack, ship_step, staged_at, staging_of
from airflow_aml_data.core.storage import retry
from airflow_aml_data.core.storage.base import StoredFile
from airflow_aml_data.errors import (
    AmlDataError,
    AzureMlError,
    JobFailed,
    OutputLost,
    OutputUnusable,
    StaleTry,
    StorageError,
    WiringError,
)

log = logging.getLogger(__name__)

_VERSION = 1
_EXISTING_FILE = "existing.json"
_TAIL_LINES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedStep:
    """A step whose job was submitted, or is about to be.

    :param run: The try that the outputs belong to. A later try that goes on with the job keeps it.
    :param datastore: Where the job's own files are.
    :param outputs: Name to datastore and path of each output: a default may be another one when the job has ended.
    """

    run: StepRun
    datastore: str
    outputs: Mapping[str, Sequence[str]]

    @property
    def job(self) -> str:
        """The name of the job."""
        return jobs.job_name(self.run)

    def to_json(self) -> dict[str, Any]:
        return {"version": _VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SubmittedStep | None:
        """What :meth:`to_json` gave; None for that of another release."""
        known = dict(content)
        if known.pop("version", None) != _VERSION:
            return None
        return cls(run=StepRun(**known.pop("run")), **known)


def submit_step(
    workspace: ConnectedWorkspace,
    declared: StepDeclaration,
    settings: JobSettings,
    remember: Callable[[SubmittedStep], None],
) -> JobState:
    """Submit the job of a step.

    :param remember: Called when the job is as good as submitted, just before that: whoever is killed then finds it again. A job that is
        submitted twice for one step run is there once.
    :raises UserError: before the job's code is uploaded, for what the author has to change.
    :raises AzureMlError, StorageError: when the service or a store failed; a retry may help.
    """
    plan = plan_step(workspace, declared)
    for line in describe(plan):
        log.info(line)
    service = workspace.azureml
    jobs.check_settings(service, settings)
    shipped = ship_step(workspace, plan)
    datastore = workspace.datastore_name(None)
    submitted = SubmittedStep(
        run=plan.run, datastore=datastore, outputs={each.name: [each.datastore, each.path] for each in plan.outputs}
    )
    claims.begin(workspace, plan)
    try:
        storage, folder = workspace.storage(datastore), job_folder(plan.run)
        storage.write_bytes(f"{folder}/step/{TOLD_FILE}", shipped.told.to_bytes())
        storage.write_bytes(f"{folder}/{_EXISTING_FILE}", _existing_to_bytes(workspace, plan))
        with scratch_folder(plan.run.id) as scratch:
            pack(plan, scratch / "code")
            remember(submitted)
            job = NewJob(
                name=submitted.job,
                title=plan.run.task_id if plan.run.map_index < 0 else f"{plan.run.task_id}[{plan.run.map_index}]",
                experiment=jobs.experiment_name(plan.run.dag_id),
                command=shipped.command,
                inputs=shipped.inputs,
                outputs=shipped.outputs,
                environment_variables=shipped.environment_variables,
            )
            state = jobs.submit(service, job, settings, scratch / "code")
    except (StorageError, AzureMlError):  # the job may be there all the same: the next try looks
        raise
    except BaseException as error:
        give_up_step(workspace, submitted, f"{type(error).__name__}: {error}")
        raise
    log.info("Job %s runs on %s: %s", state.name, settings.compute, state.studio_url)
    return state


def take_over_step(workspace: ConnectedWorkspace, declared: StepDeclaration, submitted: SubmittedStep) -> bool:
    """Go on with the job of an earlier try, and hold its outputs again; False when that try has ended, or they were taken over."""
    try:
        claims.claim(workspace, _plan_again(workspace, declared, submitted))
    except StaleTry as error:
        log.warning("Job %s is not gone on with: %s", submitted.job, error)
        return False
    return True


def renew_step(workspace: ConnectedWorkspace, submitted: SubmittedStep) -> None:
    """Hold what the step holds for ten minutes more."""
    workspace.catalog.renew_leases(submitted.run, lease_seconds=claims.LEASE_SECONDS)


def cancel_step(
    workspace: ConnectedWorkspace, submitted: SubmittedStep, reason: str, *, patience_seconds: float = 0.0
) -> None:
    """Cancel the job of a step, and give up what it was writing.

    :param patience_seconds: How long to wait for the job's end before its files are removed; it may write until then.
    """
    jobs.cancel(workspace.azureml, submitted.job, patience_seconds=patience_seconds)
    give_up_step(workspace, submitted, reason)


def output_url(workspace: ConnectedWorkspace, submitted: SubmittedStep) -> str:
    """Where Azure ML studio shows the folder of the first output; ``""`` without outputs."""
    for datastore, path in submitted.outputs.values():
        service = workspace.azureml
        name = workspace.azureml_datastore(datastore)
        return f"{service.studio_url}/data/datastore/{name}/edit?wsid={service.arm_id}&activeFilePath={quote(path)}#browseTab"
    return ""


def finish_step(
    workspace: ConnectedWorkspace,
    declared: StepDeclaration,
    submitted: SubmittedStep,
    state: JobState,
    *,
    is_log_told: bool = False,
    scratch_root: Path | None = None,
) -> StepResult:
    """Publish what a job has left that has ended.

    :param is_log_told: Whether everything that it printed is in the log already; else, when it failed, the end of that comes there now.

    :raises JobFailed: when it failed or was cancelled. Nothing is published then; files closed in mount mode stay where they are, as an
        abandoned output that nobody can read by reference.
    :raises RunCanceled, StepFailed, OutputUnusable: as those of a step on the worker.
    :raises StorageError, AzureMlError: when a store or the service failed. Nothing is lost then: who comes next finishes the step.
    """
    try:
        why = "" if state.has_succeeded else _why(workspace, state, is_log_told)
        report, reported = _read_report(workspace, submitted)
        if report and report.unusable:
            raise OutputUnusable(report.unusable)
        check_end(declared.title or declared.run.task_id, report.exit_code if report else 0, reported)
        if not state.has_succeeded:
            raise JobFailed(state.name, state.status, why)
        if report is None:
            raise JobFailed(state.name, state.status, "it has not reported how its script ended")
        plan = _plan_again(workspace, declared, submitted)
        with scratch_folder(plan.run.id, scratch_root) as scratch, claims.renewed(workspace.catalog, plan.run):
            outputs = _publish(workspace, plan, submitted, report, scratch)
    except (StorageError, AzureMlError):
        raise
    except BaseException as error:
        give_up_step(workspace, submitted, f"{type(error).__name__}: {error}")
        raise
    _clear(workspace, submitted)
    claims.release(workspace, submitted.run)
    return StepResult(outputs=outputs, metrics=metrics_for_xcom(reported), details=details_of(reported))


def give_up_step(workspace: ConnectedWorkspace, submitted: SubmittedStep, reason: str) -> None:
    """Abandon what the step was writing, and remove what its job may have left, as far as that is possible."""
    claims.give_up(workspace, submitted.run, reason)
    _clear(workspace, submitted)
    claims.release(workspace, submitted.run)


def _publish(
    workspace: ConnectedWorkspace, plan: StepPlan, submitted: SubmittedStep, report: Report, scratch: Path
) -> list[OutputReference]:
    """Publish the outputs, and as one more the files of the run when there are any."""

    def elsewhere(planned: PlannedOutput) -> str | None:
        return staged_at(plan.run, planned)

    if RUN_FILES in report.outputs:
        plan = with_run_files(workspace, plan, scratch)
    existing = _read_existing(workspace, submitted)
    claims.claim(workspace, plan)  # still ours? It may have taken long until somebody came
    return commit_job(workspace, plan, report.outputs, elsewhere, existing, scratch)


def _plan_again(workspace: ConnectedWorkspace, declared: StepDeclaration, submitted: SubmittedStep) -> StepPlan:
    """The plan of what the job writes. What it read has been settled, and is the past."""
    data = declared_data(declared.command, declared.inputs, declared.outputs)
    if data.outputs.keys() != submitted.outputs.keys():
        raise WiringError(
            f"Job {submitted.job!r} was submitted with the outputs {sorted(submitted.outputs)}, and the DAG declares "
            f"{sorted(data.outputs)} now. Clear the task to run the step as it is."
        )
    outputs = [
        PlannedOutput(name=name, config=replace(config, name=name), datastore=where[0], path=where[1])
        for name, config in data.outputs.items()
        if (where := submitted.outputs[name])
    ]
    return StepPlan(
        run=submitted.run,
        command=[],
        shell=declared.shell,
        title=declared.title,
        source_directory=None,
        inputs=[],
        outputs=outputs,
        environment_variables={},
    )


def _existing_to_bytes(workspace: ConnectedWorkspace, plan: StepPlan) -> bytes:
    """The etags of :func:`.files_before`."""
    before = files_before(workspace, plan).items()
    return json.dumps({name: {path: each.etag for path, each in files.items()} for name, files in before}).encode()


def _read_existing(workspace: ConnectedWorkspace, submitted: SubmittedStep) -> dict[str, dict[str, StoredFile]]:
    storage = workspace.storage(submitted.datastore)
    found = json.loads(storage.read_bytes(f"{job_folder(submitted.run)}/{_EXISTING_FILE}"))
    return {name: {path: StoredFile(path, 0, etag) for path, etag in files.items()} for name, files in found.items()}


def _read_report(workspace: ConnectedWorkspace, submitted: SubmittedStep) -> tuple[Report | None, list[Record]]:
    """How the script ended, None when it did not come to that; and what it reported.

    :raises OutputLost: when the report cannot be read.
    """
    storage, folder = workspace.storage(submitted.datastore), f"{job_folder(submitted.run)}/report"
    there = {each.path for each in storage.list_reserved(folder)}
    file, records_file = f"{folder}/{REPORT_FILE}", f"{folder}/{RECORDS_FILE}"
    try:
        report = Report.from_bytes(storage.read_bytes(file)) if file in there else None
    except (ValueError, TypeError, KeyError) as error:
        raise OutputLost(
            f"What job {submitted.job!r} has reported is damaged: {error}. None of its outputs was published."
        ) from error
    return report, records.parse(storage.read_bytes(records_file)) if records_file in there else []


def _why(workspace: ConnectedWorkspace, state: JobState, is_log_told: bool) -> str:
    """What the service says of a job that has failed, after the end of what it printed is in the log."""
    printed = jobs.JobLog(workspace.azureml, state.name)
    try:
        for line in deque(printed.rest(), maxlen=_TAIL_LINES):
            if not is_log_told:
                log.info(line)
    except AmlDataError as error:  # the job has failed: that is what has to be said
        log.warning("What job %s printed cannot be read: %s", state.name, error)
    return printed.error


def _clear(workspace: ConnectedWorkspace, submitted: SubmittedStep) -> None:
    """Remove the job's own files, and outputs that it has put elsewhere than where they belong."""
    places = [(submitted.datastore, job_folder(submitted.run))]
    places += [(datastore, staging_of(submitted.run, name)) for name, (datastore, _) in submitted.outputs.items()]
    try:
        with retry.clearing():
            for datastore, folder in places:
                storage = workspace.storage(datastore)
                storage.delete_files([each.path for each in storage.list_reserved(folder)])
    except AmlDataError as error:  # they are in nobody's way, and the retention DAG finds them
        log.warning("Files of job %s stay: %s", submitted.job, error)
