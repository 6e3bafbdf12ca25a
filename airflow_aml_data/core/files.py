"""From a definition to its files: found in their stores, made of a table, or readable at local paths."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, OutputSource, StorePath, TableFiles
from airflow_aml_data.core.expressions import holds
from airflow_aml_data.core.formats import TableFormat
from airflow_aml_data.core.globs import compile_glob, is_glob, literal_folder
from airflow_aml_data.core.manifest import Manifest, missing_or_changed
from airflow_aml_data.core.operations import Filter, Operation, Skip, Take
from airflow_aml_data.core.selection import Selection, select
from airflow_aml_data.core.storage.base import FileSource, Placement, Progress, Storage, StoredFile
from airflow_aml_data.errors import DataChanged, FilesNotFound, InvalidDeclaration

if TYPE_CHECKING:
    from airflow_aml_data.core.tabular.base import TableFile

Groups = tuple[tuple[FileSource, tuple[Placement, ...]], ...]
"""Where files are and what to take from there; all in the dataset's order."""


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


def find_files(workspace: ConnectedWorkspace, definition: Definition) -> DatasetFiles:
    """List the files of a dataset as they stand now, in its order; duplicates in a list of paths are kept.

    :raises FilesNotFound: for a path or glob without a match. Source: v1, on use and not on creation.
    :raises DataChanged: when a committed output is not what its manifest says.
    """
    if definition.made_of:
        files = _made_files(workspace, definition.made_of)
    else:
        found = [_source_files(workspace, each, alone=len(definition.sources) == 1) for each in definition.sources]
        files = found[0] if len(found) == 1 else _together(definition, found)
    if definition.is_tabular or not definition.operations:
        return files
    flat = [(source, each) for source, group in files.groups for each in group]
    return DatasetFiles.of(_grouped(_chosen(flat, definition.operations)))


@contextmanager
def table_files(workspace: ConnectedWorkspace, definition: Definition) -> Iterator[list[TableFile]]:
    """The files of a table, readable at local paths for the time of the ``with`` block."""
    from airflow_aml_data.core.tabular.base import TableFile

    files = find_files(workspace, definition)
    with tempfile.TemporaryDirectory(prefix="aml_data_read_") as folder:
        found: list[TableFile] = []
        for ordinal, (source, group) in enumerate(files.groups):
            below = Path(folder, str(ordinal))
            unique = {each.target: each for each in group}
            source.mount(list(unique.values()), below, _quiet)
            found += [
                TableFile(each.file.path, below / each.target, _columns(definition, each.file.path)) for each in group
            ]
        yield found


def _columns(definition: Definition, path: str) -> tuple[tuple[str, str | datetime | None], ...]:
    return (("Path", f"/{path}"),) if definition.include_path else ()


def _source_files(workspace: ConnectedWorkspace, source: Any, *, alone: bool) -> DatasetFiles:
    match source:
        case StorePath():
            return _path_files(workspace.storage(source.datastore), source, strip=alone)
        case OutputSource():
            return _output_files(workspace.storage(source.datastore), source)
    raise InvalidDeclaration(f"This release cannot list the files of {source!r}.")


def _together(definition: Definition, found: Sequence[DatasetFiles]) -> DatasetFiles:
    """Several sources: paths keep their names, each output has a folder of its own, in order."""
    width = len(str(len(found) - 1))
    flat = []
    for ordinal, (source, files) in enumerate(zip(definition.sources, found, strict=True)):
        folder = f"{ordinal:0{width}}/" if isinstance(source, OutputSource) else ""
        flat += [(store, each._replace(target=folder + each.target)) for store, group in files.groups for each in group]
    return DatasetFiles.of(_grouped(flat))


def _path_files(storage: Storage, where: StorePath, *, strip: bool) -> DatasetFiles:
    found, stripped = _matches(storage, where)
    prefix = f"{stripped}/" if strip and stripped else ""
    placements = tuple(Placement(file, file.path.removeprefix(prefix)) for file in found)
    whole_file = len(found) == 1 and found[0].path == where.path
    return DatasetFiles.of(((storage, placements),), single_file=whole_file)


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


def _made_files(workspace: ConnectedWorkspace, made_of: TableFiles) -> DatasetFiles:
    from airflow_aml_data.core.tabular import part_names

    source = _TableAsFiles(workspace, made_of)
    names = part_names(find_files(workspace, made_of.table).files, made_of.target)
    return DatasetFiles.of(((source, tuple(Placement(StoredFile(each, 0, ""), each) for each in names)),))


class _TableAsFiles:
    """A place whose files come into being when they are taken."""

    name = "the dataset's table"

    def __init__(self, workspace: ConnectedWorkspace, made_of: TableFiles) -> None:
        self._workspace, self._made_of = workspace, made_of

    def download(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        from airflow_aml_data.core.tabular import write_files

        table = self._made_of.table
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".aml_data_", dir=folder) as scratch:
            with table_files(self._workspace, table) as files:
                made = write_files(files, _format(table), table.operations, Path(scratch), self._made_of.target)
            places = {each.name: each for each in made}
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
                files = [
                    (source, file) for source, file in files if holds(expression, _file_metadata(source, file.file))
                ]
            case _:
                raise InvalidDeclaration(f"{type(each).__name__} wants a table, and these are files.")
    return files


def _file_metadata(source: FileSource, file: StoredFile) -> dict[str, Any]:
    """What a filter can ask of a file. Source: v1, semantics section 6."""
    if file.modified is None:
        file = next(iter(source.list_files(file.path)), file)  # type: ignore[attr-defined]
    modified = None if file.modified is None else datetime.fromtimestamp(file.modified, UTC)
    return {
        "Size": file.size_bytes,
        "LastModifiedTime": modified,
        "CreationTime": modified,  # files are written once and replaced as a whole
        "Extension": PurePosixPath(file.path).suffix,
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
