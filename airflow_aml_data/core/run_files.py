"""The files of a run: what its script writes below ``./outputs`` and ``./logs``, and what it uploads by name.

Standard library only: both the step and the interpreter of its script look at them.

Source: v1, where both folders are uploaded to the run automatically.
"""

from __future__ import annotations

import filecmp
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from airflow_aml_data.core.identity import check_relative_path
from airflow_aml_data.core.storage.files import link
from airflow_aml_data.errors import FilesExist, InvalidPath

log = logging.getLogger(__name__)

RUN_FILES = "run_files"
"""Name of the output that run files become."""

_FOLDERS = ("outputs", "logs")

State = Mapping[str, Sequence[int]]
"""Path of a file to what changes when it is written again."""


def folder_state(work: Path) -> dict[str, list[int]]:
    """The state of the files that are in the folders of run files already, before the script starts."""
    return {name: _state(file) for name, file in _files(work)}


def written_files(work: Path, before: State) -> dict[str, Path]:
    """Name to path of the files that are new or changed since :func:`folder_state`."""
    return {name: file for name, file in _files(work) if before.get(name) != _state(file)}


def stored_files(folder: Path) -> dict[str, Path]:
    """Name to path of the files that were added by :func:`add_file`."""
    return {str(each.relative_to(folder)): each for each in sorted(folder.rglob("*")) if each.is_file()}


def add_file(folder: Path, name: str, source: Path) -> None:
    """Copy a file below the folder of run files, now.

    :param name: v1's name of it: a relative path.
    :raises InvalidPath: for a name that is none.
    :raises FilesExist: when another file has that name. Source: v1.
    """
    clean = check_relative_path(name)
    if not clean:
        raise InvalidPath(
            f"{name!r} cannot name a file of the run: it is a relative path, such as 'outputs/model.pkl'."
        )
    target = folder / clean
    if target.is_file() and not filecmp.cmp(source, target, shallow=False):
        raise FilesExist(f"The run has another file named {clean!r} already. Upload this one under another name.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def gather(work: Path, before: State, folder: Path, elsewhere: Sequence[Path] = ()) -> bool:
    """Put what the script wrote beside what it uploaded; a name it used for an upload stays the upload's.

    :param elsewhere: Folders that are outputs of their own.
    :returns: Whether there are any files.
    """
    for name, file in written_files(work, before).items():
        target = folder / name
        if not target.exists() and not any(file.is_relative_to(each) for each in elsewhere):
            target.parent.mkdir(parents=True, exist_ok=True)
            if not link(Path(os.path.realpath(file)), target):
                shutil.copyfile(file, target)
    return bool(stored_files(folder))


def _state(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def _files(work: Path) -> Iterator[tuple[str, Path]]:
    for top in _FOLDERS:
        for folder, names, file_names in os.walk(work / top):
            for name in sorted([*file_names, *(each for each in names if Path(folder, each).is_symlink())]):
                file = Path(folder, name)
                if file.is_file():
                    yield str(file.relative_to(work)), file
                else:
                    log.warning("%s is no file and no folder of its own, and is not kept with the run's files.", file)
