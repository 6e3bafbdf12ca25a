"""What goes into the catalog and comes out of it: frozen values, checked where they are made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from airflow_aml_data.core.identity import StepRun, check_dataset_name, check_name, check_relative_path, check_tags
from airflow_aml_data.errors import InvalidDeclaration, InvalidPath

OutputMode = Literal["mount", "upload"]
OutputState = Literal["writing", "committed", "abandoned", "deleting", "deleted", "missing", "unknown"]
"""``missing``: committed, but its files are gone. ``unknown``: files that no step of this catalog accounts for."""

HistoryEvent = Literal[
    "begun",
    "committed",
    "abandoned",
    "registered",
    "updated",
    "unregistered",
    "pinned",
    "unpinned",
    "deleted",
    "missing",
    "found",
]
PlanState = Literal["planned", "approved", "rejected", "stopped", "ended"]
PlannedState = Literal["planned", "struck_out", "deleting", "deleted", "skipped"]

PATH_LIMIT = 1024
"""Characters of a path. Azure Blob allows a blob's name 1,024, and the path is a prefix of those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOutput:
    """An output a step is about to write.

    :param name: The output's name, unique within the step.
    :param path: Folder on the datastore, normalised; ``""`` is the datastore's root.
    :param retention_days: Days it is kept after its last change and use; None: as its datastore says.
    :param keep: Never deleted by age.
    :raises InvalidName: for a name v1 would refuse.
    :raises InvalidPath: for a path that is not normalised, or longer than a store takes.
    """

    name: str
    datastore: str
    path: str
    mode: OutputMode
    retention_days: int | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "output")
        clean = check_relative_path(self.path)
        if clean != self.path:
            raise InvalidPath(f"Path {self.path!r} of output {self.name!r} is not normalised: use {clean!r}.")
        if len(self.path) > PATH_LIMIT:
            raise InvalidPath(
                f"The path of output {self.name!r} has {len(self.path)} characters; stores take {PATH_LIMIT}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedOutput:
    """What a step left in an output, as its manifest says.

    :param files: Number of files.
    :param size_bytes: Their sizes added up.
    :param changed_at: When the newest byte was written; must carry a time zone.
    """

    name: str
    files: int
    size_bytes: int
    manifest_path: str
    manifest_digest: str
    changed_at: datetime

    def __post_init__(self) -> None:
        if self.changed_at.tzinfo is None:
            raise InvalidDeclaration(f"changed_at of output {self.name!r} carries no time zone.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of one try of a step, as the catalog knows it.

    :param id: ``<step run id>/<name>``.
    :param files: None until the output is committed, as are ``size_bytes``, ``manifest_path``,
        ``manifest_digest`` and ``changed_at``.
    :param used_at: When a reader last took a lease; None when nobody has.
    :param used_elsewhere: Whether another DAG run than its own has read it.
    :param retention_days: Its own period; None: that of its datastore.
    :param pin: Who keeps it, and why; None when nobody does.
    :param plan_id: The plan that deletes or has deleted it.
    """

    id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    step_run_id: str
    name: str
    datastore: str
    path: str
    mode: OutputMode
    state: OutputState
    files: int | None
    size_bytes: int | None
    manifest_path: str | None
    manifest_digest: str | None
    created_at: datetime
    changed_at: datetime | None
    used_at: datetime | None
    used_elsewhere: bool
    retention_days: int | None
    pin: str | None
    plan_id: int | None
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDatasetVersion:
    """A dataset to register.

    :param name: Any text but the empty one.
    :param definition: What the dataset is; plain JSON.
    :param output_id: The committed output the dataset reads, when it reads one.
    :param content_digest: Of the files as they are now; None when nobody knows, which equals nothing.
    :param producer: The step run that made it; None when a person registered it.
    :raises InvalidDeclaration: for an empty name, or a definition or tags JSON cannot carry.
    """

    name: str
    definition: Mapping[str, Any]
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    output_id: str | None = None
    content_digest: str | None = None
    producer: StepRun | None = None

    def __post_init__(self) -> None:
        check_dataset_name(self.name)
        for what, text in (("name", self.name), ("description", self.description)):
            if not isinstance(text, str):
                raise InvalidDeclaration(f"The {what} of dataset {self.name!r} must be text, found {text!r}.")
            if text != storable(text):
                raise InvalidDeclaration(
                    f"The {what} of dataset {self.name!r} holds a character that cannot be stored."
                )
        check_tags(self.tags)
        for what, value in (("definition", self.definition), ("tags", self.tags)):
            try:
                json.dumps(dict(value), allow_nan=False)
            except (TypeError, ValueError) as error:
                raise InvalidDeclaration(f"The {what} of dataset {self.name!r} must be plain JSON: {error}.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion(NewDatasetVersion):
    """A registered version of a dataset; versions of a name are 1, 2, 3 and so on, with gaps where Azure ML has given numbers.

    :param dataset_id: The id of its definition under this name and version; no other version has it.
    """

    dataset_id: str
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One thing that happened, never changed afterwards.

    :param id: Grows with time.
    :param step_run_id: Who did it; None when no step did.
    :param detail: A sentence: why, or how much.
    """

    id: int
    at: datetime
    event: HistoryEvent
    output_id: str | None
    dataset: str | None
    version: int | None
    step_run_id: str | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredDatastore:
    """A datastore that the catalog knows.

    :param kind: None: a datastore that the workspace's connection declares, which is here as the chosen default.
    :param options: As in the workspace's connection; they hold no secret.
    :param changed_by: Id of the step run, or name of the user.
    """

    name: str
    kind: str | None
    options: Mapping[str, Any]
    is_default: bool = False
    changed_by: str

    @property
    def place(self) -> str:
        """Where it is, for comparison and for people; how it is signed in to is not part of it."""
        where = ", ".join(f"{key}={value}" for key, value in sorted(self.options.items()) if key != "conn_id")
        return f"{self.kind} ({where})"


class Candidate(NamedTuple):
    """An output that may be old enough to go; a row, for there may be a million.

    :param lease: Who holds one at this moment; empty when nobody does.
    """

    id: str
    dag_id: str
    run_id: str
    step_run_id: str
    datastore: str
    path: str
    state: str
    size_bytes: int | None
    manifest_path: str | None
    created_at: datetime
    changed_at: datetime | None
    used_at: datetime | None
    used_elsewhere: bool
    retention_days: int | None
    pin: str | None
    lease: str


_ADOPTED = "unknown/"


class KnownOutput(NamedTuple):
    """What an inventory needs of an output; a row, for there may be a million."""

    id: str
    step_run_id: str
    datastore: str
    path: str
    state: OutputState
    size_bytes: int | None
    changed_at: datetime | None

    @property
    def is_adopted(self) -> bool:
        """Whether no step of this catalog made it; see :class:`UnknownFiles`."""
        return self.id.startswith(_ADOPTED)


class UnknownFiles(NamedTuple):
    """A folder of files that no output accounts for.

    :param step_run_id: As its path says; it may be another catalog's.
    :param changed_at: When the newest of them was last written.
    """

    datastore: str
    path: str
    step_run_id: str
    files: int
    size_bytes: int
    changed_at: datetime

    @property
    def output_id(self) -> str:
        """The id they have in the catalog as an output that nobody knows."""
        return f"{_ADOPTED}{self.datastore}/{self.path}"


class RegisteredPlace(NamedTuple):
    """What a registered dataset reads: an output, or a path that may hold wildcards.

    :param dataset: For messages.
    """

    dataset: str
    output_id: str = ""
    datastore: str = ""
    path: str = ""


class PlannedFile(NamedTuple):
    """A file that a plan names; only this version of it may be deleted.

    :param path: On the datastore.
    :param etag: Empty: whatever it is. Such a file has a name that nothing else ever gets.
    """

    path: str
    etag: str
    size_bytes: int
    modified: datetime | None = None


class PlannedDeletion(NamedTuple):
    """An output of a plan that is to be made.

    :param reason: Why it may go.
    :param detail: What of it stays, and why.
    """

    output_id: str
    reason: str
    files: Sequence[PlannedFile]
    detail: str = ""


class Claim(NamedTuple):
    """What became of outputs of a plan that a sweep has claimed, by id.

    :param claimed: Those that are its own to delete.
    :param taken_over: Those that another sweep of the plan had claimed, and may have deleted in part.
    :param kept: Those that stay, and why.
    """

    claimed: Set[str]
    taken_over: Set[str]
    kept: Mapping[str, str]


class FinishedDeletion(NamedTuple):
    """What was deleted of a claimed output.

    :param detail: What of it stays, and why.
    """

    output_id: str
    files: int
    size_bytes: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """An output of a plan, and what became of it.

    :param detail: Why it was skipped, or what of it stays.
    """

    output_id: str
    reason: str
    files: int
    size_bytes: int
    state: PlannedState
    detail: str
    deleted_files: int
    freed_bytes: int
    datastore: str
    path: str
    dag_id: str
    run_id: str
    task_id: str
    step_run_id: str
    name: str
    manifest_path: str | None
    changed_at: datetime | None

    @property
    def why(self) -> str:
        """Reason and detail, for people."""
        return f"{self.reason}. {self.detail}".rstrip(" .")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be deleted; its outputs and files are never changed.

    :param settings: The periods and the scope it was made with.
    :param state: ``stopped``: it would delete more than it may, and nobody can approve it.
    :param kept: Why outputs that are old enough stay, to how many they are and their bytes.
    :param managed_bytes: Datastore to the bytes of its committed outputs when the plan was made.
    """

    id: int
    created_at: datetime
    created_by: str
    settings: Mapping[str, Any]
    state: PlanState
    decided_by: str | None
    decided_at: datetime | None
    ended_at: datetime | None
    kept: Mapping[str, Sequence[int]]
    managed_bytes: Mapping[str, int]
    outputs: int
    files: int
    size_bytes: int
    deleted_files: int
    freed_bytes: int


def storable(text: str) -> str:
    """Return ``text`` without what PostgreSQL's text type refuses: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "backslashreplace").decode("utf-8")
