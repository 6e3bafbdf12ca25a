"""What a remote store can be asked in one request; everything else is made of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from airflow_aml_data.core.storage.base import StoredFile, Survey
from airflow_aml_data.errors import AmlDataError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class ObjectClient(Protocol):
    """Single requests to a remote store; paths are relative to the datastore's root.

    Nothing is retried here, except between the blocks of one large file. Calls raise :exc:`.StorageError` for what a retry may
    cure (with ``retry_after_seconds`` when the server said so), :exc:`.StorageRefused` for what it cannot, naming the
    connection and the permission or thing that is missing, :exc:`.FilesNotFound` for a missing file and
    :exc:`.DataChanged` when an etag no longer matches. No text of theirs holds a credential.
    """

    @property
    def account(self) -> str:
        """What can copy among itself without a byte passing through this machine: equal for equal accounts."""

    @property
    def location(self) -> str:
        """Address of the root, without credentials, no slash at the end."""

    @property
    def is_encrypted(self) -> bool:
        """Whether what is sent is protected on its way, against errors too."""

    def describe(self) -> str:
        """Container or share, account and connection, for messages."""

    def check_name(self, path: str) -> None:
        """Raise :exc:`.InvalidPath` for a path under which the store cannot keep a file; nothing is asked of it."""

    def name_key(self, path: str) -> str:
        """Equal for paths that are the same file there, whatever the case of their letters."""

    def check(self) -> None:
        """Raise when the files cannot be listed."""

    def list_files(self, prefix: str) -> Iterator[StoredFile]:
        """Every file below a folder, streamed, or the file itself; no marks of folders.

        Each has an etag without quotes, the time of its last change, and a checksum ``md5:`` where the store keeps one.
        """

    def survey(self, prefix: str) -> Iterator[Survey]:
        """The same in large parts, with little of each file; marks of folders may be among them, and the reserved folder is."""

    def read(self, file: StoredFile, start: int, length: int) -> Buffer:
        """Bytes of a file from ``start`` on; only of the version with the file's etag when it has one."""

    def write(self, path: str, content: Buffer, metadata: Mapping[str, str]) -> StoredFile:
        """Create or replace a small file."""

    def write_large(self, path: str, local: Path, size_bytes: int, metadata: Mapping[str, str]) -> StoredFile:
        """Create or replace a file in blocks; nobody sees it before it is whole."""

    def metadata(self, path: str) -> Mapping[str, str] | None:
        """What :meth:`write` was given; None when there is no such file."""

    def copy(self, file: StoredFile, path: str, source: ObjectClient) -> StoredFile:
        """Copy a file of the same :attr:`account`, with its metadata, on the server."""

    def delete(self, files: Sequence[StoredFile]) -> Sequence[AmlDataError | None]:
        """Remove up to 256 files, those with an etag only if they still have it.

        :returns: For each why it was not removed: :exc:`.FilesNotFound`, :exc:`.DataChanged`, :exc:`.FileKept`, or what would be raised
            for this file alone. None: it was.
        """

    def remove_folder(self, folder: str) -> bool | None:
        """Remove a folder, or what stands for one, when it is empty; whether it is gone. None: there was nothing to remove."""

    @property
    def has_folders(self) -> bool:
        """Whether every folder is something that can be removed; else few are, if any, for files need none."""
