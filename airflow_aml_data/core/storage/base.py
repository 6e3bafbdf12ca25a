"""What every kind of datastore can do, and the registry of kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.identity import RESERVED_FOLDER
from airflow_aml_data.core.manifest import LocalFile
from airflow_aml_data.errors import InvalidConfiguration, InvalidPath, MissingExtra, UnsupportedDatastore

_SURVEYED = 5000


class StoredFile(NamedTuple):
    """A file in a store.

    :param path: Relative to the datastore's root, POSIX, no leading slash.
    :param etag: Changes whenever the content may have changed.
    :param modified: When it was last written, in seconds since the epoch; None when nobody has looked.
    :param checksum: ``xxh3:`` or ``md5:`` and the hexadecimal digest of the content, when somebody knows one: the manifest
        the former, a store the latter.
    """

    path: str
    size_bytes: int
    etag: str
    modified: float | None = None
    checksum: str = ""


Outcome = Literal["deleted", "missing", "changed", "kept"]
"""What became of a file that was to be deleted. ``changed``: it has another etag by now; ``kept``: the store does not let it go."""


class Deletion(NamedTuple):
    """A file that was to be deleted, and what became of it.

    :param reason: Why it is kept.
    """

    file: StoredFile
    outcome: Outcome
    reason: str = ""


class Survey(NamedTuple):
    """Many files of a store, as far as an inventory has to know them.

    :param paths: Relative to the datastore's root.
    :param sizes_bytes: Of each.
    :param modified: When each was last written, in seconds since the epoch.
    """

    paths: Sequence[str]
    sizes_bytes: Sequence[int]
    modified: Sequence[float]

    @classmethod
    def of(cls, files: Iterable[StoredFile]) -> Iterator[Survey]:
        """The same for stores whose listings are not faster when they say less."""
        left = iter(files)
        while batch := list(islice(left, _SURVEYED)):
            paths, sizes, _, modified, _ = zip(*batch, strict=True)
            yield cls(paths, sizes, [each or 0.0 for each in modified])


class Placement(NamedTuple):
    """One file of a transfer: where it lies in the store, and its path below the local folder."""

    file: StoredFile
    target: str


Progress = Callable[[int, int], None]
"""Told of each batch that has been moved: files, bytes."""


class FileSource(Protocol):
    """Where files can be taken from.

    Calls raise :exc:`.StorageError` when the source is out of reach or fails, after retries of their own, and
    :exc:`.StorageRefused` for what no retry can cure.
    """

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def is_remote(self) -> bool:
        """Whether bytes come over a network by :meth:`Storage.read_range`, so that a file system can fetch them when they are read."""

    def list_files(self, path: str) -> Iterator[StoredFile]:
        """Every file below a folder, at any depth, or the file itself; nothing when there is neither. Any order."""

    def download(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        """Copy files below ``folder``; the caller may change the copies.

        :raises DataChanged: for a file that is no longer what its placement says: size, etag or checksum.
        """

    def mount(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        """Make files readable below ``folder`` as cheaply as the source allows."""


class Storage(FileSource, Protocol):
    """A connected datastore. All paths are relative to its root; no call follows a path out of it."""

    @property
    def location(self) -> str:
        """Where it is, the same for every datastore and address that names the place: without credentials, no slash at the end."""

    def check(self) -> str:
        """Say in a few words what this is and whether it can be written, or raise."""

    def survey(self, path: str) -> Iterator[Survey]:
        """Every file below a folder, also of the folder reserved for this package; marks of folders may be among them. Any order."""

    def list_reserved(self, path: str = RESERVED_FOLDER) -> Iterator[StoredFile]:
        """Every file in the folder reserved for this package, or in one below it: manifests, and what is staged. Any order."""

    def read_bytes(self, path: str) -> bytes:
        """The content of one small file."""

    def read_range(self, file: StoredFile, start: int, length: int) -> bytes:
        """Bytes of a file from ``start`` on; fewer than ``length`` only at its end.

        :raises DataChanged: when the file no longer has the etag.
        """

    def write_bytes(self, path: str, content: bytes) -> None:
        """Create or replace one small file, atomically."""

    def delete_files(self, paths: Iterable[str]) -> None:
        """Remove the files, whatever they are by now; those already gone are fine. Folders left empty go too."""

    def delete_unchanged(self, files: Iterable[StoredFile]) -> list[Deletion]:
        """Remove the files that still have their etags, and say of each what became of it, in any order.

        An empty etag stands for any. A file that is written again at the same time stays, except on Azure Files, which cannot delete
        on a condition: there it may go when it is written in the moment after it was looked at. Folders left empty go too.
        """

    def mount_folder(self, path: str, folder: Path) -> bool:
        """Make a whole stored folder readable as ``folder``; False when the store has no cheap way."""

    def upload(self, files: Sequence[tuple[Path, str]], *, overwrite: bool, progress: Progress) -> None:
        """Copy local files to paths in the store.

        :raises FilesExist: when ``overwrite`` is False and a different file is there; nothing is written then. A file
            that is there already with the same content is left as it is.
        """

    def copy(self, files: Sequence[tuple[StoredFile, str]], source: Storage, *, progress: Progress) -> None:
        """Copy files of another datastore, or of this one, to paths here; what is there is replaced.

        Inside one account the service copies, and no byte passes through this machine.
        """

    def staging_folder(self, step_run_id: str, name: str, scratch: Path) -> Path:
        """Create a local folder for an output, from which :meth:`publish` is cheap.

        :param scratch: The step run's private folder on this machine, for stores that are not on it.
        """

    def publish(
        self,
        step_run_id: str,
        name: str,
        staged: Path,
        files: Sequence[LocalFile],
        destination: str,
        *,
        overwrite: bool,
        exclusive: bool,
        progress: Progress,
    ) -> list[StoredFile]:
        """Move staged files to ``destination``; all of them or, on an error, none.

        :param staged: The folder from :meth:`staging_folder`.
        :param files: What of the staging folder to publish; the path is ``""`` when a file has taken the folder's place.
        :param exclusive: The destination belongs to this step run alone.
        :returns: The stored files, in the order of ``files``.
        :raises OutputConflict: when ``overwrite`` is False and a file is there.
        """

    def take_back(self, step_run_id: str, name: str, destination: str, *, exclusive: bool) -> None:
        """Undo a :meth:`publish` that was never committed, and remove the staging area."""

    def drop_staging(self, step_run_id: str, name: str) -> None:
        """Remove the staging area of an output; what was published stays."""

    def output_folder(self, path: str) -> Path | None:
        """Create a local folder whose files are stored at ``path`` as they are closed (mount mode); None when the store is remote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatastoreConfig:
    """One datastore as the workspace's connection declares it.

    :param retention_days: For which outputs on it are kept after their last change and use; None: as the retention DAG says.
    :param connection: The Airflow connection that its option ``conn_id`` names; None without that option.
    :param sas: Gives the SAS token of now, where it has to be renewed; that of the connection is only the first.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(repr=False)
    retention_days: int | None = None
    connection: ConnectionFields | None = field(default=None, repr=False)
    sas: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    def portable(self) -> DatastoreConfig:
        """The same for another process, which gets the SAS token of now and cannot renew it."""
        if self.sas is None or self.connection is None:
            return self
        extra = {**self.connection.extra, "sas_token": self.sas()}
        return replace(self, connection=replace(self.connection, extra=extra), sas=None)


@dataclass(frozen=True, slots=True)
class Kind:
    """How to open datastores of one kind.

    :param opener: ``module:function`` taking a :class:`DatastoreConfig`.
    :param requires: Module that must be importable, with the extra that brings it.
    """

    opener: str
    requires: str = ""
    extra: str = ""


KINDS: dict[str, Kind] = {
    "local": Kind("airflow_aml_data.core.storage.local:open_local"),
    "azure_blob": Kind("airflow_aml_data.core.storage.azure.blob:open_blob", "obstore", "azure"),
    "azure_data_lake_gen2": Kind("airflow_aml_data.core.storage.azure.blob:open_data_lake", "obstore", "azure"),
    "azure_file": Kind(
        "airflow_aml_data.core.storage.azure.fileshare:open_fileshare", "azure.storage.fileshare", "azure"
    ),
}
"""The kinds of datastore on offer."""

_SHIPPED = {"shipped": Kind("airflow_aml_data.core.storage.shipped:open_shipped")}
"""What datastores are in a job, whatever they are declared as."""

_RETIRED = {
    "azure_data_lake_gen1": (
        "Azure Data Lake Storage Gen1 was retired on 29 February 2024 and its accounts no longer answer. "
        "Move the data to Gen2 and declare the datastore with the Gen2 account."
    ),
}
_RETIRED["azure_data_lake"] = _RETIRED["AzureDataLake"] = _RETIRED["adl"] = _RETIRED["azure_data_lake_gen1"]


def check_kind(kind: str, name: str) -> str:
    """Return ``kind`` when datastores of that kind are on offer.

    :raises UnsupportedDatastore: with the reason and the way out.
    """
    if kind in _RETIRED:
        raise UnsupportedDatastore(f"Datastore {name!r} is of kind {kind!r}. {_RETIRED[kind]}")
    if kind not in KINDS:
        raise UnsupportedDatastore(
            f"Datastore {name!r} is of kind {kind!r}, which this release does not offer. Kinds: {', '.join(sorted(KINDS))}."
        )
    return kind


def open_storage(config: DatastoreConfig) -> Storage:
    """Connect to a datastore.

    :raises MissingExtra: when its kind needs a package that is not installed.
    """
    kind = _SHIPPED.get(config.kind) or KINDS[check_kind(config.kind, config.name)]
    if kind.requires and not _is_installed(kind.requires):
        raise MissingExtra(f"Datastore {config.name!r} of kind {config.kind!r}", kind.extra)
    module, _, function = kind.opener.partition(":")
    storage: Storage = getattr(import_module(module), function)(config)
    return storage


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent is
        return False


def check_inside(path: str, store: str, *, reserved: bool = False) -> str:
    """Return a path that stays below the root of a datastore.

    :param reserved: Whether it may lie in the folder reserved for this package.
    :raises InvalidPath: for any other.
    """
    parts = path.split("/")
    if ".." in parts or path.startswith("/") or (parts[0] == RESERVED_FOLDER and not reserved):
        raise InvalidPath(f"Path {path!r} is not inside datastore {store!r}.")
    return path


def check_options(
    config: DatastoreConfig, required: Mapping[str, type], optional: Mapping[str, type] = MappingProxyType({})
) -> None:
    """Refuse options a kind does not know, lacks, or that have another type.

    :param required: Option name to type.
    """
    allowed = {**required, **optional}
    for key, value in config.options.items():
        if key not in allowed:
            raise InvalidConfiguration(
                f"Datastore {config.name!r} has unknown key {key!r}. "
                f"Allowed for kind {config.kind!r}: {', '.join(['kind', *allowed])}."
            )
        if not isinstance(value, allowed[key]):
            raise InvalidConfiguration(
                f"Datastore {config.name!r}: {key!r} must be {allowed[key].__name__}, found {type(value).__name__}."
            )
    for key in required:
        if key not in config.options:
            raise InvalidConfiguration(f"Datastore {config.name!r} of kind {config.kind!r} lacks {key!r}.")
