"""Publish files into a folder that others use too, so that it can be undone at any moment."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from airflow_aml_data.core.storage.files import files_below, in_folder, link, move, partial_file
from airflow_aml_data.errors import OutputConflict


def merge(staged: Path, files: Sequence[str], target: Path, overwrite: bool, check: Callable[[Path], None]) -> None:
    """Hard-link staged files into a folder that others use too; what is needed to undo it stays in the staging area.

    That is: the staged files themselves, which are the same files as those in place; each file that was replaced;
    and where links are not possible, so that staged files are moved, a mark for each of those.

    :param check: Raises for a folder that leads out of the datastore.
    :raises OutputConflict: when ``overwrite`` is False and a file is there. Nothing has changed then.
    """
    taken = [] if overwrite else [file for file in files if os.path.lexists(target / file)]
    if taken:
        raise OutputConflict(
            f"{len(taken)} of {len(files)} files are at the destination {str(target)!r} already, the first is "
            f"{taken[0]!r}, and overwrite is False. Use as_upload(overwrite=True), or put {{run-id}} in the destination."
        )
    try:
        for file in files:
            check((target / file).parent)
            try:
                in_folder((target / file).parent, lambda: _merge_file(staged, file, target))  # noqa: B023
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise OutputConflict(
                    f"{file!r} cannot be stored in {str(target)!r}: a file is in the place of a folder, or a folder in the "
                    "place of a file. Put {run-id} in the destination."
                ) from error
    except BaseException:
        unmerge(staged, target)
        raise


def unmerge(staged: Path, target: Path) -> None:
    """Undo a merge, also a half one: remove what is ours, put back what it replaced."""
    undo = undo_folder(staged)
    moved, replaced = undo / "moved", undo / "replaced"
    ours = [file.relative_to(staged) for file in files_below(staged)]
    ours = [each for each in ours if _is_same(staged / each, target / each)]
    for mark in files_below(moved):
        file = mark.relative_to(moved)
        if not os.path.lexists(staged / file) and os.path.lexists(target / file):
            ours.append(file)
    for file in ours:
        if (replaced / file).exists():
            move(replaced / file, target / file)
        else:
            (target / file).unlink()


def undo_folder(staged: Path) -> Path:
    """Where what is needed to undo a merge is kept."""
    return staged.with_name(f"{staged.name}.undo")  # no output's name holds a dot


def _merge_file(staged: Path, file: str, target: Path) -> None:
    source, place = staged / file, target / file
    replaces = os.path.lexists(place)
    if replaces:
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
        kept = undo_folder(staged) / "replaced" / file
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not link(place, kept):
            with partial_file(undo_folder(staged)) as partial:
                shutil.copy2(place, partial)
                partial.replace(kept)
    with partial_file(undo_folder(staged)) as partial:
        if not link(source, partial if replaces else place):
            mark = undo_folder(staged) / "moved" / file
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            move(source, place)
        elif replaces:
            move(partial, place)


def _is_same(file: Path, other: Path) -> bool:
    try:
        return os.path.samestat(file.lstat(), other.lstat())
    except OSError:
        return False
