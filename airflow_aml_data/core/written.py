"""What a script left in the folder of an output. Standard library only: a job looks at it where the script ran."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from airflow_aml_data.errors import OutputUnusable


def written_files(
    name: str, local: Path, *, is_own: bool = False, source_globs: Sequence[str] | None = None
) -> list[tuple[str, str]]:
    """Everything in it, sorted by path: the path relative to it, ``""`` when it is a file itself, and the whole path.

    :param name: The output's.
    :param is_own: It is a folder of the author's own, and stays as it is: else links are replaced by the files they lead to.
    :param source_globs: Only files whose absolute path matches one of these; None: all.
    :raises OutputUnusable: when there is nothing, or something that cannot be stored.
    """
    try:
        if local.is_symlink() and not is_own:
            raise OutputUnusable(
                f"Output {name!r}: the script put a symbolic link in the place of its output folder {local}. What lies "
                "outside the output folder is not stored: copy it there."
            )
        if local.is_file():
            paths = [""]
        elif local.is_dir():
            paths = sorted(_regular_files(name, str(local), "", is_own))
        else:
            raise OutputUnusable(
                f"Output {name!r}: the script removed its output folder {local}. "
                "It may empty the folder, but must leave the results in it."
            )
    except PermissionError as error:
        raise not_readable(name, error) from error
    if source_globs is not None:
        paths = [each for each in paths if any(fnmatch.fnmatchcase(f"{local}/{each}", glob) for glob in source_globs)]
    if not paths:
        raise nothing_written(name, local, source_globs)
    return [(each, f"{local}/{each}" if each else str(local)) for each in paths]


def nothing_written(name: str, local: Path, source_globs: Sequence[str] | None) -> OutputUnusable:
    """The error about an output without a file."""
    return OutputUnusable(
        f"Output {name!r} holds no file"
        + (f" that matches source_globs {list(source_globs)!r}" if source_globs else "")
        + f". The script must write to the path it is given, {local}: the argument that stands for the output, or "
        f"Run.get_context().output_datasets[{name!r}]. Nothing of this step was published."
    )


def not_readable(name: str, error: PermissionError) -> OutputUnusable:
    """The error about a file that its owner may not read."""
    return OutputUnusable(
        f"Output {name!r}: {error.filename!r} cannot be read. The script must leave its files readable."
    )


def _regular_files(name: str, root: str, inner: str, is_own: bool) -> Iterator[str]:
    """The paths of all files below ``root``, relative to it. Text all the way: there may be 100,000."""
    with os.scandir(f"{root}/{inner}") as entries:
        for entry in entries:
            path = f"{inner}{entry.name}"
            if entry.is_symlink():
                _check_link(name, Path(root), Path(entry.path))
                if not is_own:
                    target = os.path.realpath(entry.path)
                    Path(entry.path).unlink()
                    shutil.copy2(target, entry.path)
                yield path
            elif entry.is_dir():
                yield from _regular_files(name, root, f"{path}/", is_own)
            elif entry.is_file():
                yield path
            else:
                raise OutputUnusable(
                    f"Output {name!r}: {path!r} is a device, socket or pipe, which cannot be stored. "
                    "Remove it in the script."
                )


def _check_link(name: str, root: Path, link: Path) -> None:
    """Refuse a symbolic link to anything but a file of the output."""
    target = Path(os.path.realpath(link))
    if not target.is_relative_to(os.path.realpath(root)) or not target.is_file():
        raise OutputUnusable(
            f"Output {name!r}: {str(link.relative_to(root))!r} is a symbolic link to {str(link.readlink())!r}, which is not a file "
            "inside the output. What lies outside the output folder is not stored: copy it there."
        )
