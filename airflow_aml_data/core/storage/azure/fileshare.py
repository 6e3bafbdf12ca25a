"""Azure Files, through its SDK."""

from __future__ import annotations

import functools
import hashlib
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import HttpResponseError
from azure.storage.fileshare import ContentSettings, FileProperties, ShareDirectoryClient, ShareFileClient

from airflow_aml_data.core.identity import RESERVED_FOLDER
from airflow_aml_data.core.storage import retry
from airflow_aml_data.core.storage.azure.account import ACCOUNT_OPTIONS, azure_account
from airflow_aml_data.core.storage.azure.share import NOT_THERE, Share, error_code
from airflow_aml_data.core.storage.base import DatastoreConfig, StoredFile, Survey, check_options
from airflow_aml_data.core.storage.client import ObjectClient
from airflow_aml_data.core.storage.remote import RemoteStorage
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import AmlDataError, DataChanged, StorageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PARTIAL = f"{RESERVED_FOLDER}/partial"
_Page = tuple[list[StoredFile], list[tuple[str, str]]]
_RANGE_BYTES = 4 * 1024 * 1024  # the longest that Azure Files takes
_THREADS = 8
_COPY_POLL_SECONDS = 0.5


class _CannotCopy(Exception):
    """The service may not read the source on behalf of the credential."""


def open_fileshare(config: DatastoreConfig) -> RemoteStorage:
    """Connect to a share: kind ``azure_file``. Source of the options: v1, ``register_azure_file_share``."""
    check_options(config, {"file_share_name": str}, {**ACCOUNT_OPTIONS, "verify_uploads": bool})
    client = FileShareClient(Share(azure_account(config, "file"), config.options["file_share_name"]))
    return RemoteStorage(config.name, client, reads_back=config.options.get("verify_uploads"))


class FileShareClient:
    """One share; see :class:`.ObjectClient` for what each call does.

    A file is written under a name in the reserved folder and renamed when it is whole: Azure Files shows a file from its
    creation on, full of zeros. Folders are made when a file needs them, and removed when their last file is deleted.
    A listing of everything leaves the reserved folder out, which may hold a folder for each output ever made.
    """

    has_folders = True

    def __init__(self, share: Share) -> None:
        self._share = share
        self._folders: set[str] = set()  # that are known to be there

    def __repr__(self) -> str:
        return f"FileShareClient({self.location!r})"

    @property
    def account(self) -> str:
        return self._share.account.url.lower()

    @property
    def location(self) -> str:
        return self._share.url

    @property
    def is_encrypted(self) -> bool:
        return self.location.startswith("https:")

    def describe(self) -> str:
        return str(self._share)

    def check_name(self, path: str) -> None:
        self._share.check_name(path)

    def name_key(self, path: str) -> str:
        return path.lower()

    def check(self) -> None:
        with self._share.asked("list"):
            next(self._share.client.list_directories_and_files(results_per_page=1).by_page(), None)

    def list_files(self, prefix: str) -> Iterator[StoredFile]:
        requests = Requests()
        if prefix and (file := requests.one("Listing", lambda: self._find(prefix))):
            yield _stored(prefix, file)
            return
        left, running = [(prefix, "")], deque[Callable[[], _Page]]()
        while left or running:
            while left and len(running) < _THREADS:
                page = functools.partial(self._page, *left.pop())
                running.append(requests.start(functools.partial(requests.retry, "Listing", page)))
            files, more = running.popleft()()
            left += more
            yield from files

    def survey(self, prefix: str) -> Iterator[Survey]:
        return Survey.of(chain(self.list_files(prefix), () if prefix else self.list_files(RESERVED_FOLDER)))

    def read(self, file: StoredFile, start: int, length: int) -> Buffer:
        client = self._file(file.path)
        with self._share.asked("read", file.path):
            if file.size_bytes == 0:  # there is no range of it
                self._check_same(file, client.get_file_properties())
                return b""
            download = client.download_file(offset=start, length=length)
            self._check_same(file, download.properties)  # Azure Files knows no If-Match
            return download.readall()

    def write(self, path: str, content: Buffer, metadata: Mapping[str, str]) -> StoredFile:
        view = memoryview(content).cast("B")

        def fill(client: ShareFileClient) -> None:
            for start in range(0, len(view), _RANGE_BYTES):
                self._write_range(client, path, start, bytes(view[start : start + _RANGE_BYTES]))

        md5 = hashlib.md5(view, usedforsecurity=False).digest()
        return self._write(path, len(view), metadata, fill, md5)

    def write_large(self, path: str, local: Path, size_bytes: int, metadata: Mapping[str, str]) -> StoredFile:
        requests = Requests(_THREADS)
        with local.open("rb") as opened:

            def send(client: ShareFileClient, start: int) -> None:
                length = min(_RANGE_BYTES, size_bytes - start)
                content = os.pread(opened.fileno(), length, start)
                if len(content) != length:
                    raise DataChanged(f"{local} became shorter while it was read.")
                what = f"Writing {path!r} to {self.describe()}"
                requests.retry(what, lambda: self._write_range(client, path, start, content))

            def fill(client: ShareFileClient) -> None:
                requests.each(lambda start: send(client, start), range(0, size_bytes, _RANGE_BYTES))

            return self._write(path, size_bytes, metadata, fill)

    def metadata(self, path: str) -> Mapping[str, str] | None:
        found = self._find(path)
        return None if found is None else {name.lower(): value for name, value in found.metadata.items()}

    def copy(self, file: StoredFile, path: str, source: ObjectClient) -> StoredFile:
        if not isinstance(source, FileShareClient):
            raise TypeError(f"{source!r} is of another service")
        self._share.check_name(path)
        origin = source._file(file.path)
        try:
            with self._placing(path) as partial:
                with source._share.asked("copy", file.path):
                    self._copy(partial, path, origin.url)
                with source._share.asked("read", file.path):
                    self._check_same(file, origin.get_file_properties())  # still the version that was asked for
                return self._place(partial, path, file.size_bytes, file.checksum)
        except _CannotCopy:
            return self._copy_through(file, path, source)

    def delete(self, files: Sequence[StoredFile]) -> Sequence[AmlDataError | None]:
        with ThreadPoolExecutor(_THREADS, "aml-data-deletion") as pool:
            return list(pool.map(self._delete_file, files))

    def remove_folder(self, folder: str) -> bool | None:
        if folder in (RESERVED_FOLDER, _PARTIAL):
            return False
        self._folders.discard(folder)
        return self._delete(folder, self._share.client.get_directory_client(folder).delete_directory)

    def _file(self, path: str) -> ShareFileClient:
        return self._share.client.get_file_client(path)

    def _find(self, path: str) -> FileProperties | None:
        with self._share.asked("read", path):
            try:
                return self._file(path).get_file_properties()
            except HttpResponseError as error:
                if error_code(error) in NOT_THERE:
                    return None
                raise

    def _page(self, folder: str, marker: str) -> _Page:
        """Files of a page of a folder, and where to go on: folders, and markers of their next pages."""
        client = self._share.client.get_directory_client(folder)
        pages: Any = client.list_directories_and_files(include=["timestamps", "Etag"]).by_page(marker or None)
        with self._share.asked("list", folder):
            try:
                page = list(next(pages))
            except HttpResponseError as error:
                if error_code(error) in NOT_THERE:  # any more, when it was found in a folder
                    return [], []
                raise
        below = f"{folder}/" if folder else ""
        more = [(below + each.name, "") for each in page if each.is_directory and below + each.name != RESERVED_FOLDER]
        if pages.continuation_token:
            more.append((folder, pages.continuation_token))
        return [_stored(below + each.name, each) for each in page if not each.is_directory], more

    def _write(
        self,
        path: str,
        size_bytes: int,
        metadata: Mapping[str, str],
        fill: Callable[[ShareFileClient], None],
        md5: bytes | None = None,
    ) -> StoredFile:
        with self._placing(path) as partial:
            with self._share.asked("write", path):
                settings = ContentSettings(content_md5=bytearray(md5)) if md5 else None
                partial.create_file(size_bytes, content_settings=settings, metadata=dict(metadata))
            fill(partial)
            return self._place(partial, path, size_bytes, f"md5:{md5.hex()}" if md5 else "")

    def _write_range(self, client: ShareFileClient, path: str, start: int, content: bytes) -> None:
        with self._share.asked("write", path):
            client.upload_range(content, start, len(content))

    @contextmanager
    def _placing(self, path: str) -> Iterator[ShareFileClient]:
        """A file to be renamed to ``path`` when it is whole; removed on any error."""
        self._share.check_name(path)
        partial = self._file(f"{_PARTIAL}/{uuid.uuid4().hex}")
        try:
            for each in (_PARTIAL, _folder(path)):
                self._make_folder(each)
            yield partial
        except BaseException:
            self._folders.clear()  # one of them may have been removed
            with suppress(AmlDataError):  # what went wrong first is what counts
                self._delete(path, partial.delete_file)
            raise

    def _place(self, partial: ShareFileClient, path: str, size_bytes: int, checksum: str) -> StoredFile:
        headers: dict[str, str] = {}
        with self._share.asked("write", path):
            partial.rename_file(
                path,
                overwrite=True,
                raw_response_hook=lambda answer: headers.update(answer.http_response.headers),
            )
        return StoredFile(path, size_bytes, headers["ETag"].strip('"'), checksum=checksum)

    def _copy(self, client: ShareFileClient, path: str, url: str) -> None:
        try:
            status = str(client.start_copy_from_url(url)["copy_status"])
        except HttpResponseError as error:
            if error.status_code in (401, 403) or error_code(error) == "CannotVerifyCopySource":
                raise _CannotCopy from None
            raise
        check = retry.check()
        while status == "pending":
            check()
            sleep(_COPY_POLL_SECONDS)
            status = str(client.get_file_properties().copy.status)
        if status != "success":
            raise StorageError(f"The copy to {path!r} in {self.describe()} ended as {status!r}.")

    def _copy_through(self, file: StoredFile, path: str, source: FileShareClient) -> StoredFile:
        """Copy by way of this machine: not every credential that may read and write may have the service read."""

        def fill(client: ShareFileClient) -> None:
            for start in range(0, file.size_bytes, _RANGE_BYTES):
                content = source.read(file, start, min(_RANGE_BYTES, file.size_bytes - start))
                self._write_range(client, path, start, bytes(content))

        return self._write(path, file.size_bytes, source.metadata(file.path) or {}, fill)

    def _make_folder(self, folder: str) -> None:
        """Create a folder and those above it, unless they are known to be there."""
        if not folder or folder in self._folders:
            return
        client = self._share.client.get_directory_client(folder)
        with self._share.asked("write", folder):
            try:
                _create(client)
            except HttpResponseError as error:
                if error_code(error) != "ParentNotFound":
                    raise
                self._make_folder(_folder(folder))
                _create(client)
        self._folders.add(folder)

    def _delete_file(self, file: StoredFile) -> AmlDataError | None:
        """Delete a file that still has its etag. Azure Files knows no If-Match: what is written between the two requests goes too."""
        client = self._file(file.path)
        try:
            with self._share.asked("delete", file.path):
                if file.etag:
                    self._check_same(file, client.get_file_properties())
                client.delete_file()
        except AmlDataError as error:
            return error
        return None

    def _delete(self, path: str, request: Callable[[], object]) -> bool:
        """Delete a file, or a folder unless it holds something; whether it is gone."""
        with self._share.asked("delete", path):
            try:
                request()
            except HttpResponseError as error:
                if error_code(error) == "DirectoryNotEmpty":
                    return False
                if error_code(error) not in NOT_THERE:
                    raise
        return True

    def _check_same(self, file: StoredFile, found: FileProperties) -> None:
        if file.etag and _etag(found) != file.etag:
            raise DataChanged(f"{file.path!r} in {self.describe()} was changed since it was listed or committed.")


def _create(client: ShareDirectoryClient) -> None:
    """Create a folder, unless it is there: others make the same one at the same time."""
    try:
        client.create_directory()
    except HttpResponseError as error:
        if error_code(error) != "ResourceAlreadyExists":
            raise


def _stored(path: str, found: FileProperties) -> StoredFile:
    md5 = found.content_settings.content_md5 if found.content_settings else None
    return StoredFile(
        path,
        found.size,
        _etag(found),
        found.last_modified.timestamp() if found.last_modified else None,
        f"md5:{bytes(md5).hex()}" if md5 else "",
    )


def _etag(found: FileProperties) -> str:
    return (found.etag or "").strip('"')


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
