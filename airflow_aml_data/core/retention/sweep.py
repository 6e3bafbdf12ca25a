"""Carry a plan out: delete exactly what it names, as far as that is still what it was, and write down what was deleted."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence, Set
from itertools import chain

from airflow_aml_data.core.catalog import Candidate, FinishedDeletion, Plan, PlanEntry, RegisteredPlace
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.retention.plan import OpenRuns, RetentionScope
from airflow_aml_data.core.retention.registered import RegisteredData
from airflow_aml_data.core.storage.base import Deletion, StoredFile
from airflow_aml_data.core.storage.batches import in_batches

log = logging.getLogger(__name__)

_OUTPUTS, _FILES = 200, 20_000
"""Of one batch, which is judged again in one transaction."""
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
    for entries in _batches(workspace, number):
        progress(*_sweep_entries(workspace, number, entries, open_runs))
    return workspace.catalog.end_plan(number)


def count_batches(workspace: ConnectedWorkspace, number: int) -> int:
    """How many batches a plan has; they never change."""
    return len(_batches(workspace, number))


def sweep_batch(workspace: ConnectedWorkspace, number: int, batch: int, open_runs: OpenRuns) -> tuple[int, int]:
    """Delete what one batch of a plan names; outputs that were done with, and bytes deleted.

    :raises PlanNotReady: for a plan that is not approved.
    """
    return _sweep_entries(workspace, number, _batches(workspace, number)[batch], open_runs)


def _batches(workspace: ConnectedWorkspace, number: int) -> list[list[PlanEntry]]:
    entries = sorted(workspace.catalog.plan_entries(number), key=lambda each: each.output_id)
    return list(in_batches(entries, lambda each: each.files, _OUTPUTS, _FILES))


def _sweep_entries(
    workspace: ConnectedWorkspace, number: int, entries: Sequence[PlanEntry], open_runs: OpenRuns
) -> tuple[int, int]:
    """Delete the files of those outputs of a plan that are not done with; how many, and the bytes."""
    left = [each for each in entries if each.state in UNDONE]
    if not left:
        return 0, 0
    catalog = workspace.catalog
    scope = RetentionScope.from_json(catalog.get_plan(number).settings)
    unended = open_runs({(each.dag_id, each.run_id) for each in left})

    def judge(places: Sequence[RegisteredPlace]) -> Callable[[Candidate], str]:
        registered, now = RegisteredData.of(workspace, places), catalog.now()

        def why_kept(output: Candidate) -> str:
            if (output.dag_id, output.run_id) in unended:
                return "its run has not ended"
            return scope.why_kept(output, now, registered=registered.by_what(output))

        return why_kept

    by = uuid.uuid4().hex
    claim = catalog.claim_for_deletion(number, [each.output_id for each in left], judge, by=by)
    for output_id, why in claim.kept.items():
        log.info("Output %s stays: %s.", output_id, why)
    ours = [each for each in left if each.output_id in claim.claimed or each.output_id in claim.taken_over]
    freed = 0
    for datastore in {each.datastore for each in ours}:
        here = [each for each in ours if each.datastore == datastore]
        done = _delete(workspace, number, datastore, here, claim.taken_over)
        catalog.finish_deletion(number, done, by=by)
        freed += sum(each.size_bytes for each in done)
    return len(left), freed


def _delete(
    workspace: ConnectedWorkspace, number: int, datastore: str, entries: Sequence[PlanEntry], taken_over: Set[str]
) -> list[FinishedDeletion]:
    """Delete the files of outputs on one datastore, and say what came of it."""
    storage, catalog = workspace.storage(datastore), workspace.catalog
    planned = {
        output_id: [StoredFile(path, size_bytes, etag) for path, etag, size_bytes, _ in files]
        for output_id, files in catalog.planned_files(number, [each.output_id for each in entries]).items()
    }
    files = dict.fromkeys(chain.from_iterable(planned.values()))  # two outputs may name the same
    found = {each.file: each for each in storage.delete_unchanged(file for file in files if file.etag)}
    manifests = (file for file in files if not file.etag)  # last: without it nobody knows an output's files
    found |= {each.file: each for each in storage.delete_unchanged(manifests)}
    return [
        _done(each, [found[file] for file in planned[each.output_id]], each.output_id in taken_over) for each in entries
    ]


def _done(entry: PlanEntry, deletions: Sequence[Deletion], is_taken_over: bool) -> FinishedDeletion:
    """What came of an output's planned files; those that are missing another sweep has deleted, when there was one."""
    gone = {"deleted", "missing"} if is_taken_over else {"deleted"}
    sizes = [each.file.size_bytes for each in deletions if each.outcome in gone]
    changed = sum(each.outcome == "changed" for each in deletions)
    kept = [each.reason for each in deletions if each.outcome == "kept"]
    details = [
        entry.detail,
        f"{changed} files were written again after the plan: they stay" if changed else "",
        f"{len(kept)} files stay because the store keeps them: {kept[0]}" if kept else "",
    ]
    return FinishedDeletion(entry.output_id, len(sizes), sum(sizes), "; ".join(each for each in details if each))
