"""Compare the catalog with what a datastore holds: files that nobody accounts for, and outputs whose files are gone.

Only what carries the id of a step run in its path, and what lies in the folder reserved for this package, is looked at: all else is
the user's own.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from airflow_aml_data.core.catalog import KnownOutput, UnknownFiles
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.identity import RESERVED_FOLDER, STEP_RUN_ID
from airflow_aml_data.core.outputs import DEFAULT_PATH
from airflow_aml_data.core.retention.rules import ABANDONED_DAYS
from airflow_aml_data.core.storage.base import Storage, Survey
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import InvalidConfiguration

log = logging.getLogger(__name__)

_STAGING = f"{RESERVED_FOLDER}/staging/"
_UNDONE = ("writing", "abandoned", "deleting")
"""States of outputs whose staging areas somebody may still need."""
_THREADS = 16


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found on one datastore.

    :param files: Files that were looked at, and their ``size_bytes``.
    :param unknown: Folders of files that no output accounts for; plans name them when they are old enough.
    :param missing: Ids of outputs whose files are gone: nobody can read or reuse them any more.
    :param found: Ids of outputs that were missing and are there again.
    """

    datastore: str
    files: int
    size_bytes: int
    unknown: Sequence[UnknownFiles]
    missing: Sequence[str]
    found: Sequence[str]


def reconcile(
    workspace: ConnectedWorkspace,
    datastore: str,
    *,
    grace_days: int = ABANDONED_DAYS,
    maximum_share: float = 0.5,
    progress: Callable[[int], None] = lambda _: None,
) -> Reconciliation:
    """List a datastore, and note in the catalog where the two do not agree; nothing is deleted.

    :param grace_days: Files that were written later are none of its business: whoever wrote them may not have told the catalog yet.
    :param maximum_share: Of the bytes of the datastore's outputs, the most that may be missing, 0 to 1.
    :param progress: Told of each batch of files that were looked at.
    :raises InvalidConfiguration: when more is missing. Then nothing is noted.
    """
    catalog, name = workspace.catalog, workspace.datastore_name(datastore)
    storage, began = workspace.storage(name), catalog.now()
    with catalog.known_outputs() as outputs:
        known = _Known.of(outputs, name)
    looked = _look(storage, known, progress)
    with catalog.known_outputs() as outputs:
        here = (each for each in outputs if each.datastore == name and (each.changed_at or began) < began)
        missing, found, gone, managed = _compare(here, looked)
    missing = _really_missing(storage, missing)
    if (lost := sum(each.size_bytes or 0 for each in missing)) > maximum_share * managed:
        raise InvalidConfiguration(
            f"Outputs have {managed} bytes on datastore {name!r}, and {lost} of them are not in {storage.location}. Does its connection "
            "lead to where they were written? Nothing was noted. If they are gone, allow a larger maximum_share."
        )
    last = began - timedelta(days=grace_days)
    unknown = sorted(each for each in looked.unknown(name) if each.changed_at <= last)
    for each in unknown:
        log.warning("%s:%s: %d files, %d bytes belong to no output.", name, each.path, each.files, each.size_bytes)
    for output in missing:
        log.warning(
            "The files of output %s are gone from datastore %r. Run its step again to make it.", output.id, name
        )
    ids = {"missing": [each.id for each in missing], "found": [each.id for each in found]}
    catalog.note_inventory(unknown=unknown, **ids, gone=[each.id for each in gone])
    return Reconciliation(datastore=name, files=looked.files, size_bytes=looked.size_bytes, unknown=unknown, **ids)


class _Texts:
    """A set of a million texts in eight bytes each: their hashes. A text that was not added is in it once in 10^12 times."""

    def __init__(self) -> None:
        self._added = array("Q")
        self._sorted: np.ndarray[Any, np.dtype[np.uint64]] | None = None

    def add(self, text: str) -> None:
        self._added.append(xxh3_64_intdigest(text.encode()))
        self._sorted = None

    def __contains__(self, text: str) -> bool:
        if self._sorted is None:
            self._sorted = np.unique(np.frombuffer(self._added, dtype=np.uint64))
        wanted = np.uint64(xxh3_64_intdigest(text.encode()))
        position = int(self._sorted.searchsorted(wanted))
        return position < len(self._sorted) and bool(self._sorted[position] == wanted)


@dataclass(slots=True)
class _Known:
    """What the catalog knows.

    :param living: Ids of step runs that have outputs, on any datastore: one place may have two names.
    :param undone: Those whose staging areas somebody may still need.
    :param folders: What the paths of outputs on one datastore begin with, up to the id of the step run.
    """

    living: _Texts
    undone: _Texts
    folders: set[str]

    @classmethod
    def of(cls, outputs: Iterable[KnownOutput], datastore: str) -> _Known:
        known = cls(_Texts(), _Texts(), {DEFAULT_PATH.partition("/")[0]})
        for each in outputs:
            if each.is_adopted:
                continue
            known.living.add(each.step_run_id)
            if each.state in _UNDONE:
                known.undone.add(each.step_run_id)
            if each.datastore == datastore and each.step_run_id in each.path:
                known.folders.add(each.path.partition(each.step_run_id)[0].rstrip("/"))
        return known

    def accounts_for(self, group: _Group) -> bool:
        return group.step_run_id in (self.undone if group.path.startswith(_STAGING) else self.living)


@dataclass(slots=True)
class _Group:
    """Files below one folder: that of a step run."""

    path: str
    step_run_id: str
    files: int = 0
    size_bytes: int = 0
    changed: float = 0.0


@dataclass(slots=True)
class _Looked:
    """What a listing has shown.

    :param seen: Folders of step runs and of their outputs, where a file has something in it.
    :param groups: By path, those that nobody accounts for.
    """

    seen: _Texts
    groups: dict[str, _Group]
    files: int = 0
    size_bytes: int = 0

    def unknown(self, datastore: str) -> Iterator[UnknownFiles]:
        for each in self.groups.values():
            changed_at = datetime.fromtimestamp(each.changed, UTC)
            whose = each.step_run_id or each.path
            yield UnknownFiles(datastore, each.path, whose, each.files, each.size_bytes, changed_at)


def _look(storage: Storage, known: _Known, progress: Callable[[int], None]) -> _Looked:
    looked = _Looked(_Texts(), {})
    for group in _groups(_surveys(storage, _outermost({*known.folders, RESERVED_FOLDER}), progress), looked.seen):
        looked.files += group.files
        looked.size_bytes += group.size_bytes
        if group.size_bytes and not known.accounts_for(
            group
        ):  # what is empty may be the mark of a folder, and costs nothing
            before = looked.groups.setdefault(group.path, group)
            if before is not group:  # a listing may come back to a folder
                before.files += group.files
                before.size_bytes += group.size_bytes
                before.changed = max(before.changed, group.changed)
    return looked


def _compare(
    outputs: Iterable[KnownOutput], looked: _Looked
) -> tuple[list[KnownOutput], list[KnownOutput], list[KnownOutput], int]:
    """Outputs that seem to be missing, those that are there again, unknown ones that are gone, and the bytes of all that are committed."""
    missing: list[KnownOutput] = []
    found: list[KnownOutput] = []
    gone: list[KnownOutput] = []
    managed = 0
    for each in outputs:
        if each.is_adopted:
            if each.state == "unknown" and each.path not in looked.groups:
                gone.append(each)
        elif each.state in ("committed", "missing"):
            key, is_committed = _key(each), each.state == "committed"
            managed += (each.size_bytes or 0) * is_committed
            if key and is_committed != (key in looked.seen):
                (missing if is_committed else found).append(each)
    return missing, found, gone, managed


def _really_missing(storage: Storage, outputs: Sequence[KnownOutput]) -> list[KnownOutput]:
    """Those of which a listing of their own shows nothing either."""
    missing: list[KnownOutput] = []

    def look(output: KnownOutput) -> KnownOutput | None:
        return output if next(iter(storage.list_files(output.path)), None) is None else None

    Requests(_THREADS).each(look, outputs, lambda each: missing.append(each) if each else None)
    return missing


def _surveys(storage: Storage, folders: Iterable[str], progress: Callable[[int], None]) -> Iterator[Survey]:
    for folder in folders:
        for survey in storage.survey(folder):
            progress(len(survey.paths))
            yield survey


def _groups(surveys: Iterable[Survey], seen: _Texts) -> Iterator[_Group]:
    """Files by step run, as they come; the folders of outputs that have a file with something in it are added to what was seen."""
    group, below, output, is_seen = _Group(path="", step_run_id=""), "\0", "\0", True
    for path, size, changed in chain.from_iterable(zip(*survey, strict=True) for survey in surveys):
        if not path.startswith(output):
            if not path.startswith(below):
                if group.files:
                    yield group
                folder, step_run_id = _folder(path)
                group, below = _Group(folder, step_run_id), f"{folder}/" if folder else "\0"
                if not folder:  # the user's own
                    output = "\0"
                    continue
            output, is_seen = f"{below}{path[len(below) :].partition('/')[0]}/", False
        if size and not is_seen:
            is_seen = True
            seen.add(output[:-1])
            seen.add(group.path)
        group.files += 1
        group.size_bytes += size
        if changed > group.changed:
            group.changed = changed
    if group.files:
        yield group


def _folder(path: str) -> tuple[str, str]:
    """The folder of a step run that a file is in, and the id; a folder without an id only in the reserved folder."""
    if found := STEP_RUN_ID.search(path):
        return path[: found.end()], found[1]
    if path.startswith(f"{RESERVED_FOLDER}/"):
        return "/".join(path.split("/")[:3]), ""
    return "", ""


def _key(output: KnownOutput) -> str | None:
    """What a listing that saw one of its files has seen; None where others write too."""
    if output.step_run_id not in output.path:
        return None
    found = STEP_RUN_ID.search(output.path)
    if found is None:
        return None
    inner = output.path[found.end() :].strip("/").partition("/")[0]
    return f"{output.path[: found.end()]}/{inner}" if inner else output.path[: found.end()]


def _outermost(folders: Iterable[str]) -> list[str]:
    """Folders that are not inside others of them."""
    kept: list[str] = []
    for each in sorted(folders):
        if not any(other == "" or f"{each}/".startswith(f"{other}/") for other in kept):
            kept.append(each)
    return kept
