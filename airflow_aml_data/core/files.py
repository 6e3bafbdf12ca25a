"""From a definition to its files: found in their stores, made of a table, or readable at local paths."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, OutputSource, TableFiles
from airflow_aml_data.core.expressions import holds
from airflow_aml_data.core.formats import TableFormat
from airflow_aml_data.core.listing import DatasetFiles, grouped, list_sources, shown_path
from airflow_aml_data.core.operations import Filter, Operation, Skip, Take
from airflow_aml_data.core.partition import PartitionFormat, PartitionValue
from airflow_aml_data.core.protocol import RunFile
from airflow_aml_data.core.room import copied_bytes, require_room
from airflow_aml_data.core.selection import Selection, select
from airflow_aml_data.core.storage.base import FileSource, Placement, Progress, StoredFile
from airflow_aml_data.errors import InvalidDeclaration

if TYPE_CHECKING:
    from airflow_aml_data.core.tabular.base import TableFile

PATH_COLUMN = "Path"
"""The column that ``include_path`` makes. Source: v1, semantics section 5."""


def find_files(
    workspace: ConnectedWorkspace,
    definition: Definition,
    *,
    ignore_not_found: bool = False,
    rows: _SharedRows | None = None,
) -> DatasetFiles:
    """List the files of a dataset, as :func:`.list_sources` does those of its sources.

    :param rows: Those of a table that is needed as files, when other tables share them.
    """
    if definition.made_of:
        files = (rows or _SharedRows(workspace, definition.made_of)).as_files(definition.made_of.table)
    else:
        files = list_sources(workspace, definition.sources, ignore_not_found=ignore_not_found)
    if definition.is_tabular or not definition.operations:
        return files
    flat = [(source, each) for source, group in files.groups for each in group]
    return DatasetFiles.of(grouped(_chosen(flat, definition.operations)))


def find_together(
    workspace: ConnectedWorkspace, definitions: Sequence[Definition], scratch: Path
) -> list[DatasetFiles]:
    """List the files of several datasets, as :func:`find_files` does.

    Those that are made of the same rows, as both parts of a split are, are made in one pass when the first are taken.

    :param scratch: A folder for them until all are taken, on the file system that they are taken to.
    """
    shared: dict[object, _SharedRows] = {}
    found = []
    for each in definitions:
        rows = None
        if each.made_of:
            key = (replace(each.made_of.table, operations=(), registered=None).id, each.made_of.target)
            rows = shared.get(key) or _SharedRows(workspace, each.made_of, scratch / str(len(shared)))
            shared[key] = rows
        found.append(find_files(workspace, each, rows=rows))
    return found


def dataset_paths(workspace: ConnectedWorkspace, definition: Definition) -> list[str]:
    """The paths of the files inside the dataset; those of a list of paths whole. Source: v1, semantics section 4."""
    sources = definition.sources
    whole = len(sources) > 1 and not any(isinstance(each, OutputSource) for each in sources)
    placements = find_files(workspace, definition).placements
    return [shown_path(each.file) if whole else f"/{each.target}" for each in placements]


@contextmanager
def table_files(
    workspace: ConnectedWorkspace,
    definition: Definition,
    found: DatasetFiles | None = None,
    scratch: Path | None = None,
) -> Iterator[list[TableFile]]:
    """The files of a table, readable at local paths for the time of the ``with`` block.

    :param found: The files, where they have been listed already.
    :param scratch: The folder in which they are made readable; None: that of the step whose script this is, which goes away
        also when the script is killed, or one of the machine's.
    """
    from airflow_aml_data.core.tabular.base import TableFile

    columns = _path_columns(definition)
    with tempfile.TemporaryDirectory(prefix="aml_data_read_", dir=scratch or _scratch_of_step()) as folder:
        files: list[TableFile] = []
        groups = (found or find_files(workspace, definition)).groups
        require_room(Path(folder), copied_bytes(groups), "Reading the table")
        for ordinal, (source, group) in enumerate(groups):
            below = Path(folder, str(ordinal))
            unique = {each.target: each for each in group}
            source.mount(list(unique.values()), below, _quiet)
            files += [TableFile(each.file.path, below / each.target, columns(shown_path(each.file))) for each in group]
        yield files


def _scratch_of_step() -> Path | None:
    step = RunFile.current()
    return Path(step.folder).parent if step and step.folder else None


def partition_values(
    workspace: ConnectedWorkspace, definition: Definition, keys: Sequence[str] | None
) -> list[dict[str, PartitionValue]]:
    """What the paths of a dataset's files say, each combination once, in the order in which it appears.

    :param keys: Some of the names in ``partition_format``; None: all.
    :raises InvalidDeclaration: for other names. Source: v1, semantics section 6, the words too.
    """
    if definition.partition_format is None:
        raise InvalidDeclaration(
            "cannot retrieve partition key values for a dataset that has no partition keys. Give it a partition_format."
        )
    partitions = PartitionFormat(definition.partition_format)
    if unknown := [each for each in keys or () if each not in partitions.keys]:
        raise InvalidDeclaration(f"{unknown} are invalid partition keys. There are: {', '.join(partitions.keys)}.")
    wanted = partitions.keys if keys is None else tuple(keys)
    values = (
        partitions.values(shown_path(each.file))
        for _, group in find_files(workspace, definition).groups
        for each in group
    )
    distinct = dict.fromkeys(tuple(each[key] for key in wanted) for each in values)
    return [dict(zip(wanted, each, strict=True)) for each in distinct]


def _path_columns(definition: Definition) -> Callable[[str], tuple[tuple[str, PartitionValue], ...]]:
    partitions = PartitionFormat(definition.partition_format) if definition.partition_format is not None else None

    def columns(path: str) -> tuple[tuple[str, PartitionValue], ...]:
        own = ((PATH_COLUMN, path),) if definition.include_path else ()
        return (*own, *(partitions.values(path).items() if partitions else ()))

    return columns


class _SharedRows:
    """The rows that tables are made of. The files of all these tables are made when some of the first are taken.

    :param made_of: One of the tables.
    :param folder: Where they are until they are taken; None: there is one table, and its files are made where they are taken to.
    """

    def __init__(self, workspace: ConnectedWorkspace, made_of: TableFiles, folder: Path | None = None) -> None:
        self._workspace, self._made_of, self._folder = workspace, made_of, folder
        self._found = find_files(workspace, made_of.table)
        self._chains: list[Sequence[Operation]] = []

    def as_files(self, table: Definition) -> DatasetFiles:
        """The files of one of the tables, which come into being when they are taken."""
        from airflow_aml_data.core.tabular import part_names

        self._chains.append(table.operations)
        source = _TableAsFiles(self, len(self._chains) - 1)
        names = part_names(self._found.files, self._made_of.target)
        return DatasetFiles.of(((source, tuple(Placement(StoredFile(each, 0, ""), each) for each in names)),))

    def make(self, place: int, folder: Path) -> list[Path]:
        """The files of the table of that place, on the file system of ``folder``."""
        return (self._make(folder) if self._folder is None else self._kept)[place]

    @cached_property
    def _kept(self) -> list[list[Path]]:
        folder = self._folder or Path()
        folder.mkdir()
        return self._make(folder)

    def _make(self, folder: Path) -> list[list[Path]]:
        from airflow_aml_data.core.tabular import write_parts

        table = self._made_of.table
        chains = [(each, folder / str(number)) for number, each in enumerate(self._chains)]
        for _, below in chains:
            below.mkdir()
        with table_files(self._workspace, table, self._found, folder) as files:
            return write_parts(files, _format(table), chains, self._made_of.target)


class _TableAsFiles:
    """Where the files of one table are taken from."""

    name = "the dataset's table"
    is_remote = False

    def __init__(self, rows: _SharedRows, place: int) -> None:
        self._rows, self._place = rows, place

    def list_files(self, path: str) -> Iterator[StoredFile]:
        raise InvalidDeclaration(
            f"{path} is made of a table, and has no size or time before. Filter the table, or choose files by take() and skip()."
        )

    def download(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".aml_data_", dir=folder) as scratch:
            places = {each.name: each for each in self._rows.make(self._place, Path(scratch))}
            for each in placements:
                target = folder / each.target
                target.parent.mkdir(parents=True, exist_ok=True)
                places[each.file.path].replace(target)
                progress(1, target.stat().st_size)

    mount = download


def _format(table: Definition) -> TableFormat:
    if table.format is None:
        raise InvalidDeclaration("Only tables are made into files, and this dataset is of files.")
    return table.format


def _chosen(
    files: list[tuple[FileSource, Placement]], operations: Sequence[Operation]
) -> list[tuple[FileSource, Placement]]:
    """The files that a chain of operations keeps, in their order."""
    for each in operations:
        match each:
            case Selection():
                files = select(files, [each])
            case Take(count):
                files = files[: int(count)]
            case Skip(count):
                files = files[int(count) :]
            case Filter(expression):
                files = [(source, file) for source, file in files if holds(expression, _file_metadata(source, file))]
            case _:
                raise InvalidDeclaration(f"{type(each).__name__} wants a table, and these are files.")
    return files


def _file_metadata(source: FileSource, placement: Placement) -> dict[str, Any]:
    """What a filter can ask of a file. Source: v1, semantics section 6."""
    file = placement.file
    if file.modified is None:
        file = next(iter(source.list_files(file.path)), file)
    modified = None if file.modified is None else datetime.fromtimestamp(file.modified, UTC)
    return {
        "Size": file.size_bytes,
        "LastModifiedTime": modified,
        "CreationTime": modified,  # files are written once and replaced as a whole
        "Extension": PurePosixPath(placement.target).suffix,
        "CanSeek": True,
    }


def _quiet(files: int, size_bytes: int) -> None:
    """Nobody watches the progress of a read."""
