"""Whether what is about to be written has room on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from airflow_aml_data.core.storage.base import FileSource, Placement
from airflow_aml_data.core.storage.local import LocalStorage
from airflow_aml_data.core.storage.shipped import ShippedStorage
from airflow_aml_data.errors import StorageError


def size_of(placements: Iterable[Placement]) -> int:
    """Bytes that files take once each, however often they are named."""
    return sum({each.target: each.file.size_bytes for each in placements}.values())


def copied_bytes(groups: Iterable[tuple[FileSource, Iterable[Placement]]]) -> int:
    """What :meth:`.FileSource.mount` puts on the disk: local stores link to their files, the others copy."""
    return sum(size_of(group) for source, group in groups if not isinstance(source, LocalStorage | ShippedStorage))


def require_room(folder: Path, size_bytes: int, what: str) -> None:
    """Refuse to begin writing what the file system has no room for.

    :param folder: Where it will be written; it need not exist yet.
    :param what: For the message, such as ``The download``.
    :raises StorageError: of ``errno.ENOSPC``: a retry may run on a machine, or at a time, with more room.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    status = os.statvfs(existing)
    free = status.f_bavail * status.f_frsize
    if size_bytes > free:
        raise StorageError(
            errno.ENOSPC,
            f"{what} needs {size_bytes:,} bytes in {folder}, and {free:,} bytes are free there. Nothing was written. Free "
            "some space, name a folder on a larger disk, or choose fewer files",
        )
