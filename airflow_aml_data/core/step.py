"""The use-case: plan -> stage -> run -> commit, with leases held from the first to the last moment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from airflow_aml_data.core import claims, records
from airflow_aml_data.core.commit import commit_step, files_before, store_mounted
from airflow_aml_data.core.compute.local import Command
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.plan import StepDeclaration, StepPlan, plan_step, with_run_files
from airflow_aml_data.core.results import StepResult, check_end, describe, details_of, metrics_for_xcom
from airflow_aml_data.core.run_files import RUN_FILES, gather
from airflow_aml_data.core.scratch import scratch_folder
from airflow_aml_data.core.stage import StagedStep, stage_step
from airflow_aml_data.core.storage.base import StoredFile

log = logging.getLogger(__name__)


class Compute(Protocol):
    """Something that runs a staged command to its end."""

    def run(self, command: Command, on_line: Callable[[str], None]) -> int:
        """Run it, hand over its output line by line, return its exit code; negative for a signal."""


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
    with scratch_folder(plan.run.id, scratch_root) as scratch, claims.held(workspace, plan):
        existing = files_before(workspace, plan)
        staged = stage_step(workspace, plan, scratch, existing)
        code = compute.run(staged.command, on_line)
        store_mounted(workspace, plan, staged.stored_at_end, staged.output_paths)
        reported = records.read(Path(staged.run_file.records_file))
        check_end(plan.title, code, reported)
        records.keep(reported, Path(staged.run_file.files_folder))
        return StepResult(
            outputs=_publish(workspace, plan, staged, existing, scratch),
            metrics=metrics_for_xcom(reported),
            details=details_of(reported),
        )


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
        claims.claim(workspace, plan)  # still ours? Another may have taken over while this machine was suspended
        return commit_step(workspace, plan, paths, existing, scratch)
    plan = with_run_files(workspace, plan, files)
    with claims.held(workspace, plan):
        return commit_step(workspace, plan, {**paths, RUN_FILES: files}, existing, scratch)
