"""A share of Azure Files: how to reach it, which names it takes, and what its refusals mean."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import quote

import requests
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.fileshare import ShareClient
from requests.adapters import HTTPAdapter

from airflow_aml_data.core.storage.azure.account import AzureAccount
from airflow_aml_data.errors import (
    AmlDataError,
    DataChanged,
    FileKept,
    FilesNotFound,
    InvalidPath,
    StorageError,
    StorageRefused,
)

_sdk_log = logging.getLogger(f"{__name__}.requests")
_sdk_log.setLevel(logging.WARNING)  # twenty lines for each request otherwise

Action = Literal["list", "read", "write", "delete", "copy"]

_CONNECTIONS = 64
_CONNECT_SECONDS = 10.0
_SILENT_SECONDS = 60.0
_REFUSED_CHARACTERS = re.compile(r'["\\:|<>*?\x00-\x1f\x7f]')
_SEGMENT_LIMIT, _PATH_LIMIT, _DEPTH_LIMIT = 255, 2048, 250
_TRY_AGAIN = {408, 425, 429}
_TRY_AGAIN_CODES = {"SharingViolation", "DeletePending", "FileLockConflict", "CannotDeleteFileOrDirectory"}
NOT_THERE = {"ResourceNotFound", "ParentNotFound", "ResourceTypeMismatch", "InvalidResourceName"}
"""What Azure Files says of a file that is not there; a folder may be."""

_ROLE_TO_READ = "role 'Storage File Data Privileged Reader'"
_ROLE_TO_WRITE = "role 'Storage File Data Privileged Contributor'"
_PERMISSIONS: Mapping[str, str] = {
    "list": f"SAS permission 'l' (list), {_ROLE_TO_READ}",
    "read": f"SAS permission 'r' (read), {_ROLE_TO_READ}",
    "write": f"SAS permissions 'c' and 'w' (create, write), {_ROLE_TO_WRITE}",
    "copy": f"SAS permissions 'r', 'c' and 'w' (read, create, write), {_ROLE_TO_WRITE}",
    "delete": f"SAS permission 'd' (delete), {_ROLE_TO_WRITE}",
}


class Share:
    """A share of a storage account, and how to sign in to it.

    :param name: v1's ``file_share_name``.
    """

    def __init__(self, account: AzureAccount, name: str) -> None:
        self.account, self.name = account, name
        self.url = f"{account.url}/{quote(name)}"
        self._clients: dict[tuple[int, int], ShareClient] = {}

    def __str__(self) -> str:
        connection = f", connection {self.account.conn_id!r}" if self.account.conn_id else ""
        return f"share {self.name!r} of account {self.account.name!r}{connection}"

    def __repr__(self) -> str:
        return f"<{self}>"

    @property
    def client(self) -> ShareClient:
        """The SDK's client, which keeps its token: made when first asked, and anew for another sign-in or SAS token.

        Also anew in a process that forked: connections cannot be shared.
        """
        self.account.sas()  # a new one counts as another sign-in
        key = (os.getpid(), self.account.sign_in)
        return self._clients.get(key) or self._clients.setdefault(key, self._connect())

    def _connect(self) -> ShareClient:
        account = self.account
        credential: Any = account.sas() or account.token_credential()
        if account.account_key:  # with the account's name, which the address of an emulator does not tell
            credential = {"account_name": account.name, "account_key": account.account_key}
        if credential is None:
            raise StorageRefused(
                f"Azure Files has no anonymous access; {self} needs a key, a SAS token or an identity."
            )
        session = requests.Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS, max_retries=0))
        return ShareClient(
            account.url,
            self.name,
            credential=credential,
            token_intent="backup",  # noqa: S106 - what a token is used for: past the permissions of single files
            allow_trailing_dot=True,
            allow_source_trailing_dot=True,
            transport=RequestsTransport(
                session=session,
                connection_timeout=_CONNECT_SECONDS,
                read_timeout=_SILENT_SECONDS,
                connection_verify=os.environ.get("SSL_CERT_FILE") or True,
            ),
            retry_total=0,
            logger=_sdk_log,
        )

    @contextmanager
    def asked(self, action: Action, path: str = "") -> Iterator[None]:
        """Turn the SDK's errors into ours, and keep their texts back: they hold signed addresses.

        :param action: What the request needs permission for.
        """
        sign_in = self.account.sign_in
        try:
            yield
        except HttpResponseError as error:
            raise self._failure(action, path, error, sign_in) from None
        except AzureError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise self.account.not_trusted(self) from None
            reason = type(error.inner_exception or error).__name__
            raise StorageError(f"{self.account.url} does not answer ({reason}). It is the address of {self}.") from None

    def _failure(self, action: Action, path: str, error: HttpResponseError, sign_in: int) -> AmlDataError:
        status, code = error.status_code or 0, error_code(error)
        what = f"{path!r} in {self}" if path else str(self)
        answered = f"It answered {status} {code}".rstrip()
        if code in ("ShareNotFound", "ShareBeingDeleted"):
            return StorageRefused(f"There is no {self}. Create the share, or correct the datastore.")
        if code == "ParentNotFound" and action in ("write", "copy"):
            return StorageError(f"The folder of {what} was removed while the file was written.")
        if status == 404 or (action == "delete" and code in NOT_THERE):
            return FilesNotFound(f"{path!r} is not in {self} any more.")
        if action == "delete" and status in (409, 412) and code not in _TRY_AGAIN_CODES:
            return FileKept(f"The store keeps {what}: end its lease, or make it writable. {answered}.")
        if status == 412 or (status == 416 and action == "read"):  # 416: it has become shorter
            return DataChanged(f"{what} was changed since it was listed or committed.")
        if status == 401 and self.account.renew(sign_in):
            return StorageError(f"{what}: the token is not accepted any more; signing in anew. {answered}.")
        if status in (401, 403):
            return self._refused(action, what, code, answered)
        if status >= 500 or status in _TRY_AGAIN or code in _TRY_AGAIN_CODES or status < 300:
            busy = StorageError(f"{what}: the service is busy or failed. {answered}.")
            asked = _header(error, "Retry-After")
            busy.retry_after_seconds = float(asked) if asked.isdecimal() else None
            return busy
        if code == "ResourceTypeMismatch":
            return StorageRefused(
                f"Cannot {action} {what}: a folder of that name is there, or a file in place of a folder."
            )
        return StorageRefused(f"Cannot {action} {what}. {answered}.")

    def _refused(self, action: Action, what: str, code: str, answered: str) -> StorageRefused:
        if code.startswith("Authorization") and code.endswith("Mismatch"):
            return StorageRefused(f"No permission to {action} {what}. Needed: {_PERMISSIONS[action]}. {answered}.")
        return StorageRefused(
            f"No access to {action} {what}: the account does not accept the connection's credential, or not from this network. "
            f"Needed: a valid credential with {_PERMISSIONS[action]}. {answered}."
        )

    def check_name(self, path: str) -> None:
        """Refuse a path under which Azure Files cannot keep a file.

        Source: the rules of Azure Files for names of directories and files.
        """
        segments = path.split("/")
        reason = next((each for each in map(_why_not, segments) if each), "")
        if not reason and (len(path) > _PATH_LIMIT or len(segments) > _DEPTH_LIMIT):
            reason = (
                f"has {len(path)} characters in {len(segments)} segments; {_PATH_LIMIT} and {_DEPTH_LIMIT} are allowed"
            )
        if reason:
            shown = path if len(path) <= _SEGMENT_LIMIT else f"{path[:_SEGMENT_LIMIT]}..."
            raise InvalidPath(f"{shown!r} {reason}, so it cannot be stored in {self}. Rename the file or folder.")


def error_code(error: HttpResponseError) -> str:
    """Azure's name of a refusal, such as ``ShareNotFound``; empty when it gave none."""
    code = getattr(error, "error_code", None) or _header(error, "x-ms-error-code")
    return str(getattr(code, "value", code))


def _header(error: HttpResponseError, name: str) -> str:
    headers: Mapping[str, str] = getattr(error.response, "headers", {})
    return headers.get(name, "")


def _why_not(segment: str) -> str:
    if found := _REFUSED_CHARACTERS.search(segment):
        return f"has the character {found[0]!r}, which Azure Files refuses in names"
    if len(segment) > _SEGMENT_LIMIT:
        return f"has a name of {len(segment)} characters; Azure Files takes {_SEGMENT_LIMIT}"
    if segment.rstrip(". ") != segment:
        return f"has a name that ends with {segment[-1]!r}, which Azure Files refuses"
    return "" if segment else "has an empty name between two slashes"
