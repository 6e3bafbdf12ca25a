"""Where a script finds its inputs. Standard library only: a worker and a job look alike."""

from __future__ import annotations

import os
from pathlib import Path

from airflow_aml_data.errors import FilesExist


def make_room(name: str, place: Path) -> None:
    """Make the folder that an input is to appear in.

    :raises FilesExist: when something is at the place, but for an empty folder.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        free = not os.path.lexists(place) or (place.is_dir() and not place.is_symlink() and not any(place.iterdir()))
    except (FileExistsError, NotADirectoryError):
        free = False
    if not free:
        raise FilesExist(
            f"Input {name!r} cannot appear at {place}: something is there. Choose another path_on_compute."
        )
