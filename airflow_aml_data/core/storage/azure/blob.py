"""Azure Blob storage and Azure Data Lake Storage Gen2, which is the same service under another name, through obstore."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import obstore
from obstore.exceptions import BaseError, PreconditionError, UnauthenticatedError
from obstore.store import AzureStore

from airflow_aml_data.core.storage import retry
from airflow_aml_data.core.storage.azure.account import ACCOUNT_OPTIONS, azure_account, obstore_options
from airflow_aml_data.core.storage.azure.deleting import delete_blobs
from airflow_aml_data.core.storage.azure.listing import list_page, list_pages, survey_pages
from airflow_aml_data.core.storage.azure.rest import (
    CONNECT_SECONDS,
    REQUEST_SECONDS,
    Action,
    Container,
)
from airflow_aml_data.core.storage.azure.sas import ObstoreSas
from airflow_aml_data.core.storage.azure.tokens import ObstoreTokens
from airflow_aml_data.core.storage.base import DatastoreConfig, StoredFile, Survey, check_options
from airflow_aml_data.core.storage.client import ObjectClient
from airflow_aml_data.core.storage.remote import RemoteStorage
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import AmlDataError, FileKept, FilesNotFound, InvalidPath, StorageError

if TYPE_CHECKING:
    from obstore import GetOptions
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

T = TypeVar("T")

_BLOCK_BYTES = 4 * 1024 * 1024
_BLOCKS_AT_ONCE = 5
_MOST_BLOCKS = 50_000  # of one blob
_BLOCK_RETRIES = 5
_COPY_POLL_SECONDS = 0.5
_NOT_A_PATH = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f\\\ud800-\udfff]")
"""What the service or obstore would make another name of."""
_STATUS = re.compile(r"status code: (\d{3})")
"""In obstore's texts."""


def open_blob(config: DatastoreConfig) -> RemoteStorage:
    """Connect to a container: kind ``azure_blob``. Source of the options: v1, ``register_azure_blob_container``."""
    return _open(config, "container_name")


def open_data_lake(config: DatastoreConfig) -> RemoteStorage:
    """Connect to a file system: kind ``azure_data_lake_gen2``. Source: v1, ``register_azure_data_lake_gen2``."""
    return _open(config, "filesystem")


def _open(config: DatastoreConfig, option: str) -> RemoteStorage:
    check_options(config, {option: str}, {**ACCOUNT_OPTIONS, "verify_uploads": bool})
    container = Container(azure_account(config, "blob"), config.options[option])
    client = BlobClient(container, has_folders=config.kind == "azure_data_lake_gen2")
    return RemoteStorage(config.name, client, reads_back=config.options.get("verify_uploads"))


class BlobClient:
    """One container. Belongs to the process that made it: what obstore runs in the background does not survive a fork."""

    def __init__(self, container: Container, *, has_folders: bool = False) -> None:
        self._container = container
        self.has_folders = has_folders
        self._stores = _Stores.open(container)
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"BlobClient({self.location!r})"

    @property
    def account(self) -> str:
        return self._container.account.url.lower()

    @property
    def location(self) -> str:
        return self._container.url

    @property
    def is_encrypted(self) -> bool:
        return self.location.startswith("https:")

    def describe(self) -> str:
        return str(self._container)

    def check_name(self, path: str) -> None:
        is_plain = path.isprintable() and not ("//" in path or "/." in path or "\\" in path)
        if is_plain and path[:1] not in "./" and path[-1] != "/":
            return  # as nearly all are
        if _NOT_A_PATH.search(path):
            raise InvalidPath(
                f"{path!r} cannot be a path in {self.describe()}: its segments may not be empty, '.' or '..', nor hold a backslash, "
                "a control character or what is not Unicode. Rename it."
            )

    def name_key(self, path: str) -> str:
        return path

    def check(self) -> None:
        list_page(self._container, "", limit=1)

    def list_files(self, prefix: str) -> Iterator[StoredFile]:
        below = f"{prefix}/" if prefix else ""
        if prefix:
            first = Requests().one("Listing", lambda: list_page(self._container, prefix, limit=1))
            if first.files and first.files[0].path == prefix:
                yield first.files[0]
                return
            if not (first.files or first.marks or first.marker):
                return
        for page in list_pages(self._container, below):
            for each in page.files:
                self.check_name(each.path)
                yield each

    def survey(self, prefix: str) -> Iterator[Survey]:
        return survey_pages(self._container, f"{prefix}/" if prefix else "")

    def read(self, file: StoredFile, start: int, length: int) -> Buffer:
        if file.size_bytes == 0:
            self._empty(file)
            return b""
        options: GetOptions = {"range": (start, start + length)}
        if file.etag:
            options["if_match"] = file.etag
        return self._call(
            "read", file.path, lambda stores: obstore.get(stores.single, file.path, options=options).bytes()
        )

    def write(self, path: str, content: Buffer, metadata: Mapping[str, str]) -> StoredFile:
        self.check_name(path)
        done = self._call(
            "write",
            path,
            lambda stores: obstore.put(stores.single, path, content, attributes=dict(metadata), use_multipart=False),
        )
        return StoredFile(path, memoryview(content).nbytes, (done["e_tag"] or "").strip('"'))

    def write_large(self, path: str, local: Path, size_bytes: int, metadata: Mapping[str, str]) -> StoredFile:
        self.check_name(path)
        block_bytes = max(_BLOCK_BYTES, -(-size_bytes // _MOST_BLOCKS))
        blocks = _blocks(local, size_bytes, block_bytes, retry.check())
        done = self._call(
            "write",
            path,
            lambda stores: obstore.put(
                stores.blocks,
                path,
                blocks,
                attributes=dict(metadata),
                use_multipart=True,
                chunk_size=block_bytes,
                max_concurrency=_BLOCKS_AT_ONCE,
            ),
        )
        return StoredFile(path, size_bytes, (done["e_tag"] or "").strip('"'))

    def metadata(self, path: str) -> Mapping[str, str] | None:
        try:
            headers = self._container.request("read", "HEAD", path).headers
        except FilesNotFound:
            return None
        return {key[10:].lower(): value for key, value in headers.items() if key.lower().startswith("x-ms-meta-")}

    def copy(self, file: StoredFile, path: str, source: ObjectClient) -> StoredFile:
        if not isinstance(source, BlobClient):
            raise TypeError(f"{source!r} is of another service")
        self.check_name(path)
        headers = {"x-ms-copy-source": source._container.signed(file.path)}
        if file.etag:
            headers["x-ms-source-if-match"] = f'"{file.etag}"'
        answer = self._container.request("copy", "PUT", path, headers=headers).headers
        check = retry.check()
        while answer.get("x-ms-copy-status", "success") == "pending":
            check()
            time.sleep(_COPY_POLL_SECONDS)
            answer = self._container.request("read", "HEAD", path).headers
        if (status := answer.get("x-ms-copy-status", "success")) != "success":
            raise StorageError(f"The copy of {file.path!r} to {path!r} in {self.describe()} ended as {status!r}.")
        return StoredFile(path, file.size_bytes, answer["ETag"].strip('"'), checksum=file.checksum)

    def delete(self, files: Sequence[StoredFile]) -> Sequence[AmlDataError | None]:
        return delete_blobs(self._container, files)

    def remove_folder(self, folder: str) -> bool | None:
        if (self.metadata(folder) or {}).get("hdi_isfolder") != "true":
            return None
        inside = list_page(self._container, f"{folder}/", limit=1)
        if inside.files or inside.marks or inside.marker:
            return False
        try:
            self._container.request("delete", "DELETE", folder)
        except FileKept:  # somebody has put something into it
            return False
        except FilesNotFound:
            pass
        return True

    def _empty(self, file: StoredFile) -> None:
        """Look whether an empty file is still that: there is no range of it to read."""
        self._container.request(
            "read", "HEAD", file.path, headers={"If-Match": f'"{file.etag}"'} if file.etag else None
        )

    def _call(self, action: Action, path: str, call: Callable[[_Stores], T]) -> T:
        if os.getpid() != self._process:
            raise StorageError(
                f"{self.describe()} was opened by another process, of which this one is a fork. Open it anew."
            )
        stores = self._stores
        if stores.sign_in != self._container.account.sign_in:  # they keep their token
            stores = self._stores = _Stores.open(self._container)
        try:
            return call(stores)
        except (BaseError, OSError) as error:
            raise self._failure(action, path, error, stores) from None
        except ValueError as error:
            raise InvalidPath(f"{path!r} cannot be a path in {self.describe()}: {error}") from None
        except BaseException as error:
            if (
                type(error).__name__ != "PanicException"
            ):  # obstore's, at a garbled answer; no Exception, and of no module
                raise
            raise self._container.out_of_reach("its answer makes no sense") from None

    def _failure(self, action: Action, path: str, error: Exception, stores: _Stores) -> AmlDataError:
        text, _, source = str(error).partition("\n\nDebug source:")
        failure = partial(self._container.failure, action, path, sign_in=stores.sign_in)
        if isinstance(error, PreconditionError) and action == "read" and self.metadata(path) is None:
            return failure(404, "")
        if status := _STATUS.search(text):
            return self._with_retry_after(failure(int(status[1]), text), path)
        if isinstance(error, UnauthenticatedError) and (reason := stores.no_token()):
            return reason
        if isinstance(error, FileNotFoundError):
            return failure(404, text)
        if "InvalidCertificate" in source:
            return self._container.account.not_trusted(self._container)
        return self._container.out_of_reach(text.rpartition(" - ")[2])

    def _with_retry_after(self, failure: AmlDataError, path: str) -> AmlDataError:
        """Ask a busy service how long to wait: obstore does not say."""
        if isinstance(failure, StorageError):
            try:
                self._container.request("read", "HEAD", path)
            except StorageError as error:
                failure.retry_after_seconds = error.retry_after_seconds
            except AmlDataError:
                log.debug("%s does not say how long it will be busy.", self.describe())
        return failure


class _Stores(NamedTuple):
    """What obstore keeps of a container; tokens among that, so they belong to one sign-in."""

    sign_in: int
    single: AzureStore
    blocks: AzureStore

    @classmethod
    def open(cls, container: Container) -> _Stores:
        return cls(container.account.sign_in, _store(container, 0), _store(container, _BLOCK_RETRIES))

    def no_token(self) -> AmlDataError | None:
        """Why obstore got no token, if that is so."""
        providers: list[object] = [store.credential_provider for store in (self.single, self.blocks)]
        return next(
            (each.error for each in providers if isinstance(each, ObstoreTokens | ObstoreSas) and each.error), None
        )


def _store(container: Container, retries: int) -> AzureStore:
    options = obstore_options(container.account, container.name)
    options["client_options"] |= {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "timeout": timedelta(seconds=REQUEST_SECONDS),
    }
    return AzureStore(retry_config={"max_retries": retries}, **options)


def _blocks(local: Path, size_bytes: int, block_bytes: int, check: Callable[[], None]) -> Iterator[bytes]:
    with local.open("rb") as opened:
        left = size_bytes
        while left and (block := opened.read(min(block_bytes, left))):
            check()
            left -= len(block)
            yield block
    if left:
        raise OSError(f"{local} became shorter while it was read")
