"""A private folder of a step run on this machine, and what it shows at places outside; gone with the step."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_aml_data.core.storage.files import remove_tree
from airflow_aml_data.errors import FilesExist, StorageError

log = logging.getLogger(__name__)


@contextmanager
def scratch_folder(step_run_id: str, root: Path | None = None) -> Iterator[Path]:
    """A private folder for one step run, removed at the end.

    Folders that killed step runs of this machine have left are removed first: their lock is free.

    :param root: None: a folder of this user in the system's temporary folder.
    """
    root = root or Path(tempfile.gettempdir(), f"airflow_aml_data_{os.getuid()}")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise StorageError(
            f"The scratch folder {root} belongs to somebody else. Remove it, or set TMPDIR to another folder."
        )
    folder = root / step_run_id
    with (root / "lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        _remove_abandoned(root)
        folder.mkdir(mode=0o700)
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        _remove_scratch(folder)
        lock.close()


def show_at(name: str, folder: Path, place: Path, scratch: Path) -> None:
    """Make an input appear outside the scratch folder, until that is removed."""
    places = scratch / "places"
    places.mkdir(exist_ok=True)
    (places / name).symlink_to(place)
    try:
        if place.is_dir():
            place.rmdir()
        place.symlink_to(folder)
    except OSError as error:
        raise FilesExist(
            f"Input {name!r} cannot appear at {place}: {error.strerror}. Choose another path_on_compute."
        ) from error


def _remove_abandoned(root: Path) -> None:
    for lock_file in root.glob("*/lock"):
        try:
            with lock_file.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_scratch(lock_file.parent)
        except (BlockingIOError, FileNotFoundError):
            continue  # its step runs, or has ended just now


def _remove_scratch(folder: Path) -> None:
    """Remove a scratch folder, and what it keeps at places outside; the lock last, so that a rest is found again."""
    try:
        for each in sorted(folder.glob("places/*")):
            place = each.readlink()
            if place.is_symlink() and place.readlink().is_relative_to(folder):
                place.unlink()
        for each in folder.iterdir():
            if each.name != "lock":
                remove_tree(each)
        remove_tree(folder)
    except OSError as error:
        log.warning("Scratch folder %s could not be removed: %s", folder, error)
