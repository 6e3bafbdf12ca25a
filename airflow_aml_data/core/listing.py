"""The files of a dataset's sources, found in their stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from posixpath import commonpath
from typing import NamedTuple

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import OutputSource, Source, StorePath, WebPath
from airflow_aml_data.core.globs import compile_glob, is_glob, literal_folder, stripped_folder
from airflow_aml_data.core.manifest import Manifest, missing_or_changed
from airflow_aml_data.core.storage.base import FileSource, Placement, Storage, StoredFile
from airflow_aml_data.core.storage.web import WebFile
from airflow_aml_data.errors import DataChanged, FilesNotFound, StorageError

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


def list_sources(
    workspace: ConnectedWorkspace, sources: Sequence[Source], *, ignore_not_found: bool = False
) -> DatasetFiles:
    """List the files of sources as they stand now, in order; duplicates in a list of paths are kept.

    :param ignore_not_found: Leave out paths and globs without a match.
    :raises FilesNotFound: for a path or glob without a match. Source: v1, on use and not on creation.
    :raises DataChanged: when a committed output is not what its manifest says.
    """
    found = list(_each_source(workspace, sources, ignore_not_found))
    return found[0].stripped() if len(sources) == 1 and found else _together(found)


def shown_path(file: StoredFile) -> str:
    """The path of a file as v1 writes it: from the root of its datastore, or its address."""
    return file.path if "://" in file.path else f"/{file.path}"


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
            try:
                files = _output_files(workspace.storage(source.datastore), source)
            except DataChanged:
                _ask_catalog(workspace, source)
                raise
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
    return DatasetFiles.of(grouped(flat))


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


def _ask_catalog(workspace: ConnectedWorkspace, output: OutputSource) -> None:
    """Raise :exc:`.DataChanged` when the catalog knows why an output cannot be read: a plan has deleted it, perhaps."""
    if not workspace.config.is_in_job and find_spec(
        "sqlalchemy"
    ):  # else this is a script's own environment, where nobody asks a catalog
        with suppress(StorageError):  # it does not answer: what was found has to be enough
            workspace.catalog.check_readable([output.output_id])


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
            StoredFile(
                below + each.path if each.path else path,
                each.size_bytes,
                each.etag,
                checksum=each.checksum if ":" in each.checksum else f"xxh3:{each.checksum}",
            ),
            each.path or path.rpartition("/")[2],
        )
        for each in manifest.entries
    )


def grouped(files: Sequence[tuple[FileSource, Placement]]) -> Groups:
    """Neighbours of one source together, order kept."""
    groups: list[tuple[FileSource, list[Placement]]] = []
    for source, placement in files:
        if not groups or groups[-1][0] is not source:
            groups.append((source, []))
        groups[-1][1].append(placement)
    return tuple((source, tuple(group)) for source, group in groups)
