"""Requests of the Blob service that obstore does not offer, and what its answers mean."""

from __future__ import annotations

import base64
import hmac
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

import httpx

from airflow_aml_data.core.storage.azure.account import AzureAccount
from airflow_aml_data.core.storage.azure.trust import trusted
from airflow_aml_data.errors import AmlDataError, DataChanged, FileKept, FilesNotFound, StorageError, StorageRefused

Action = Literal["list", "read", "write", "delete", "copy"]

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0
_API_VERSION = "2023-11-03"
_SCOPE = "https://storage.azure.com/.default"
_SAS_HOURS = 24
_TRY_AGAIN = {408, 425, 429}
_NOT_OFFERED = 501
_NOTHING: Mapping[str, str] = MappingProxyType({})
_PERMISSIONS: Mapping[str, str] = {
    "list": "SAS permission 'l' (list), role 'Storage Blob Data Reader'",
    "read": "SAS permission 'r' (read), role 'Storage Blob Data Reader'",
    "write": "SAS permissions 'c' and 'w' (create, write), role 'Storage Blob Data Contributor'",
    "copy": "SAS permissions 'r', 'c' and 'w' (read, create, write), role 'Storage Blob Data Contributor'",
    "delete": "SAS permission 'd' (delete), role 'Storage Blob Data Contributor'",
}
_MISSING_CONTAINER = {"ContainerNotFound", "FilesystemNotFound", "ResourceNotFound", "ContainerBeingDeleted"}
_STALE = {"AuthenticationFailed", "InvalidAuthenticationInfo"}
_NOT_PERMITTED = {
    "AuthorizationPermissionMismatch",
    "AuthorizationResourceTypeMismatch",
    "AuthorizationServiceMismatch",
}
_CODE = re.compile(r"<Code>([^<]+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<\n]+)")


class Container:
    """A container of a storage account, and requests to it.

    :param account: How to sign in.
    """

    def __init__(self, account: AzureAccount, name: str) -> None:
        self.account, self.name = account, name
        self.url = f"{account.url}/{quote(name)}"
        self._host_root = self.url.removesuffix(urlsplit(self.url).path)
        self._clients: dict[int, httpx.Client] = {}
        self._sas, self._sas_renewal = "", 0.0

    def __str__(self) -> str:
        connection = f", connection {self.account.conn_id!r}" if self.account.conn_id else ""
        return f"container {self.name!r} of account {self.account.name!r}{connection}"

    def request(
        self,
        action: Action,
        method: str,
        path: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """One request, signed; its answer when that is a good one.

        :param action: What it needs permission for.
        :param content: Its body.
        """
        url = self.address(path)
        sign_in = self.account.sign_in
        said = {"x-ms-version": _API_VERSION, **(headers or {})}
        if content is None:
            said, sas = said | self._token(), self._sas_token()
        else:  # a batch, whose parts have a signature of the key as well
            said, sas = self._authorized(method, url, said, query or {}, content), self.account.sas()
        pairs = [f"{key}={quote(value, safe='')}" for key, value in (query or {}).items()]
        if sas:
            pairs.append(sas)
        if pairs:
            url += "?" + "&".join(pairs)
        try:
            answer = self._client.request(method, url, headers=said, content=content)
        except httpx.HTTPError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise self.account.not_trusted(self) from None
            raise self.out_of_reach(type(error).__name__) from None
        answer.stream = httpx.ByteStream(
            b""
        )  # which held the answer: that would wait with its body for the garbage collector
        if answer.status_code >= 300:
            raise self.failure(
                action,
                path,
                answer.status_code,
                answer.text,
                answer.headers.get("x-ms-error-code"),
                answer.headers.get("Retry-After"),
                sign_in=sign_in,
            )
        return answer

    def part(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """A request without a body that goes inside another one, and has an authorization of its own.

        With a key it is a signature of all that it says, so that no part is carried out that was damaged on its way.
        """
        url, sas = self.address(path), self.account.sas()
        said = self._authorized(method, url, headers)
        lines = [
            f"{method} {url[len(self._host_root) :]}{'?' if sas else ''}{sas} HTTP/1.1",
            *(f"{name}: {said[name]}" for name in said),
        ]
        return "\r\n".join([*lines, "Content-Length: 0", "", ""])

    def address(self, path: str) -> str:
        """Where a blob is; without credentials."""
        return f"{self.url}/{quote(path, safe='/~')}" if path else self.url

    def signed(self, path: str) -> str:
        """The address of a blob for the service itself, which may read it."""
        sas = self._sas_token()
        return f"{self.address(path)}?{sas}" if sas else self.address(path)

    def out_of_reach(self, why: str) -> StorageError:
        return StorageError(f"{self.account.url} does not answer ({why}). It is the address of {self}.")

    def failure(
        self,
        action: Action,
        path: str,
        status: int,
        text: str,
        code: str | None = None,
        retry_after: str | None = None,
        *,
        sign_in: int,
    ) -> AmlDataError:
        """What an answer of the service means.

        :param text: Its body.
        :param sign_in: The account's when the request was made.
        """
        found = _CODE.search(text)
        code = code or (found[1] if found else "")
        message = _MESSAGE.search(text)
        answered = f"It answered {status} {code}".rstrip() + (f": {message[1].rstrip('.')}" if message else "")
        what = f"{path!r} in {self}" if path else str(self)
        if code in _MISSING_CONTAINER:
            return StorageRefused(f"There is no {self}. Create the container, or correct the datastore.")
        if status == 404:
            return FilesNotFound(f"{path!r} is not in {self} any more.")
        if status == 412 and (action in ("read", "copy") or code == "ConditionNotMet"):
            return DataChanged(f"{what} was changed since it was listed or committed.")
        if status in (409, 412) and action == "delete":
            return FileKept(f"The store keeps {what}: end its lease, or wait until its policy lets it go. {answered}.")
        if (status == 401 or code in _STALE) and self.account.renew(sign_in):
            return StorageError(f"{what}: the token is not accepted any more; signing in anew. {answered}.")
        if status in (401, 403):
            return self._refused(action, what, is_not_permitted(code, text), answered)
        if (status >= 500 and status != _NOT_OFFERED) or status in _TRY_AGAIN:
            error = StorageError(f"{what}: the service is busy or failed. {answered}.")
            error.retry_after_seconds = _seconds(retry_after)
            return error
        return StorageRefused(f"Cannot {action} {what}. {answered}.")

    def _refused(self, action: Action, what: str, is_known: bool, answered: str) -> StorageRefused:
        """What to do about a refusal.

        :param is_known: Whether the service knows who asks, and does not let them.
        """
        if is_known:
            return StorageRefused(f"No permission to {action} {what}. Needed: {_PERMISSIONS[action]}. {answered}.")
        return StorageRefused(
            f"No access to {action} {what}: the account does not accept the connection's credential, or not from this network. "
            f"Needed: a valid credential with {_PERMISSIONS[action]}. {answered}."
        )

    def _authorized(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str] = _NOTHING,
        content: bytes = b"",
    ) -> dict[str, str]:
        """The headers of a request, with what signs in by the key or an identity. Source: Azure, "Authorize with Shared Key"."""
        said = {**headers, "x-ms-date": _date(int(time.time())), **self._token()}
        if self.account.account_key:
            length, kind, etag = str(len(content) or ""), said.get("Content-Type", ""), said.get("If-Match", "")
            marks = sorted(f"{name}:{value}" for name, value in said.items() if name.startswith("x-ms-"))
            standard = ["", "", length, "", kind, "", "", etag, "", "", ""]
            resource = f"/{self.account.name}{url[len(self._host_root) :]}"
            asked = [f"{name}:{value}" for name, value in sorted(query.items())]
            signature = _signature(self.account, [method, *standard, *marks, resource, *asked])
            said["Authorization"] = f"SharedKey {self.account.name}:{signature}"
        return said

    def _token(self) -> dict[str, str]:
        """The header with the token of an identity, when one signs in."""
        if self.account.account_key or self.account.sas() or not (access := self.account.token_credential()):
            return {}
        return {"Authorization": f"Bearer {access.get_token(_SCOPE).token}"}

    def _sas_token(self) -> str:
        """The connection's, or one made of its key."""
        if not self.account.account_key:
            return self.account.sas()
        if time.time() > self._sas_renewal:
            self._sas = container_sas(self.account, self.name, datetime.now(UTC) + timedelta(hours=_SAS_HOURS))
            self._sas_renewal = time.time() + _SAS_HOURS / 2 * 3600
        return self._sas

    @property
    def _client(self) -> httpx.Client:
        """Made when first asked, anew in a process that forked: connections cannot be shared."""
        process = os.getpid()
        return self._clients.get(process) or self._clients.setdefault(process, self._connect())

    def _connect(self) -> httpx.Client:
        timeout = httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS)
        return httpx.Client(verify=trusted(self.account.url), timeout=timeout)

    def __repr__(self) -> str:
        return f"<{self}>"


def container_sas(account: AzureAccount, container: str, expiry: datetime) -> str:
    """A SAS token for everything in a container, made of the account's key.

    Azure's own library makes the same, and takes half a second to be imported. Source: Azure, "Create a service SAS".
    """
    said = {
        "se": expiry.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sp": "racwdl",
        "sv": _API_VERSION,
        "sr": "c",
    }
    signed = [
        said["sp"],
        "",
        said["se"],
        f"/blob/{account.name}/{container}",
        "",
        "",
        "",
        said["sv"],
        said["sr"],
        *[""] * 7,
    ]
    return urlencode(said | {"sig": _signature(account, signed)})


@lru_cache(maxsize=4)
def _date(seconds: int) -> str:
    """Parts of a batch are many in a second."""
    return formatdate(seconds, usegmt=True)


def _signature(account: AzureAccount, lines: Sequence[str]) -> str:
    """What shows that the account's key is known to who says this."""
    digest = hmac.digest(base64.b64decode(account.account_key), "\n".join(lines).encode(), "sha256")
    return base64.b64encode(digest).decode()


def is_not_permitted(code: str, text: str) -> bool:
    """Whether a refusal is one for want of a permission; the text is for servers that give no code."""
    return code in _NOT_PERMITTED or "using this permission" in text


def _seconds(retry_after: Any) -> float | None:
    return float(retry_after) if retry_after and str(retry_after).isdecimal() else None
