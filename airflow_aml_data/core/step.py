"""The use-case: plan -> stage -> run -> commit, with leases held from the first to the last moment."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from airflow_aml_data.core import parent, records
from airflow_aml_data.core.catalog import Catalog, NewOutput, Output
from airflow_aml_data.core.commit import commit_step, discard, drop_staging, store_mounted
from airflow_aml_data.core.compute.local import Command
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, WebPath
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.plan import StepDeclaration, StepPlan, plan_step, with_run_files
from airflow_aml_data.core.records import PARENT, Kind, Record
from airflow_aml_data.core.run_files import RUN_FILES, gather
from airflow_aml_data.core.scratch import scratch_folder
from airflow_aml_data.core.stage import StagedStep, stage_step
from airflow_aml_data.core.storage.base import StoredFile
from airflow_aml_data.core.storage.web import shown
from airflow_aml_data.core.transfer import readable_bytes
from airflow_aml_data.errors import AmlDataError, RunCanceled, StepFailed, StorageError

log = logging.getLogger(__name__)

_LEASE_SECONDS = 600.0
_RENEW_SECONDS = 60.0
_EARLIER_OUTPUTS = 1000
_ALL_METRICS = "metrics_of_the_step.json"
_SETTINGS: Mapping[str, Kind] = {"tags": "tag", "properties": "property"}


class Compute(Protocol):
    """Something that runs a staged command to its end."""

    def run(self, command: Command, on_line: Callable[[str], None]) -> int:
        """Run it, hand over its output line by line, return its exit code; negative for a signal."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step leaves.

    :param outputs: One reference for each output.
    :param metrics: What the script logged, as far as it fits into XCom.
    :param details: ``"tags"`` and ``"properties"`` the script set.
    """

    outputs: list[OutputReference]
    metrics: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)


def run_step(
    workspace: ConnectedWorkspace,
    declared: StepDeclaration,
    compute: Compute,
    *,
    on_line: Callable[[str], None],
    scratch_root: Path | None = None,
) -> StepResult:
    """Run a step and publish its outputs, the files of its run among them.

    :param on_line: Gets each line the script prints, as it appears.
    :raises UserError: before the script starts for what the author has to change; after it for an output that
        cannot be stored. Nothing is published then.
    :raises RunCanceled: when the script cancelled its run.
    :raises StepFailed: when the script ended badly, or said so with ``Run.fail()``. Outputs in upload mode are not
        published; files closed in mount mode stay where they are, as an abandoned output that nobody can read by reference.
    :raises StorageError: when a store failed; a retry may help.
    """
    plan = plan_step(workspace, declared)
    for line in describe(plan):
        log.info(line)
    with scratch_folder(plan.run.id, scratch_root) as scratch, _leases(workspace, plan):
        existing = {
            each.name: {stored.path: stored for stored in workspace.storage(each.datastore).list_files(each.path)}
            for each in plan.outputs
            if each.mode == "mount" and not each.config.is_exclusive
        }
        staged = stage_step(workspace, plan, scratch, existing)
        code = compute.run(staged.command, on_line)
        store_mounted(workspace, plan, staged.stored_at_end, staged.output_paths)
        reported = records.read(Path(staged.run_file.records_file))
        _check_end(plan.title, code, reported)
        metrics = _metrics_for_xcom(reported, files := Path(staged.run_file.files_folder))
        parent.keep(reported, files)
        return StepResult(
            outputs=_publish(workspace, plan, staged, existing, scratch), metrics=metrics, details=_details(reported)
        )


def _check_end(script: str, code: int, reported: Sequence[Record]) -> None:
    """Raise when the script ended badly, or said that its run did; what child runs say is no reason."""
    ends = [each for each in reported if each.run in ("", PARENT)]
    if any(each.kind == "canceled" for each in ends):
        raise RunCanceled(script)
    details = next((str(each.value) for each in reversed(ends) if each.kind == "failed"), None)
    if code != 0 or details is not None:
        raise StepFailed(script, code, details)


def _metrics_for_xcom(reported: Sequence[Record], run_files: Path) -> dict[str, Any]:
    metrics = records.metrics_of_step(reported)
    kept, left_out = records.fitting(metrics)
    if left_out:
        (run_files / _ALL_METRICS).write_text(json.dumps(metrics), encoding="utf-8")
        log.warning(
            "More metrics than XCom should carry (%s): %s. They are not in the task's return value; all metrics are in "
            "%s of the output %r.",
            readable_bytes(records.XCOM_BYTES),
            ", ".join(left_out[:20]),
            _ALL_METRICS,
            RUN_FILES,
        )
    return kept


def _details(reported: Sequence[Record]) -> dict[str, Any]:
    """Tags and properties of the step's run and the pipeline's, where the script set any."""
    found = {
        key: {**records.settings_of(reported, kind, PARENT), **records.settings_of(reported, kind)}
        for key, kind in _SETTINGS.items()
    }
    return {key: value for key, value in found.items() if value}


def _publish(
    workspace: ConnectedWorkspace,
    plan: StepPlan,
    staged: StagedStep,
    existing: Mapping[str, Mapping[str, StoredFile]],
    scratch: Path,
) -> list[OutputReference]:
    """Publish the outputs, and as one more the files of the run when there are any."""
    told, paths = staged.run_file, staged.output_paths
    files = Path(told.files_folder)
    elsewhere = [paths[each.name] for each in plan.outputs if each.config.source]
    if not gather(Path(told.folder), told.shipped, files, elsewhere):
        _claim(workspace, plan)  # still ours? Another may have taken over while this machine was suspended
        return commit_step(workspace, plan, paths, existing, scratch)
    plan = with_run_files(workspace, plan, files)
    with _leases(workspace, plan):
        return commit_step(workspace, plan, {**paths, RUN_FILES: files}, existing, scratch)


@contextmanager
def _leases(workspace: ConnectedWorkspace, plan: StepPlan) -> Iterator[None]:
    """Hold the outputs being written and the committed outputs being read; on any error, give the former up."""
    read = list({output.output_id for each in plan.inputs for output in each.definition.outputs})
    if not plan.outputs and not read:
        yield
        return
    catalog, run = workspace.catalog, plan.run
    gone = _claim(workspace, plan)
    try:
        for each in [*gone, *_earlier_tries(catalog, run)]:
            if each.state == "abandoned":
                log.warning("Output %s was never committed: clearing away what it may have left.", each.id)
                discard(workspace, each)
            elif each.state == "committed":
                drop_staging(workspace, each.step_run_id, each)
        catalog.lease_outputs(run, read, lease_seconds=_LEASE_SECONDS)
        with _renewal(catalog, run):
            yield
    except BaseException as error:
        _give_up(workspace, run, f"{type(error).__name__}: {error}")
        raise
    finally:
        try:
            catalog.release_leases(run)
        except StorageError as error:  # they end by themselves
            log.warning("The leases of %s could not be released: %s", run.id, error)


def _claim(workspace: ConnectedWorkspace, plan: StepPlan) -> list[Output]:
    """Claim the places of the outputs, or confirm that they are still claimed; see :meth:`.Catalog.begin_outputs`."""
    if not plan.outputs:
        return []
    new = [
        NewOutput(
            name=each.name,
            datastore=each.datastore,
            path=each.path,
            mode=each.mode,
            retention_days=each.config.retention_days,
            keep=each.config.keep,
        )
        for each in plan.outputs
    ]
    return workspace.catalog.begin_outputs(plan.run, new, lease_seconds=_LEASE_SECONDS)


def _earlier_tries(catalog: Catalog, run: StepRun) -> list[Output]:
    """Outputs of earlier tries of the task; one that was killed may not have cleared away what it left beside them."""
    if run.try_number == 1:
        return []
    found = catalog.find_outputs(
        dag_id=run.dag_id, run_id=run.run_id, task_id=run.task_id, map_index=run.map_index, limit=_EARLIER_OUTPUTS
    )
    return [each for each in found if each.step_run_id != run.id]


def _give_up(workspace: ConnectedWorkspace, run: StepRun, reason: str) -> None:
    """Abandon what the run was writing and remove it, as far as that is possible; the next try does the rest."""
    try:
        abandoned = workspace.catalog.abandon_outputs(run, reason=reason)
    except StorageError as error:  # bytes go only when the catalog has said that nothing of them is committed
        log.warning("The outputs of %s could not be given up: %s", run.id, error)
        return
    for each in abandoned:
        try:
            discard(workspace, each)
        except AmlDataError as error:
            log.warning("What output %s left could not be removed: %s", each.id, error)


@contextmanager
def _renewal(catalog: Catalog, run: StepRun) -> Iterator[None]:
    """Renew the leases of a step run in the background for as long as it works."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEW_SECONDS):
            try:
                catalog.renew_leases(run, lease_seconds=_LEASE_SECONDS)
            except StorageError as error:  # the next renewal is a minute away, the lease lasts for ten
                log.warning("The leases of %s could not be renewed: %s", run.id, error)

    thread = threading.Thread(target=renew, name="aml-data-leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def describe(plan: StepPlan) -> list[str]:
    """The lines a step's log begins with: what it is, and for each input and output a line that says where it lies."""
    return [
        f"Step run {plan.run.id}: {plan.title}",
        *(f"Reads {each.name!r} ({each.mode}): {_source(each.definition)}" for each in plan.inputs),
        *(f"Writes {each.name!r} ({each.mode}): {each.datastore}:{each.path}" for each in plan.outputs),
    ]


def _source(definition: Definition) -> str:
    if definition.made_of:
        return f"{definition.made_of.target.kind} files made of {_source(definition.made_of.table)}"
    where = ", ".join(
        shown(each.url) if isinstance(each, WebPath) else f"{each.datastore}:{each.path}" for each in definition.sources
    )
    return "{} version {}, {}".format(*definition.registered, where) if definition.registered else where
