"""Plan a deletion: judge what the catalog knows, and write down exactly which files may go."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_aml_data.core.catalog import Candidate, Plan, PlannedDeletion, PlannedFile
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.identity import RESERVED_FOLDER
from airflow_aml_data.core.manifest import Manifest
from airflow_aml_data.core.retention.registered import RegisteredData
from airflow_aml_data.core.retention.rules import (
    RetentionPolicy,
    due_at,
    why_deleted,
    why_kept,
    why_kept_after_its_run,
)
from airflow_aml_data.core.storage.base import Storage, StoredFile
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration

log = logging.getLogger(__name__)

_THREADS = 16
_REASONS = 200
"""What a plan says for how many outputs each; more are told apart by their kind only."""
_PARTICULAR = re.compile(r" (?:as|by|on) .*", re.DOTALL)

DagRun = tuple[str, str]
"""DAG id and run id."""

OpenRuns = Callable[[Set[DagRun]], Set[DagRun]]
"""Tells which of some DAG runs have not ended: they are queued or run, or were cleared and will run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionScope:
    """What a plan may touch, and how long data is kept there.

    :param datastores: Names; never empty, unless there is a run.
    :param maximum_share: Of the bytes that a datastore's committed outputs have, the most that one plan may delete; 0 to 1.
    :param run: A DAG run that has ended and lets its own outputs go, whatever their age, and however many they are.
    :raises InvalidDeclaration: for no datastore, or a share out of bounds.
    """

    datastores: tuple[str, ...]
    policy: RetentionPolicy = field(default_factory=RetentionPolicy)
    maximum_share: float = 0.5
    run: DagRun | None = None

    def __post_init__(self) -> None:
        if not self.datastores and not self.run:
            raise InvalidDeclaration(
                "No datastore is named to clean up. Name at least one: nothing means nothing here."
            )
        if not 0 < self.maximum_share <= 1:
            raise InvalidDeclaration(f"maximum_share is {self.maximum_share}. Allowed: above 0, up to 1.")

    def why_kept(self, output: Candidate, now: datetime, *, registered: str) -> str:
        """A few words on why an output stays; empty when it may go.

        :param registered: A dataset that reads it; empty when none does.
        """
        if self.run:
            return why_kept_after_its_run(output, registered=registered)
        return why_kept(output, self.policy, now, registered=registered)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RetentionScope:
        return cls(
            datastores=tuple(content["datastores"]),
            policy=RetentionPolicy(**content["policy"]),
            maximum_share=content["maximum_share"],
            run=tuple(content["run"]) if content["run"] else None,
        )


def make_plan(workspace: ConnectedWorkspace, scope: RetentionScope, open_runs: OpenRuns, *, by: str) -> Plan:
    """Write a plan down; nothing is deleted.

    :param by: Who asked for it.
    :raises InvalidDeclaration: for an unknown or unsafe scope.
    """
    if not scope.run:
        scope = _settled(workspace, scope)
    now = workspace.catalog.now()
    due, kept = _due(workspace, scope, open_runs, now)
    planned: list[PlannedDeletion] = []
    for name in {each.datastore for each in due}:
        requests = Requests(_THREADS if workspace.storage(name).is_remote else 1)
        here = [each for each in due if each.datastore == name]
        requests.each(lambda each: _planned(workspace, each, now), here, planned.append)
    managed = {name: size for name, size in workspace.catalog.managed_bytes().items() if name in scope.datastores}
    too_much = [] if scope.run else _too_much(due, planned, managed, scope.maximum_share)
    return workspace.catalog.create_plan(
        sorted(planned), as_of=now, by=by, settings=scope.to_json(), kept=kept, managed=managed, stopped=bool(too_much)
    )


def next_due(workspace: ConnectedWorkspace, scope: RetentionScope, until: datetime) -> datetime | None:
    """When the next output is due that nothing keeps at this moment; None: none is until then."""
    registered = RegisteredData.of(workspace, workspace.catalog.registered_places())
    scope = _settled(workspace, scope)
    with _candidates(workspace, scope, until) as found:
        due = (
            due_at(each, scope.policy)
            for each in found
            if not each.lease and not each.pin and not registered.by_what(each)
        )
        first = min(due, default=None)
    return first if first is not None and first <= until else None


def _too_much(
    due: Iterable[Candidate], planned: Iterable[PlannedDeletion], managed: Mapping[str, int], share: float
) -> list[str]:
    """Datastores of which the plan would delete more than it may; what failed attempts left does not count."""
    committed = {each.id: each for each in due if each.manifest_path is not None}
    sizes = dict.fromkeys(managed, 0)
    for each in planned:
        if output := committed.get(each.output_id):
            sizes[output.datastore] += sum(file.size_bytes for file in each.files if file.path != output.manifest_path)
    found = [name for name, size in sizes.items() if size > share * managed[name]]
    for name in found:
        log.error(
            "The plan would delete %d of the %d bytes of datastore %r, and maximum_share is %s. Look into it, and allow a larger share "
            "when that is right.",
            sizes[name],
            managed[name],
            name,
            share,
        )
    return found


def _settled(workspace: ConnectedWorkspace, scope: RetentionScope) -> RetentionScope:
    """The scope with datastores as the workspace knows them, and the periods that its connection sets for them."""
    names = _names(workspace, scope.datastores)
    declared = {name: workspace.datastores[name].retention_days for name in names}
    days = {name: days for name, days in declared.items() if days is not None}
    return replace(
        scope, datastores=names, policy=replace(scope.policy, datastore_days={**days, **scope.policy.datastore_days})
    )


def _names(workspace: ConnectedWorkspace, wanted: Iterable[str]) -> tuple[str, ...]:
    """The datastores as the workspace knows them.

    :raises InvalidDeclaration: when the same place, or one inside it, has another name that is not among them.
    """
    names = tuple(dict.fromkeys(workspace.datastore_name(each) for each in wanted))
    places = workspace.locations()
    for name in names:
        for other, place in places.items():
            if other not in names and (_contains(places[name], place) or _contains(place, places[name])):
                raise InvalidDeclaration(
                    f"Datastore {other!r} lies in the same place as {name!r}, and only the latter is to be cleaned up. What one name "
                    "lets go the other may need: name both."
                )
    return names


def _contains(place: str, other: str) -> bool:
    return f"{other}/".startswith(f"{place}/")


def _due(
    workspace: ConnectedWorkspace, scope: RetentionScope, open_runs: OpenRuns, now: datetime
) -> tuple[list[Candidate], dict[str, list[int]]]:
    """Outputs that may go; and why others that are old enough stay: the reason to how many, and their bytes."""
    registered = RegisteredData.of(workspace, workspace.catalog.registered_places())
    kept: dict[str, list[int]] = {}
    due: list[Candidate] = []

    def keep(each: Candidate, why: str) -> None:
        known = why if why in kept or len(kept) < _REASONS else _PARTICULAR.sub("", why)
        counts = kept.setdefault(known, [0, 0])
        counts[0] += 1
        counts[1] += each.size_bytes or 0

    with _candidates(workspace, scope, now) as found:
        for each in found:
            if why := scope.why_kept(each, now, registered=registered.by_what(each)):
                keep(each, why)
            else:
                due.append(each)
    if not scope.run:
        old = now - timedelta(days=scope.policy.shortest_days)
        if (used := workspace.catalog.used_of_late(scope.datastores, changed_before=old))[0]:
            kept[f"used since {old:%Y-%m-%d}"] = used
    unended = open_runs({(each.dag_id, each.run_id) for each in due})
    for each in due:
        if (each.dag_id, each.run_id) in unended:
            keep(each, "its run has not ended")
    return [each for each in due if (each.dag_id, each.run_id) not in unended], kept


def _candidates(
    workspace: ConnectedWorkspace, scope: RetentionScope, moment: datetime
) -> AbstractContextManager[Iterator[Candidate]]:
    """Outputs that may be old enough at a moment; of a run that has ended, all."""
    if scope.run:
        return workspace.catalog.candidates(None, changed_before=moment, begun_before=moment, run=scope.run)
    return workspace.catalog.candidates(
        scope.datastores,
        changed_before=moment - timedelta(days=scope.policy.shortest_days),
        begun_before=moment - timedelta(days=scope.policy.abandoned_days),
    )


def _planned(workspace: ConnectedWorkspace, output: Candidate, now: datetime) -> PlannedDeletion:
    """Which files of an output may go: those that are as the output was committed."""
    storage, reason = workspace.storage(output.datastore), why_deleted(output, now)
    if output.state == "unknown":
        return _planned_unknown(storage, output, reason)
    if output.manifest_path is None:
        return _planned_attempt(storage, output, reason)
    try:
        content = storage.read_bytes(output.manifest_path)
    except FilesNotFound:
        return PlannedDeletion(output.id, reason, (), "its manifest is gone, so nobody knows its files: they stay")
    there = {each.path: each for each in storage.list_files(output.path)}
    files, stay = [PlannedFile(output.manifest_path, "", len(content))], 0
    for entry in Manifest.from_bytes(content).entries:
        found = there.get(f"{output.path}/{entry.path}" if entry.path else output.path)
        if found and found.etag == entry.etag:
            files.append(_file(found))
        elif found:
            stay += 1
    return PlannedDeletion(
        output.id, reason, tuple(files), f"{stay} files were written again since: they stay" if stay else ""
    )


def _planned_attempt(storage: Storage, output: Candidate, reason: str) -> PlannedDeletion:
    """What an attempt that was given up left, where nothing but itself ever wrote."""
    if output.step_run_id not in output.path:
        return PlannedDeletion(output.id, reason, (), "it wrote where others write too: what it left stays")
    return PlannedDeletion(output.id, reason, tuple(_file(each) for each in storage.list_files(output.path)))


def _planned_unknown(storage: Storage, output: Candidate, reason: str) -> PlannedDeletion:
    """Files that nobody accounts for, as far as nobody has written them since they were found."""
    is_reserved = output.path.split("/")[0] == RESERVED_FOLDER
    there = list(storage.list_reserved(output.path) if is_reserved else storage.list_files(output.path))
    old = [each for each in there if datetime.fromtimestamp(each.modified or 0, UTC) <= output.created_at]
    stay = len(there) - len(old)
    detail = f"{stay} files were written since they were found: they stay" if stay else ""
    return PlannedDeletion(output.id, reason, tuple(_file(each) for each in old), detail)


def _file(found: StoredFile) -> PlannedFile:
    modified = None if found.modified is None else datetime.fromtimestamp(found.modified, UTC)
    return PlannedFile(found.path, found.etag, found.size_bytes, modified)
