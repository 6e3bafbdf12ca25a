"""From a definition to its files: found in their stores, made of a table, or readable at local paths."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from posixpath import commonpath
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, OutputSource, Source, StorePath, TableFiles, WebPath
from airflow_aml_data.core.expressions import holds
from airflow_aml_data.core.formats import TableFormat
from airflow_aml_data.core.globs import compile_glob, is_glob, literal_folder, stripped_folder
from airflow_aml_data.core.manifest import Manifest, missing_or_changed
from airflow_aml_data.core.operations import Filter, Operation, Skip, Take
from airflow_aml_data.core.partition import PartitionFormat, PartitionValue
from airflow_aml_data.core.selection import Selection, select
from airflow_aml_data.core.storage.base import FileSource, Placement, Progress, Storage, StoredFile
from airflow_aml_data.core.storage.web import WebFile
from airflow_aml_data.errors import DataChanged, FilesNotFound, InvalidDeclaration

if TYPE_CHECKING:
    from airflow_aml_data.core.tabular.base import TableFile

PATH_COLUMN = "Path"
"""The column that ``include_path`` makes. Source: v1, semantics section 5."""

Groups = tuple[tuple[FileSource, tuple[Placement, ...]], ...]
"""Where files are and what to take from there; all in the dataset's order."""


MakeFiles = Callable[[Path], Sequence[Path]]
"""Makes the files of a table, in a given folder or another of the same file system, and returns them."""


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a dataset, ready to be moved.

    :param find_groups: Makes :attr:`groups` when somebody asks: whole folders are mounted without.
    :param single_file: The dataset names one file: a script gets its path, not the folder's.
    :param whole_folder: Set when the files are exactly those of one stored folder: its storage and path.
    """

    find_groups: Callable[[], Groups]
    files: int
    size_bytes: int
    single_file: bool = False
    whole_folder: tuple[Storage, str] | None = None

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


def find_files(
    workspace: ConnectedWorkspace,
    definition: Definition,
    *,
    ignore_not_found: bool = False,
    make_files: MakeFiles | None = None,
) -> DatasetFiles:
    """List the files of a dataset as they stand now, in its order; duplicates in a list of paths are kept.

    :param ignore_not_found: Leave out paths and globs without a match.
    :param make_files: Makes the files of a table that is needed as files; None: they are made by themselves.
    :raises FilesNotFound: for a path or glob without a match. Source: v1, on use and not on creation.
    :raises DataChanged: when a committed output is not what its manifest says.
    """
    if made_of := definition.made_of:
        make = make_files or (lambda folder: _make_files(workspace, [made_of], folder)[0])
        files = _made_files(workspace, made_of, make)
    else:
        found = list(_each_source(workspace, definition.sources, ignore_not_found))
        files = found[0].stripped() if len(definition.sources) == 1 and found else _together(found)
    if definition.is_tabular or not definition.operations:
        return files
    flat = [(source, each) for source, group in files.groups for each in group]
    return DatasetFiles.of(_grouped(_chosen(flat, definition.operations)))


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
        make = None
        if each.made_of:
            rows = replace(each.made_of.table, operations=(), registered=None)
            key = (rows.id, each.made_of.target)
            make = shared.setdefault(key, _SharedRows(workspace, scratch / str(len(shared)))).add(each.made_of)
        found.append(find_files(workspace, each, make_files=make))
    return found


def dataset_paths(workspace: ConnectedWorkspace, definition: Definition) -> list[str]:
    """The paths of the files inside the dataset; those of a list of paths whole. Source: v1, semantics section 4."""
    sources = definition.sources
    whole = len(sources) > 1 and not any(isinstance(each, OutputSource) for each in sources)
    placements = find_files(workspace, definition).placements
    return [shown_path(each.file) if whole else f"/{each.target}" for each in placements]


@contextmanager
def table_files(workspace: ConnectedWorkspace, definition: Definition) -> Iterator[list[TableFile]]:
    """The files of a table, readable at local paths for the time of the ``with`` block."""
    from airflow_aml_data.core.tabular.base import TableFile

    files = find_files(workspace, definition)
    columns = _path_columns(definition)
    with tempfile.TemporaryDirectory(prefix="aml_data_read_") as folder:
        found: list[TableFile] = []
        for ordinal, (source, group) in enumerate(files.groups):
            below = Path(folder, str(ordinal))
            unique = {each.target: each for each in group}
            source.mount(list(unique.values()), below, _quiet)
            found += [TableFile(each.file.path, below / each.target, columns(shown_path(each.file))) for each in group]
        yield found


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


def shown_path(file: StoredFile) -> str:
    """The path of a file as v1 writes it: from the root of its datastore, or its address."""
    return file.path if "://" in file.path else f"/{file.path}"


def _path_columns(definition: Definition) -> Callable[[str], tuple[tuple[str, PartitionValue], ...]]:
    partitions = PartitionFormat(definition.partition_format) if definition.partition_format is not None else None

    def columns(path: str) -> tuple[tuple[str, PartitionValue], ...]:
        own = ((PATH_COLUMN, path),) if definition.include_path else ()
        return (*own, *(partitions.values(path).items() if partitions else ()))

    return columns


class _SourceFiles(NamedTuple):
    """The files of one source.

    :param files: Their targets are their whole paths, except for an output, whose folder has no name of its own.
    :param folder: What a dataset of this one source leaves out of their paths; None for an output.
    :param place: Where the folder is: the store or host it is on.
    """

    files: DatasetFiles
    folder: str | None
    place: str = ""

    def stripped(self) -> DatasetFiles:
        return self.files if self.folder is None else _without(self.files, self.folder)


def _each_source(
    workspace: ConnectedWorkspace, sources: Sequence[Source], ignore_not_found: bool
) -> Iterator[_SourceFiles]:
    for each in sources:
        try:
            yield _source_files(workspace, each, ignore_not_found)
        except FilesNotFound:
            if not ignore_not_found:
                raise


def _source_files(workspace: ConnectedWorkspace, source: Source, ignore_not_found: bool) -> _SourceFiles:
    match source:
        case StorePath():
            storage = workspace.storage(source.datastore)
            found, folder = (
                _certain_file(storage, source) if source.is_file and not ignore_not_found else _matches(storage, source)
            )
            whole_file = len(found) == 1 and found[0].path == source.path
            placements = tuple(Placement(each, each.path) for each in found)
            return _SourceFiles(DatasetFiles.of(((storage, placements),), single_file=whole_file), folder, storage.name)
        case WebPath(url):
            web = WebFile(url)
            placement = Placement(next(web.list_files(url)), f"{web.folder}/{web.file_name}")
            return _SourceFiles(DatasetFiles.of(((web, (placement,)),), single_file=True), web.folder)
        case OutputSource():
            files = _output_files(workspace.storage(source.datastore), source)
            return _SourceFiles(_below(source.folder, files), None)


def _together(found: Sequence[_SourceFiles]) -> DatasetFiles:
    """Several sources, in order: paths without the folder that all have in common."""
    folders = [each.folder for each in found if each.folder is not None]
    one_place = len(folders) == len(found) and len({each.place for each in found}) == 1
    common = commonpath(folders) if one_place else ""
    flat = []
    for each in found:
        files = _without(each.files, common)
        flat += [(store, one) for store, group in files.groups for one in group]
    return DatasetFiles.of(_grouped(flat))


def _below(folder: str, files: DatasetFiles) -> DatasetFiles:
    """The files, in a folder."""
    if not folder:
        return files
    return DatasetFiles.of(
        tuple(
            (source, tuple(each._replace(target=f"{folder}/{each.target}") for each in group))
            for source, group in files.groups
        )
    )


def _without(files: DatasetFiles, folder: str) -> DatasetFiles:
    if not folder:
        return files
    groups = tuple(
        (source, tuple(each._replace(target=each.target.removeprefix(f"{folder}/")) for each in group))
        for source, group in files.groups
    )
    return DatasetFiles.of(groups, single_file=files.single_file)


def _certain_file(storage: Storage, where: StorePath) -> tuple[list[StoredFile], str]:
    found = next(iter(storage.list_files(where.path)), None)
    if found is None or found.path != where.path:
        found = StoredFile(where.path, 0, "")  # reading it fails
    return [found], where.path.rpartition("/")[0]


def _matches(storage: Storage, where: StorePath) -> tuple[list[StoredFile], str]:
    """The files of one path, sorted, and the folder that a dataset of this one path leaves out of their names."""
    found = sorted(storage.list_files(where.path), key=lambda each: each.path)
    if found:
        is_file = len(found) == 1 and found[0].path == where.path
        return found, where.path.rpartition("/")[0] if is_file else where.path
    if is_glob(where.path):
        pattern = compile_glob(where.path)
        found = [each for each in storage.list_files(literal_folder(where.path)) if pattern.fullmatch(each.path)]
        found.sort(key=lambda each: each.path)
        if found:
            return found, stripped_folder(where.path)
    raise FilesNotFound(
        "The requested stream was not found. Please make sure the request uri is correct. "
        f"Asked for {where.path!r} on datastore {where.datastore!r}; no file {'matches' if is_glob(where.path) else 'is there'}."
    )


def _output_files(storage: Storage, output: OutputSource) -> DatasetFiles:
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
    if output.path_glob is not None:
        return _matching(_placements(output.path, manifest), storage, output)
    whole = not extra and not manifest.is_single_file
    return DatasetFiles(
        lambda: ((storage, _placements(output.path, manifest)),),
        len(manifest.entries),
        manifest.size_bytes,
        single_file=manifest.is_single_file,
        whole_folder=(storage, output.path) if whole else None,
    )


def _matching(placements: Sequence[Placement], storage: Storage, output: OutputSource) -> DatasetFiles:
    pattern = compile_glob(output.path_glob or "")
    found = tuple(each for each in placements if pattern.fullmatch(each.target))
    if not found:
        raise FilesNotFound(
            f"No file of output {output.output_id!r} matches path_glob {output.path_glob!r}. It holds "
            f"{len(placements)} files, the first is {placements[0].target!r}."
        )
    return DatasetFiles.of(((storage, found),))


def _placements(path: str, manifest: Manifest) -> tuple[Placement, ...]:
    below = f"{path}/"
    return tuple(
        Placement(
            StoredFile(below + each.path if each.path else path, each.size_bytes, each.etag),
            each.path or path.rpartition("/")[2],
        )
        for each in manifest.entries
    )


def _made_files(workspace: ConnectedWorkspace, made_of: TableFiles, make: MakeFiles) -> DatasetFiles:
    from airflow_aml_data.core.tabular import part_names

    source = _TableAsFiles(make)
    names = part_names(find_files(workspace, made_of.table).files, made_of.target)
    return DatasetFiles.of(((source, tuple(Placement(StoredFile(each, 0, ""), each) for each in names)),))


def _make_files(workspace: ConnectedWorkspace, tables: Sequence[TableFiles], folder: Path) -> list[list[Path]]:
    """Make the files of some tables of the same rows, reading these once."""
    from airflow_aml_data.core.tabular import write_parts

    table, target = tables[0].table, tables[0].target
    chains = [(each.table.operations, folder / str(number)) for number, each in enumerate(tables)]
    for _, below in chains:
        below.mkdir()
    with table_files(workspace, table) as files:
        return write_parts(files, _format(table), chains, target)


class _SharedRows:
    """Tables of the same rows, whose files are made together when those of the first one are needed."""

    def __init__(self, workspace: ConnectedWorkspace, folder: Path) -> None:
        self._workspace, self._folder = workspace, folder
        self._tables: list[TableFiles] = []

    def add(self, table: TableFiles) -> MakeFiles:
        self._tables.append(table)
        place = len(self._tables) - 1
        return lambda _: self._made[place]

    @cached_property
    def _made(self) -> list[list[Path]]:
        self._folder.mkdir()
        return _make_files(self._workspace, self._tables, self._folder)


class _TableAsFiles:
    """A place whose files come into being when they are taken."""

    name = "the dataset's table"

    def __init__(self, make: MakeFiles) -> None:
        self._make = make

    def download(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".aml_data_", dir=folder) as scratch:
            places = {each.name: each for each in self._make(Path(scratch))}
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
        file = next(iter(source.list_files(file.path)), file)  # type: ignore[attr-defined]
    modified = None if file.modified is None else datetime.fromtimestamp(file.modified, UTC)
    return {
        "Size": file.size_bytes,
        "LastModifiedTime": modified,
        "CreationTime": modified,  # files are written once and replaced as a whole
        "Extension": PurePosixPath(placement.target).suffix,
        "CanSeek": True,
    }


def _grouped(files: Sequence[tuple[FileSource, Placement]]) -> Groups:
    """Neighbours of one source together, order kept."""
    groups: list[tuple[FileSource, list[Placement]]] = []
    for source, placement in files:
        if not groups or groups[-1][0] is not source:
            groups.append((source, []))
        groups[-1][1].append(placement)
    return tuple((source, tuple(group)) for source, group in groups)


def _quiet(files: int, size_bytes: int) -> None:
    """Nobody watches the progress of a read."""
