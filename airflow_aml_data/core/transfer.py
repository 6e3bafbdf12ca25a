"""Moving files between stores and local folders, with progress that a log can show."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_aml_data.core.identity import check_relative_path
from airflow_aml_data.core.room import require_room, size_of
from airflow_aml_data.errors import FilesExist, FilesNotFound, InvalidDeclaration

if TYPE_CHECKING:
    from airflow_aml_data.core.listing import DatasetFiles
    from airflow_aml_data.core.storage.base import Placement, Storage

log = logging.getLogger(__name__)

_REPORT_EVERY_SECONDS = 5.0


class Meter:
    """Counts what has been moved and logs it: every few seconds, and at the end.

    :param what: Begins each line, such as ``Input 'raw' (download)``.
    :param total_files: How many there will be; 0 when it is not known.
    """

    def __init__(
        self,
        what: str,
        total_files: int = 0,
        *,
        report: Callable[[str], None] = log.info,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total_files = what, total_files
        self.files = self.size_bytes = 0
        self._report, self._clock = report, clock
        self._started = self._reported = clock()

    def __call__(self, files: int, size_bytes: int) -> None:
        self.files += files
        self.size_bytes += size_bytes
        if self._clock() - self._reported >= _REPORT_EVERY_SECONDS:
            self._reported = self._clock()
            self._report(self._line("moving"))

    def done(self) -> None:
        """Log the sum."""
        self._report(self._line("done"))

    def _line(self, state: str) -> str:
        seconds = max(self._clock() - self._started, 1e-3)
        of = f" of {self.total_files:,}" if self.total_files and state != "done" else ""
        return (
            f"{self.what}: {state}, {self.files:,}{of} files, {readable_bytes(self.size_bytes)} in {seconds:.1f} s "
            f"({readable_bytes(int(self.size_bytes / seconds))}/s)"
        )


def readable_bytes(size: float) -> str:
    """A size as people read it.

    >>> readable_bytes(999), readable_bytes(123_456_789)
    ('999 B', '117.7 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def download(
    files: DatasetFiles,
    folder: Path,
    *,
    overwrite: bool = False,
    show_progress: bool = True,
) -> list[str]:
    """Copy the files of a dataset below a local folder.

    :returns: Absolute paths, in the dataset's order.
    :raises FilesExist: when ``overwrite`` is False and a file is there. Nothing has been written then.
    :raises StorageError: when the disk has no room for them. Nothing has been written then, either.
    """
    placements = files.placements
    refuse_collisions(files)
    if not overwrite:
        for each in placements:
            if os.path.lexists(folder / each.target):
                raise FilesExist(
                    f'File "{folder / each.target}" already exists. Set overwrite=True to overwrite it, or choose an empty target path.'
                )
    for each in placements:
        _refuse_file_as_folder(folder / each.target, folder)
    require_room(folder, size_of(placements), "The download")
    meter = Meter(f"Download to {folder}", len(placements), report=log.info if show_progress else log.debug)
    for source, group in files.groups:
        unique = {each.target: each for each in group}
        source.download(list(unique.values()), folder, meter)
    meter.done()
    return [str(folder / each.target) for each in placements]


def copy(
    files: Sequence[Placement], source: Storage, storage: Storage, target_path: str | None, *, overwrite: bool
) -> str:
    """Copy files of one store to another, or to another folder of it; inside an account the service does.

    :param target_path: The folder that the files' targets are below; None: the root.
    :returns: That folder.
    :raises FilesExist: when ``overwrite`` is False and a file is there. Nothing has been written then.
    """
    target = check_relative_path(target_path)
    pairs = [(each.file, f"{target}/{each.target}".lstrip("/")) for each in files]
    if not overwrite:
        wanted = {path for _, path in pairs}
        taken = next((each.path for each in storage.list_files(target) if each.path in wanted), None)
        if taken is not None:
            raise FilesExist(
                f"{taken!r} is on datastore {storage.name!r} already. Set overwrite=True to overwrite it, or choose another target_path."
            )
    meter = Meter(f"Copy from {source.name} to {storage.name}", len(pairs))
    storage.copy(pairs, source, progress=meter)
    meter.done()
    return target


def refuse_collisions(files: DatasetFiles) -> None:
    """Refuse two different stored files that would have one local path.

    :raises FilesExist: naming both.
    """
    if files.whole_folder:
        return  # they stand in one folder already
    taken: dict[str, tuple[str, str]] = {}
    folders: set[str] = set()
    for store, group in files.groups:
        for each in group:
            source = (store.name, each.file.path)
            if taken.setdefault(each.target, source) != source:
                first = taken[each.target]
                raise FilesExist(
                    f"{first[1]!r} on {first[0]!r} and {source[1]!r} on {source[0]!r} would both become {each.target!r}. "
                    "Make two datasets of them."
                )
            parent = os.path.dirname(each.target)  # noqa: PTH120 - one of 100,000
            while parent and parent not in folders:
                folders.add(parent)
                parent = os.path.dirname(parent)  # noqa: PTH120
    if both := sorted(folders & taken.keys()):
        raise FilesExist(f"{both[0]!r} would be a file and a folder at once. Make two datasets of them.")


def upload(
    storage: Storage,
    files: Sequence[Path],
    relative_root: Path | None,
    target_path: str | None,
    *,
    overwrite: bool,
    show_progress: bool = True,
) -> str:
    """Copy local files to a store, keeping their paths below ``relative_root``.

    :param relative_root: None: the folder all of them are in.
    :returns: The folder on the store.
    :raises FilesExist: when ``overwrite`` is False and another file is there. Nothing has been written then.
    """
    target = check_relative_path(target_path)
    for each in files:
        if not each.is_file():
            raise FilesNotFound(f"{str(each)!r} is not a file.")
    absolute = [each.absolute() for each in files]
    root = relative_root.absolute() if relative_root else _common_folder(absolute)
    pairs = []
    for each in absolute:
        if not each.is_relative_to(root):
            raise InvalidDeclaration(f"{str(each)!r} is not below relative_root {str(root)!r}.")
        pairs.append((each, f"{target}/{each.relative_to(root).as_posix()}".lstrip("/")))
    meter = Meter(f"Upload to {target or '/'}", len(pairs), report=log.info if show_progress else log.debug)
    storage.upload(pairs, overwrite=overwrite, progress=meter)
    meter.done()
    return target


def _refuse_file_as_folder(target: Path, root: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        raise FilesExist(f"{str(target)!r} is a folder, and a file would have to take its place.")
    for parent in target.parents:
        if parent.is_dir():
            return
        if os.path.lexists(parent):
            raise FilesExist(f"{str(parent)!r} is a file, and a folder would have to take its place.")
        if parent == root:
            return


def _common_folder(files: Sequence[Path]) -> Path:
    folder = files[0].parent if files else Path.cwd()
    while not all(each.is_relative_to(folder) for each in files):
        folder = folder.parent
    return folder
