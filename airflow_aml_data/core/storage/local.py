"""A folder as a datastore: for the embedded workspace, and for disks that all workers share."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from airflow_aml_data.core.identity import RESERVED_FOLDER
from airflow_aml_data.core.manifest import LocalFile
from airflow_aml_data.core.storage.base import (
    DatastoreConfig,
    Deletion,
    Placement,
    Progress,
    Storage,
    StoredFile,
    Survey,
    check_inside,
    check_options,
)
from airflow_aml_data.core.storage.files import (
    in_folder,
    link,
    link_or_symlink,
    make_writable,
    move,
    partial_file,
    partial_folder,
    remove_tree,
)
from airflow_aml_data.core.storage.merge import merge, undo_folder, unmerge
from airflow_aml_data.errors import (
    DataChanged,
    FilesExist,
    FilesNotFound,
    InvalidConfiguration,
    InvalidPath,
    StorageError,
    UserError,
)

_BATCH_FILES = 256
_BATCH_BYTES = 64 * 1024 * 1024


def open_local(config: DatastoreConfig) -> LocalStorage:
    """Connect to a datastore of kind ``local``; the folder is made when it is first written to."""
    check_options(config, {"root": str})
    root = Path(config.options["root"])
    if not root.is_absolute():
        raise InvalidConfiguration(f"Datastore {config.name!r}: 'root' must be an absolute path, found {str(root)!r}.")
    return LocalStorage(config.name, root)


class LocalStorage:
    """Files below one folder. Outputs are renamed or hard-linked into place, never copied on one file system."""

    is_remote = False

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root

    def __repr__(self) -> str:
        return f"LocalStorage({self.name!r}, {str(self.root)!r})"

    @property
    def location(self) -> str:
        return Path(os.path.realpath(self.root)).as_uri()

    def check(self) -> str:
        """Say whether the folder can be read and written; it need not exist yet."""
        existing = self.root
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise StorageError(errno.ENOTDIR, f"Datastore {self.name!r}: {existing} is not a folder")
        if not os.access(existing, os.W_OK | os.X_OK | os.R_OK):
            raise StorageError(errno.EACCES, f"Datastore {self.name!r}: no permission to read and write {existing}")
        return f"{self.name} (local folder {self.root}, writable)"

    def list_files(self, path: str) -> Iterator[StoredFile]:
        return self._list(path, self._inside(path))

    def _list(self, path: str, start: Path) -> Iterator[StoredFile]:
        with self._errors(path):
            if start.is_file():
                status = start.stat()
                yield _stored(path, status.st_size, status.st_mtime_ns)
            elif start.is_dir():
                yield from self._walk(str(start), path)

    def survey(self, path: str) -> Iterator[Survey]:
        start = self._inside(path, reserved=True)
        return Survey.of(chain(self._list(path, start), () if path else self.list_reserved()))

    def list_reserved(self, path: str = RESERVED_FOLDER) -> Iterator[StoredFile]:
        return self._list(path, self._inside(path, reserved=True))

    def read_bytes(self, path: str) -> bytes:
        target = self._inside(path, reserved=True)
        with self._errors(path):
            return target.read_bytes()

    def read_range(self, file: StoredFile, start: int, length: int) -> bytes:
        target = self._inside(file.path)
        with self._errors(file.path), target.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if _etag(status.st_size, status.st_mtime_ns) != file.etag:
                raise DataChanged(f"{file.path!r} on datastore {self.name!r} was changed while it was read.")
            return os.pread(opened.fileno(), length, start)

    def write_bytes(self, path: str, content: bytes) -> None:
        target = self._inside(path, reserved=True)
        with self._errors(path), partial_file(self.root / RESERVED_FOLDER) as partial:
            partial.write_bytes(content)
            in_folder(target.parent, lambda: move(partial, target))

    def delete_files(self, paths: Iterable[str]) -> None:
        self.delete_unchanged(StoredFile(each, 0, "") for each in paths)

    def delete_unchanged(self, files: Iterable[StoredFile]) -> list[Deletion]:
        done, folders = [], set()
        for file in files:
            target = self._inside(file.path, reserved=True)
            with self._errors(file.path):
                done.append(self._delete(file, target))
            folders.add(target.parent)
        for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
            self._remove_empty(folder)
        return done

    def _delete(self, file: StoredFile, target: Path) -> Deletion:
        try:
            if file.etag and not _is_same(file, target):
                return Deletion(file, "changed")
            make_writable(target.parent)
            if file.etag and not target.is_symlink():  # which holds nothing, and may lead elsewhere from another folder
                return self._take_and_delete(file, target)
            target.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return Deletion(file, "missing")
        return Deletion(file, "deleted")

    def _take_and_delete(self, file: StoredFile, target: Path) -> Deletion:
        """Delete a file under a name that nobody else writes to; put it back when it was written again in the last moment."""
        with partial_file(self.root / RESERVED_FOLDER) as taken:
            move(target, taken)
            if _is_same(file, taken):
                return Deletion(file, "deleted")
            with suppress(FileExistsError):  # written again once more
                if not link(taken, target) and not target.exists():
                    move(taken, target)
        return Deletion(file, "changed")

    def download(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        self._place(placements, folder, progress, _copy)

    def mount(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        self._place(placements, folder, progress, link_or_symlink)

    def mount_folder(self, path: str, folder: Path) -> bool:
        folder.symlink_to(self._inside(path), target_is_directory=True)
        return True

    def upload(self, files: Sequence[tuple[Path, str]], *, overwrite: bool, progress: Progress) -> None:
        wanted = [(source, self._inside(path)) for source, path in files]
        if not overwrite:
            for source, target in wanted:
                if target.exists() and not filecmp.cmp(source, target, shallow=False):
                    raise FilesExist(
                        f'File "{target}" already exists and is different. Set overwrite=True to overwrite it, '
                        "or choose an empty target path."
                    )
            wanted = [(source, target) for source, target in wanted if not target.exists()]
        for source, target in wanted:
            with self._errors(str(target)), partial_file(self.root / RESERVED_FOLDER) as partial:
                _copy(source, partial)
                in_folder(target.parent, lambda: move(partial, target))  # noqa: B023 - called at once
            progress(1, target.stat().st_size)

    def copy(self, files: Sequence[tuple[StoredFile, str]], source: Storage, *, progress: Progress) -> None:
        for file, path in files:
            target = self._inside(path)
            with self._errors(path), partial_folder(self.root / RESERVED_FOLDER) as partial:
                source.download([Placement(file, "copy")], partial, progress)
                in_folder(target.parent, lambda: move(partial / "copy", target))  # noqa: B023 - called at once

    def staging_folder(self, step_run_id: str, name: str, scratch: Path) -> Path:
        folder = self._staging(step_run_id, name)
        with self._errors(str(folder)):
            in_folder(folder.parent, folder.mkdir)
        return folder

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
        target = self._inside(destination)
        with self._errors(destination):
            if exclusive and not target.exists():
                _keep_only(staged, {file.path for file in files})
                in_folder(target.parent, lambda: move(staged, target))
            else:
                merge(staged, [file.path for file in files], target, overwrite, self._refuse_escape)
        stored = [_stored(_join(destination, file.path), file.size_bytes, file.mtime_ns) for file in files]
        progress(len(stored), sum(each.size_bytes for each in stored))
        return stored

    def take_back(self, step_run_id: str, name: str, destination: str, *, exclusive: bool) -> None:
        target, staged = self._inside(destination), self._staging(step_run_id, name)
        with self._errors(destination):
            if exclusive:
                remove_tree(target)
                self._remove_empty(target.parent, step_run_id)
            unmerge(staged, target)
        self.drop_staging(step_run_id, name)

    def drop_staging(self, step_run_id: str, name: str) -> None:
        staged = self._staging(step_run_id, name)
        with self._errors(str(staged)):
            remove_tree(undo_folder(staged))
            remove_tree(staged)
            self._remove_empty(staged.parent, step_run_id)

    def output_folder(self, path: str) -> Path:
        folder = self._inside(path)
        with self._errors(path):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _staging(self, step_run_id: str, name: str) -> Path:
        return self.root / RESERVED_FOLDER / "staging" / step_run_id / name

    def _place(
        self,
        placements: Sequence[Placement],
        folder: Path,
        progress: Progress,
        put: Callable[[Path, Path], None],
    ) -> None:
        parents: set[str] = set()
        files = size = 0
        for placement in placements:
            source = self.root / placement.file.path
            target = folder / placement.target
            with self._errors(placement.file.path):
                if (parent := os.path.dirname(target)) not in parents:  # noqa: PTH120 - one of 100,000
                    parents.add(parent)
                    Path(parent).mkdir(parents=True, exist_ok=True)
                put(source, target)
            files, size = files + 1, size + placement.file.size_bytes
            if files >= _BATCH_FILES or size >= _BATCH_BYTES:
                progress(files, size)
                files = size = 0
        progress(files, size)

    def _walk(self, folder: str, path: str) -> Iterator[StoredFile]:
        below = f"{path}/" if path else ""
        with os.scandir(folder) as entries:
            for entry in entries:  # text and no more: there may be 100,000
                if entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield _stored(below + entry.name, status.st_size, status.st_mtime_ns)
                elif entry.is_symlink():
                    yield self._linked(below + entry.name, Path(entry.path))
                elif entry.is_dir() and below + entry.name != RESERVED_FOLDER:
                    yield from self._walk(entry.path, below + entry.name)

    def _linked(self, path: str, link: Path) -> StoredFile:
        self._refuse_escape(link)
        if not link.is_file():
            raise InvalidPath(
                f"{path!r} on datastore {self.name!r} is a symbolic link to {str(link.readlink())!r}, which is not a file. "
                "Replace the link by the data."
            )
        status = link.stat()
        return _stored(path, status.st_size, status.st_mtime_ns)

    def _inside(self, path: str, reserved: bool = False) -> Path:
        """The local path of ``path``, after checking that it cannot leave the root."""
        target = self.root / check_inside(path, self.name, reserved=reserved)
        self._refuse_escape(target)
        return target

    def _refuse_escape(self, target: Path) -> None:
        if not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(self.root)):
            raise InvalidPath(
                f"{str(target)!r} leads out of datastore {self.name!r} through a symbolic link. Replace the link by the data."
            )

    def _remove_empty(self, folder: Path, within: str = "") -> None:
        """Remove ``folder`` and its parents below the root while they are empty.

        :param within: Only folders with this in their path: others may be about to put something in the rest.
        """
        while folder != self.root and folder.is_relative_to(self.root) and within in str(folder.relative_to(self.root)):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            folder = folder.parent

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        """Turn the system's errors into ours, with the datastore's name."""
        try:
            yield
        except (StorageError, UserError):
            raise
        except FileNotFoundError as error:
            raise FilesNotFound(f"{error.filename or path!r} is not on datastore {self.name!r} any more.") from error
        except OSError as error:
            where = error.filename or path
            raise StorageError(error.errno, f"Datastore {self.name!r}: {error.strerror}: {where!r}") from error


def _keep_only(staged: Path, wanted: set[str]) -> None:
    """Remove what is not to be published: files left out by ``source_globs``, and empty folders."""
    make_writable(staged)  # a folder that is moved needs it
    for inner, _, names in os.walk(staged, topdown=False):
        below = "" if inner == str(staged) else f"{os.path.relpath(inner, staged)}/"
        for name in names:
            if below + name not in wanted:
                make_writable(Path(inner))
                Path(inner, name).unlink()
        if below and not os.listdir(inner):  # noqa: PTH208 - one of many
            Path(inner).rmdir()


def _stored(path: str, size_bytes: int, mtime_ns: int) -> StoredFile:
    return StoredFile(path, size_bytes, _etag(size_bytes, mtime_ns), mtime_ns / 1e9)


def _is_same(file: StoredFile, found: Path) -> bool:
    status = found.stat()
    return _etag(status.st_size, status.st_mtime_ns) == file.etag


def _etag(size_bytes: int, mtime_ns: int) -> str:
    return f"{mtime_ns:x}-{size_bytes:x}"


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}".strip("/") if name else folder


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
