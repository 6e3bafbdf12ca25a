"""Names, paths and the one id of a step run: what is allowed, and why not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from posixpath import normpath
from typing import Any

from airflow_aml_data.errors import InvalidDeclaration, InvalidName, InvalidPath

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_NAME_LIMIT = 200  # of an output; a file system's limit of 255 less an ending
DATASET_NAME_LIMIT = 255
"""Characters of a dataset's name. PostgreSQL keeps an indexed value below 2,704 bytes."""
_SAFE_IN_PATH = re.compile(r"[^A-Za-z0-9_.-]+")
_PART_LIMIT = 60  # three parts, a hash and the numbers stay below the 255 bytes of a path segment

RESERVED_FOLDER = ".aml_data"
"""Folder at the root of each datastore that holds staging areas and manifests; never listed as data."""

FLOOR_DAYS = 30
"""Committed data is kept for fewer days only with a reason. Source: the article, on deleting intermediate data."""


def check_name(name: str, what: str) -> str:
    """Return ``name`` when v1's rule for input and output names accepts it.

    :param what: ``"input"`` or ``"output"``, for the message.
    :raises InvalidName: naming the offender. Source: v1, semantics section 8.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidName(
            f'Invalid {what} name "{name}". The name can only be alphanumeric characters and underscore, '
            "and must not begin with a number."
        )
    if len(name) > _NAME_LIMIT:
        raise InvalidName(
            f'Invalid {what} name "{name[:40]}...": it has {len(name)} characters, {_NAME_LIMIT} are allowed.'
        )
    return name


def check_dataset_name(name: str) -> str:
    """Return ``name`` when a dataset can be registered under it. Source: v1, semantics section 11.

    :raises InvalidDeclaration: for an empty name.
    :raises InvalidName: for one that is too long.
    """
    if not isinstance(name, str) or not name.strip():
        raise InvalidDeclaration("The registration name of the dataset must not be empty.")
    if len(name) > DATASET_NAME_LIMIT:
        raise InvalidName(
            f"Dataset name {name[:40]!r}... has {len(name)} characters; {DATASET_NAME_LIMIT} are allowed."
        )
    return name


def check_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of ``tags``; none for None.

    :raises InvalidDeclaration: for anything but a mapping with text as keys.
    """
    if tags is None:
        return {}
    if not isinstance(tags, Mapping) or not all(isinstance(key, str) for key in tags):
        raise InvalidDeclaration(f"tags are a dictionary of text to text, found {tags!r}.")
    return dict(tags)


def definition_id(definition: Mapping[str, Any]) -> str:
    """A short name, hexadecimal, for a dataset's definition as plain JSON."""
    import json  # with hashlib: only where datasets are told apart
    from hashlib import sha256

    return sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:32]


def check_relative_path(path: str | None) -> str:
    """Return ``path`` inside its root, normalised; ``""`` is the root itself.

    A leading ``/`` is dropped, as v1 does.

    :raises InvalidPath: when it climbs out, holds a NUL, or enters the folder reserved for this package.
    """
    text = "" if path is None else path
    if not isinstance(text, str):
        raise InvalidPath(f"A path on a datastore is text, not {type(path).__name__}: {path!r}.")
    if "\0" in text:
        raise InvalidPath(f"Path {path!r} holds a NUL character.")
    clean = normpath(text.lstrip("/")) if text.strip("/") else ""
    segments = clean.split("/")
    if ".." in text.split("/"):
        raise InvalidPath(f"Path {path!r} holds '..': paths on a datastore never leave it.")
    if segments[0] == RESERVED_FOLDER:
        raise InvalidPath(f"Path {path!r} lies in {RESERVED_FOLDER!r}, which is reserved for staging and manifests.")
    return "" if clean == "." else clean


STEP_RUN_ID = re.compile(r"(?:^|(?<=/))([A-Za-z0-9_.-]+\.try\d+\.[0-9a-f]{10})(?=/|$)")
"""Finds the :attr:`StepRun.id` among the segments of a path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """One try of one task of one DAG run: who writes an output, who reads an input.

    :param run_id: Airflow's id of the DAG run.
    :param map_index: -1 for a task that is not mapped.
    :param unique: Something no other try has (Airflow's id of the task instance).
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    unique: str = ""

    @property
    def run_key(self) -> str:
        """Names the DAG run: all its tasks have it in common."""
        return f"{self.dag_id}\0{self.run_id}"

    @property
    def id(self) -> str:
        """Readable, unique per try, one safe path segment: what ``{run-id}`` stands for."""
        parts = [_safe(self.dag_id), _safe(self.run_id), _safe(self.task_id)]
        if self.map_index >= 0:
            parts.append(f"map{self.map_index}")
        exact = "\0".join(
            (self.dag_id, self.run_id, self.task_id, str(self.map_index), str(self.try_number), self.unique)
        )
        return ".".join([*parts, f"try{self.try_number}", _hash(exact)])

    @property
    def parent_id(self) -> str:
        """The id of the whole DAG run, in the same form."""
        return ".".join([_safe(self.dag_id), _safe(self.run_id), _hash(f"{self.dag_id}\0{self.run_id}")])


def _hash(text: str) -> str:
    from hashlib import sha256  # only the process that runs steps asks

    return sha256(text.encode()).hexdigest()[:10]


def _safe(part: str) -> str:
    return _SAFE_IN_PATH.sub("_", part).lstrip(".-")[:_PART_LIMIT] or "_"


def check_retention_days(what: str, days: int, *, reason: str = "") -> int:
    """Return a period for committed data.

    :raises InvalidDeclaration: for one below the floor without a reason, or below one day.
    """
    if days < 1 or (days < FLOOR_DAYS and not reason):
        raise InvalidDeclaration(
            f"{what} is {days}. Allowed: {FLOOR_DAYS} and more, because pipelines count on intermediate data for {FLOOR_DAYS} days; "
            "1 and more with a reason in allow_early_deletion, which goes into the history."
        )
    return days
