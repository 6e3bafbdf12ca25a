"""What a step run holds in the catalog while it works: the outputs it writes, and the committed outputs it reads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_aml_data.core.catalog import Catalog, NewOutput, Output
from airflow_aml_data.core.commit import discard, drop_staging
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.plan import StepPlan
from airflow_aml_data.errors import AmlDataError, StorageError

log = logging.getLogger(__name__)

LEASE_SECONDS = 600.0
_RENEW_SECONDS = 60.0
_EARLIER_OUTPUTS = 1000


@contextmanager
def held(workspace: ConnectedWorkspace, plan: StepPlan) -> Iterator[None]:
    """Hold the outputs being written and the committed outputs being read; on any error, give the former up."""
    if not plan.outputs and not _read(plan):
        yield
        return
    catalog, run = workspace.catalog, plan.run
    gone = claim(workspace, plan)
    try:
        _take_hold(workspace, plan, gone)
        with renewed(catalog, run):
            yield
    except BaseException as error:
        give_up(workspace, run, f"{type(error).__name__}: {error}")
        raise
    finally:
        release(workspace, run)


def begin(workspace: ConnectedWorkspace, plan: StepPlan) -> None:
    """Take hold of everything for ten minutes; who goes on with the step run renews that, and lets go of it."""
    if plan.outputs or _read(plan):
        _take_hold(workspace, plan, claim(workspace, plan))


def claim(workspace: ConnectedWorkspace, plan: StepPlan) -> list[Output]:
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
    return workspace.catalog.begin_outputs(plan.run, new, lease_seconds=LEASE_SECONDS)


def _take_hold(workspace: ConnectedWorkspace, plan: StepPlan, gone: list[Output]) -> None:
    """Clear away what others have left, and lease what is read.

    :param gone: Outputs that were abandoned for this run.
    """
    catalog, run = workspace.catalog, plan.run
    for each in [*gone, *_earlier_tries(catalog, run)]:
        if each.state == "abandoned":
            log.warning("Output %s was never committed: clearing away what it may have left.", each.id)
            discard(workspace, each)
        elif each.state == "committed":
            drop_staging(workspace, each.step_run_id, each)
    catalog.lease_outputs(run, _read(plan), lease_seconds=LEASE_SECONDS)


def _earlier_tries(catalog: Catalog, run: StepRun) -> list[Output]:
    """Outputs of earlier tries of the task; one that was killed may not have cleared away what it left beside them."""
    if run.try_number == 1:
        return []
    found = catalog.find_outputs(
        dag_id=run.dag_id, run_id=run.run_id, task_id=run.task_id, map_index=run.map_index, limit=_EARLIER_OUTPUTS
    )
    return [each for each in found if each.step_run_id != run.id]


def give_up(workspace: ConnectedWorkspace, run: StepRun, reason: str) -> None:
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
def renewed(catalog: Catalog, run: StepRun) -> Iterator[None]:
    """Renew the leases of a step run in the background for as long as it works."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEW_SECONDS):
            try:
                catalog.renew_leases(run, lease_seconds=LEASE_SECONDS)
            except StorageError as error:  # the next renewal is a minute away, the lease lasts for ten
                log.warning("The leases of %s could not be renewed: %s", run.id, error)

    thread = threading.Thread(target=renew, name="aml-data-leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def release(workspace: ConnectedWorkspace, run: StepRun) -> None:
    """Let go of what the run reads; what it writes has been committed or given up."""
    try:
        workspace.catalog.release_leases(run)
    except StorageError as error:  # they end by themselves
        log.warning("The leases of %s could not be released: %s", run.id, error)


def _read(plan: StepPlan) -> list[str]:
    return list({output.output_id for each in plan.inputs for output in each.definition.outputs})
