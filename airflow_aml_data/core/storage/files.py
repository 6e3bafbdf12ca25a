"""File-system work that many processes do at once, on file systems that lack one thing or another."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_ATTEMPTS = 100
_NO_HARD_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}


def remove_tree(folder: Path) -> None:
    """Remove a file or folder, also when its folders are read-only; nothing there is fine."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink(missing_ok=True)
    elif folder.is_dir():
        try:
            shutil.rmtree(folder)
        except PermissionError:
            _open_up(folder)
            shutil.rmtree(folder)


def _open_up(folder: Path) -> None:
    make_writable(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _open_up(Path(entry.path))


def make_writable(folder: Path) -> None:
    if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        folder.chmod(0o755)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, whatever others remove at the same time because it is empty."""
    for _ in range(_ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError):  # the latter: it was there, and then it was not
            continue
        return
    folder.mkdir(parents=True, exist_ok=True)


def in_folder(folder: Path, action: Callable[[], None]) -> None:
    """Do something that needs a folder, which others may remove as long as it is empty."""
    for _ in range(_ATTEMPTS):
        make_folder(folder)
        try:
            action()
        except FileNotFoundError:
            if folder.exists():
                raise
            continue
        return


def files_below(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for inner, _, names in os.walk(folder):
        for name in names:
            yield Path(inner, name)


def link(source: Path, target: Path) -> bool:
    """Hard-link a file; False where that is not possible."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return False
    return True


def link_or_symlink(source: Path, target: Path) -> None:
    if not link(source, target):
        target.symlink_to(source)


def move(source: Path, target: Path) -> None:
    """Give a file or folder another name; a file that is there is replaced, atomically."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if source.is_dir():  # another file system is mounted below the root
            shutil.copytree(source, target)
            remove_tree(source)
            return
        partial = target.with_name(f".{uuid.uuid4().hex}.partial")
        try:
            shutil.copy2(source, partial)
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
        source.unlink()


@contextmanager
def partial_file(folder: Path) -> Iterator[Path]:
    """Where a file is written before it gets its name: in ``folder``, where no reader looks."""
    partial = folder / "partial" / uuid.uuid4().hex
    make_folder(partial.parent)
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """A folder for files before they get their names: in ``folder``, where no reader looks."""
    partial = folder / "partial" / uuid.uuid4().hex
    make_folder(partial)
    try:
        yield partial
    finally:
        remove_tree(partial)
