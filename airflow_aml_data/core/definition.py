"""A dataset with nothing left open: which files, in which format, which of them.

Definitions are what the catalog stores and what a step hands to its script: plain data, as JSON.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.formats import DelimitedFormat, ParquetFormat, format_from_json
from airflow_aml_data.core.globs import compile_glob, is_glob, literal_folder
from airflow_aml_data.core.manifest import Manifest, missing_or_changed
from airflow_aml_data.core.selection import Selection, select
from airflow_aml_data.core.storage.base import Placement, Storage, StoredFile
from airflow_aml_data.errors import DataChanged, FilesNotFound, InvalidDeclaration

DEFINITION_VERSION = 1


@dataclass(frozen=True, slots=True)
class StorePath:
    """A file, folder or glob on a datastore of known name."""

    datastore: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSource:
    """A committed output: exactly the files its manifest names.

    :param output_id: Its row in the catalog.
    """

    output_id: str
    datastore: str
    path: str
    manifest: str
    manifest_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a dataset is.

    :param format: How to read the files as a table; None: they are files.
    :param selections: Samples and splits, in the order they are applied: to rows of a table, to whole files else.
    :param registered: Name and version when it came from the catalog.
    """

    paths: tuple[StorePath, ...] = ()
    output: OutputSource | None = None
    format: DelimitedFormat | ParquetFormat | None = None
    selections: tuple[Selection, ...] = ()
    registered: tuple[str, int] | None = None

    @property
    def is_tabular(self) -> bool:
        return self.format is not None

    @property
    def id(self) -> str:
        """A short name for this very definition; what a script gets as the argument of a direct input."""
        return sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        return {
            "definition_version": DEFINITION_VERSION,
            "paths": [[each.datastore, each.path] for each in self.paths],
            "output": None
            if self.output is None
            else {
                "output_id": self.output.output_id,
                "datastore": self.output.datastore,
                "path": self.output.path,
                "manifest": self.output.manifest,
                "manifest_digest": self.output.manifest_digest,
            },
            "format": self.format.to_json() if self.format else None,
            "selections": [[each.probability, each.seed, each.complement] for each in self.selections],
            "registered": list(self.registered) if self.registered else None,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Definition:
        if content.get("definition_version") != DEFINITION_VERSION:
            raise InvalidDeclaration(
                f"The dataset was stored with definition version {content.get('definition_version')!r}; this release "
                f"reads version {DEFINITION_VERSION}. Install the release that stored it, or a newer one."
            )
        form = content["format"]
        if form is not None:
            form = format_from_json(form)
        return cls(
            paths=tuple(StorePath(store, path) for store, path in content["paths"]),
            output=OutputSource(**content["output"]) if content["output"] else None,
            format=form,
            selections=tuple(Selection(probability=p, seed=s, complement=c) for p, s, c in content["selections"]),
            registered=tuple(content["registered"]) if content["registered"] else None,
        )


Groups = tuple[tuple[str, tuple[Placement, ...]], ...]
"""Datastore name and what to take from it; all in the dataset's order."""


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a dataset, ready to be moved.

    :param find_groups: Makes :attr:`groups` when somebody asks: whole folders are mounted without.
    :param single_file: The dataset names one file: a script gets its path, not the folder's.
    :param whole_folder: Set when the files are exactly those of one stored folder: datastore and path.
    """

    find_groups: Callable[[], Groups]
    files: int
    size_bytes: int
    single_file: bool = False
    whole_folder: StorePath | None = None

    @classmethod
    def of(cls, groups: Groups, *, single_file: bool = False) -> DatasetFiles:
        """Files that have been listed."""
        sizes = [each.file.size_bytes for _, group in groups for each in group]
        return cls(lambda: groups, len(sizes), sum(sizes), single_file)

    @cached_property
    def groups(self) -> Groups:
        return self.find_groups()

    @property
    def placements(self) -> list[Placement]:
        return [each for _, group in self.groups for each in group]


def find_files(workspace: ConnectedWorkspace, definition: Definition) -> DatasetFiles:
    """List the files of a dataset as they stand now, in its order; duplicates in a list of paths are kept.

    :raises FilesNotFound: for a path or glob without a match. Source: v1, on use and not on creation.
    :raises DataChanged: when a committed output is not what its manifest says.
    """
    files = (
        _output_files(workspace, definition.output) if definition.output else _path_files(workspace, definition.paths)
    )
    if definition.is_tabular or not definition.selections:
        return files
    flat = [(name, each) for name, group in files.groups for each in group]
    chosen = select(flat, definition.selections)
    return DatasetFiles.of(_grouped(chosen))


@contextmanager
def local_files(workspace: ConnectedWorkspace, definition: Definition) -> Iterator[list[tuple[str, Path]]]:
    """The dataset's files, readable at local paths for the time of the ``with`` block: display name and path."""
    files = find_files(workspace, definition)
    with tempfile.TemporaryDirectory(prefix="aml_data_read_") as folder:
        found: list[tuple[str, Path]] = []
        for ordinal, (name, group) in enumerate(files.groups):
            below = Path(folder, str(ordinal))
            unique = {each.target: each for each in group}
            workspace.storage(name).mount(list(unique.values()), below, _quiet)
            found += [(each.file.path, below / each.target) for each in group]
        yield found


def _path_files(workspace: ConnectedWorkspace, paths: Sequence[StorePath]) -> DatasetFiles:
    single = len(paths) == 1
    chosen: list[tuple[str, Placement]] = []
    whole_file = False
    for each in paths:
        found, stripped = _matches(workspace.storage(each.datastore), each)
        prefix = f"{stripped}/" if single and stripped else ""
        chosen += [(each.datastore, Placement(file, file.path.removeprefix(prefix))) for file in found]
        whole_file = single and len(found) == 1 and found[0].path == each.path
    return DatasetFiles.of(_grouped(chosen), single_file=whole_file)


def _matches(storage: Storage, where: StorePath) -> tuple[list[StoredFile], str]:
    """The files of one path, sorted, and the folder that a dataset of this one path leaves out of their names."""
    found = sorted(storage.list_files(where.path), key=lambda each: each.path)
    if found:
        is_file = len(found) == 1 and found[0].path == where.path
        return found, where.path.rpartition("/")[0] if is_file else where.path
    if is_glob(where.path):
        folder, pattern = literal_folder(where.path), compile_glob(where.path)
        found = sorted(
            (each for each in storage.list_files(folder) if pattern.fullmatch(each.path)), key=lambda each: each.path
        )
        if found:
            return found, folder
    raise FilesNotFound(
        "The requested stream was not found. Please make sure the request uri is correct. "
        f"Asked for {where.path!r} on datastore {where.datastore!r}; no file {'matches' if is_glob(where.path) else 'is there'}."
    )


def _output_files(workspace: ConnectedWorkspace, output: OutputSource) -> DatasetFiles:
    storage = workspace.storage(output.datastore)
    try:
        manifest = Manifest.from_bytes(storage.read_bytes(output.manifest))
    except (FilesNotFound, ValueError) as error:
        raise DataChanged(
            f"The manifest of output {output.output_id!r} is gone or damaged ({error}). Run the step that wrote it again."
        ) from error
    if manifest.digest != output.manifest_digest:
        raise DataChanged(
            f"The manifest of output {output.output_id!r} was changed after it was committed. Run its step again."
        )
    below = f"{output.path}/"
    stored = (
        (each.path.removeprefix(below) if each.path != output.path else "", each.etag)
        for each in storage.list_files(output.path)
    )
    wrong, extra = missing_or_changed(manifest, stored)
    if wrong:
        raise DataChanged(
            f"{len(wrong)} of {len(manifest.entries)} files of output {output.output_id!r} are missing or were changed after "
            f"the commit, the first is {wrong[0] or output.path!r}, in {output.path!r} on datastore {output.datastore!r}. "
            "Run the step that wrote it again."
        )
    whole = not extra and not manifest.is_single_file
    return DatasetFiles(
        lambda: ((output.datastore, _placements(output.path, manifest)),),
        len(manifest.entries),
        manifest.size_bytes,
        single_file=manifest.is_single_file,
        whole_folder=StorePath(output.datastore, output.path) if whole else None,
    )


def _placements(path: str, manifest: Manifest) -> tuple[Placement, ...]:
    below = f"{path}/"
    return tuple(
        Placement(
            StoredFile(below + each.path if each.path else path, each.size_bytes, each.etag),
            each.path or path.rpartition("/")[2],
        )
        for each in manifest.entries
    )


def _grouped(files: Sequence[tuple[str, Placement]]) -> Groups:
    """Neighbours of one datastore together, order kept."""
    groups: list[tuple[str, list[Placement]]] = []
    for name, placement in files:
        if not groups or groups[-1][0] != name:
            groups.append((name, []))
        groups[-1][1].append(placement)
    return tuple((name, tuple(group)) for name, group in groups)


def _quiet(files: int, size_bytes: int) -> None:
    """Nobody watches the progress of a read."""
