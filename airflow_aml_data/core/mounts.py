"""``FileDataset.mount``: the files of a dataset below a local folder, for as long as somebody needs them, outside steps."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from airflow_aml_data.core.listing import DatasetFiles
from airflow_aml_data.core.storage.files import remove_tree
from airflow_aml_data.core.transfer import download
from airflow_aml_data.errors import FilesExist


class MountContext:
    """Files that can be read below :attr:`mount_point` between :meth:`start` and :meth:`stop`, or in a ``with`` block.

    Here, outside steps, they are copies without permission to write, so nothing done to them reaches the stored files.

    :param find: Lists the files; called by :meth:`start`.
    :param mount_point: A folder that is empty or does not exist; None: a new temporary one.
    :raises FilesExist: when something is in the folder.

    Source: v1, ``FileDataset.mount``, semantics section 9.
    """

    def __init__(self, find: Callable[[], DatasetFiles], mount_point: str | Path | None = None) -> None:
        temporary = Path(tempfile.gettempdir(), f"aml_data_mount_{uuid.uuid4().hex}")
        self._folder = Path(mount_point).absolute() if mount_point else temporary
        self._find = find
        self._was_there: bool | None = None
        self._refuse_content()

    def __repr__(self) -> str:
        return f"MountContext({self.mount_point!r})"

    @property
    def mount_point(self) -> str:
        """The absolute path of the folder."""
        return str(self._folder)

    def start(self) -> None:
        """Make the files readable; nothing happens when they are."""
        if self._was_there is not None:
            return
        self._refuse_content()
        files = self._find()
        was_there = self._folder.is_dir()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            download(files, self._folder, show_progress=False)
            for inner, _, names in os.walk(self._folder, topdown=False):
                for name in names:
                    Path(inner, name).chmod(0o444)
                Path(inner).chmod(0o555)
        except BaseException:
            self._remove(was_there)
            raise
        self._was_there = was_there

    def stop(self) -> None:
        """Remove the files, and the folder when :meth:`start` made it."""
        if self._was_there is not None:
            self._remove(self._was_there)
            self._was_there = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def _remove(self, keep_folder: bool) -> None:
        remove_tree(self._folder)
        if keep_folder:
            self._folder.mkdir()

    def _refuse_content(self) -> None:
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            return
        if os.path.lexists(self._folder):
            raise FilesExist(
                "Dataset mount point must be empty, mounting dataset to non-empty folder is not supported. "
                f"Something is at {self.mount_point!r}."
            )
