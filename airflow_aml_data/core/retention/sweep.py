"""Carry a plan out: delete exactly what it names, as far as that is still what it was, and write down what was deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from airflow_aml_data.core.catalog import Candidate, Plan, PlanEntry, PlannedFile, RegisteredPlace
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.retention.plan import OpenRuns, RetentionScope
from airflow_aml_data.core.retention.registered import RegisteredData
from airflow_aml_data.core.storage.base import StoredFile
from airflow_aml_data.core.storage.batches import in_batches
from airflow_aml_data.core.storage.retry import Requests

log = logging.getLogger(__name__)

_OUTPUTS, _FILES = 200, 20_000
"""Of one batch, which is judged again in one transaction."""
_THREADS = 16
UNDONE = ("planned", "deleting")
"""States of a plan's outputs that a sweep has still to deal with."""


def sweep_plan(
    workspace: ConnectedWorkspace,
    number: int,
    open_runs: OpenRuns,
    *,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Plan:
    """Delete what an approved plan names.

    May be repeated after it was cut off, and run twice at once: nothing is deleted that the plan does not name, and each deletion
    is written down once.

    :param progress: Told of each batch: outputs that were done with, and bytes deleted.
    :returns: The plan, ended when nothing of it is left to do.
    :raises PlanNotReady: for a plan that is not approved.
    """
    for batch in range(count_batches(workspace, number)):
        progress(*sweep_batch(workspace, number, batch, open_runs))
    return workspace.catalog.end_plan(number)


def count_batches(workspace: ConnectedWorkspace, number: int) -> int:
    """How many batches a plan has; they never change."""
    return len(_batches(workspace, number))


def sweep_batch(workspace: ConnectedWorkspace, number: int, batch: int, open_runs: OpenRuns) -> tuple[int, int]:
    """Delete what one batch of a plan names; outputs that were done with, and bytes deleted.

    :raises PlanNotReady: for a plan that is not approved.
    """
    left = [each for each in _batches(workspace, number)[batch] if each.state in UNDONE]
    return len(left), _sweep_outputs(workspace, number, left, open_runs) if left else 0


def _batches(workspace: ConnectedWorkspace, number: int) -> list[list[PlanEntry]]:
    entries = sorted(workspace.catalog.plan_entries(number), key=lambda each: each.output_id)
    return list(in_batches(entries, lambda each: each.files, _OUTPUTS, _FILES))


def _sweep_outputs(
    workspace: ConnectedWorkspace, number: int, entries: Sequence[PlanEntry], open_runs: OpenRuns
) -> int:
    """Delete the files of some outputs of a plan, and return the bytes."""
    catalog = workspace.catalog
    scope = RetentionScope.from_json(catalog.get_plan(number).settings)
    unended = open_runs({(each.dag_id, each.run_id) for each in entries})

    def judge(output: Candidate, places: Sequence[RegisteredPlace]) -> str:
        if (output.dag_id, output.run_id) in unended:
            return "its run has not ended"
        registered = RegisteredData.of(workspace, places).by_what(output)
        return scope.why_kept(output, catalog.now(), registered=registered)

    kept = dict(catalog.claim_for_deletion(number, [each.output_id for each in entries], judge))
    for output_id, why in kept.items():
        log.info("Output %s stays: %s.", output_id, why)
    claimed = [each for each in entries if each.output_id not in kept]
    return sum(_delete(workspace, number, datastore, claimed) for datastore in {each.datastore for each in claimed})


def _delete(workspace: ConnectedWorkspace, number: int, datastore: str, claimed: Sequence[PlanEntry]) -> int:
    storage, catalog = workspace.storage(datastore), workspace.catalog
    found: list[tuple[PlanEntry, _Left]] = []

    def look(each: PlanEntry) -> tuple[PlanEntry, _Left]:
        there = {file.path: file for file in storage.list_files(each.path)}
        return each, _Left.of(each, catalog.planned_files(number, each.output_id), there)

    Requests(_THREADS).each(look, [each for each in claimed if each.datastore == datastore], found.append)
    storage.delete_files([file.path for _, left in found for file in left.to_delete])
    freed = 0
    for each, left in found:
        gone = [*left.to_delete, *left.deleted_before]
        changed = f"{left.changed} files were written again after the plan: they stay" if left.changed else ""
        detail = "; ".join(text for text in (each.detail, changed) if text)
        size = sum(file.size_bytes for file in gone)
        catalog.finish_deletion(number, each.output_id, files=len(gone), size_bytes=size, detail=detail)
        freed += size
    return freed


class _Left(NamedTuple):
    """What is left of an output's planned files.

    :param deleted_before: By a sweep that was cut off before it could write that down.
    :param changed: Files that are other versions by now.
    """

    to_delete: list[PlannedFile]
    deleted_before: list[PlannedFile]
    changed: int

    @classmethod
    def of(cls, entry: PlanEntry, planned: Sequence[PlannedFile], there: Mapping[str, StoredFile]) -> _Left:
        still = [
            each for each in planned if not each.etag or (each.path in there and there[each.path].etag == each.etag)
        ]
        missing = [each for each in planned if each.etag and each.path not in there]
        return cls(still, missing if entry.state == "deleting" else [], len(planned) - len(still) - len(missing))
