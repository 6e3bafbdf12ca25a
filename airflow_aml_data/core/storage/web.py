"""Files at public http(s) addresses: read, never written.

Source: v1, semantics section 4: public URLs are the other simple source of a dataset beside datastores.
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from airflow_aml_data.core.storage.base import Placement, Progress, StoredFile
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration, StorageError, UserError

_TIMEOUT_SECONDS = 60.0
_CHUNK_BYTES = 1024 * 1024
_ALLOWED_IN_URL = "!#$%&'()*+,/:;=?@[]~"
_GONE = {404, 410}
_NOT_PUBLIC = {401, 403, 407}
_TRY_AGAIN = {408, 425, 429}


def check_url(url: str) -> str:
    """Return a public http(s) address as it is requested: without fragment, other characters percent-encoded.

    :raises InvalidDeclaration: for one that holds a credential, names no host or is no address at all.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidDeclaration(f"{url!r} is not an address: {error}.") from error
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not host.isascii()
        or re.search(r"[\x00-\x1f\x7f]|^ | $", url)
    ):
        raise InvalidDeclaration(f"{url!r} is not an address such as https://host/folder/file.csv.")
    if parts.username is not None or any(name.lower() == "sig" for name, _ in parse_qsl(parts.query, True)):
        raise InvalidDeclaration(
            f"Invalid argument type for `path`. {shown(url)!r} holds a credential (a password or a SAS token), which would "
            "lie readable in every dataset made of it. Declare a datastore with it, and give (datastore, path)."
        )
    return quote(parts._replace(fragment="").geturl(), safe=_ALLOWED_IN_URL)


def shown(url: str) -> str:
    """An address for messages: a query may hold what is not for everybody."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


class WebFile:
    """The file at one public address.

    :param timeout_seconds: How long the server may be silent.
    """

    is_remote = False

    def __init__(self, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self.url = url
        self._timeout_seconds = timeout_seconds

    def __repr__(self) -> str:
        return f"WebFile({shown(self.url)!r})"

    @property
    def name(self) -> str:
        return shown(self.url)

    @property
    def folder(self) -> str:
        """Host and folders of the address, as a relative path."""
        parts = urlsplit(self.url)
        return "/".join([parts.netloc, *(_safe(each) for each in parts.path.split("/")[1:-1])])

    @property
    def file_name(self) -> str:
        """What follows the last ``/`` of the address, never its query; ``data`` when nothing does."""
        return _safe(urlsplit(self.url).path.rpartition("/")[2])

    def list_files(self, path: str) -> Iterator[StoredFile]:
        """The file, by what the server says of it; a server that does not say how long it is makes us count.

        :raises FilesNotFound: when there is none.
        """
        with self._open() as response:
            length = _length(response)
            size = sum(map(len, self._chunks(response))) if length is None else length
            found = StoredFile(self.url, size, _etag(response, size), _seconds(response.headers.get("Last-Modified")))
        yield found

    def content(self, limit_bytes: int) -> bytes:
        """The content of a small file.

        :raises UserError: when it is longer than ``limit_bytes``.
        """
        with self._open() as response:
            content = b""
            for chunk in self._chunks(response):
                content += chunk
                if len(content) > limit_bytes:
                    raise UserError(f"{self.name} is longer than {limit_bytes} bytes.")
            return content

    def download(self, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
        for each in placements:
            target = folder / each.target
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{uuid.uuid4().hex}.partial")
            try:
                with partial.open("wb") as file:
                    self._copy(file, each.file)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            progress(1, each.file.size_bytes)

    mount = download

    def _copy(self, file: BinaryIO, expected: StoredFile) -> None:
        with self._open() as response:
            size = 0
            for chunk in self._chunks(response):
                file.write(chunk)
                size += len(chunk)
            if (size, _etag(response, size)) != (expected.size_bytes, expected.etag):
                raise StorageError(
                    f"{self.name} was changed while it was read: it had {expected.size_bytes} bytes when it was listed, now "
                    f"{size}. Try again."
                )

    def _chunks(self, response: Any) -> Iterator[bytes]:
        """The body, all of it or an error."""
        size = 0
        while chunk := response.read(_CHUNK_BYTES):
            size += len(chunk)
            yield chunk
        length = _length(response)
        if length not in (None, size):
            raise StorageError(f"{self.name} ended after {size} of {length} bytes. Try again.")

    @contextmanager
    def _open(self) -> Iterator[Any]:
        request = urllib.request.Request(self.url, headers={"Accept-Encoding": "identity"})  # noqa: S310 - see _opener
        try:
            with _opener().open(request, timeout=self._timeout_seconds) as response:
                if (encoding := response.headers.get("Content-Encoding", "identity").lower()) != "identity":
                    raise UserError(
                        f"{self.name} comes compressed ({encoding}) although that was not asked for. Give an address that "
                        "serves the file as it is."
                    )
                yield response
        except urllib.error.HTTPError as error:
            error.close()
            self._refused(error)
        except (http.client.HTTPException, urllib.error.URLError, ssl.SSLError, TimeoutError, ConnectionError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise StorageError(f"{self.name} cannot be read: {reason or type(reason).__name__}. Try again.") from error

    def _refused(self, error: urllib.error.HTTPError) -> NoReturn:
        answer = f"{self.name} answers {error.code} {error.reason}."
        if error.code in _GONE:
            raise FilesNotFound(
                f"The requested stream was not found. Please make sure the request uri is correct. {answer}"
            ) from error
        if error.code in _NOT_PUBLIC:
            raise UserError(
                f"{answer} It is not public. Declare a datastore with credentials, and give (datastore, path)."
            ) from error
        if error.code >= 500 or error.code in _TRY_AGAIN:
            raise StorageError(f"{answer} Try again later.") from error
        raise UserError(f"{answer} Check the address.") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only; the standard one also to ftp."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            fp.close()
            raise UserError(f"{shown(req.full_url)} leads to {shown(newurl)!r}; only http and https are followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Like the standard one, without its handlers for local files, data and ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


def _safe(segment: str) -> str:
    """A segment of an address as a file name."""
    name = re.sub(r"[/\\\x00-\x1f]", "_", unquote(segment))
    return "data" if name in ("", ".", "..") else name


def _length(response: Any) -> int | None:
    text = response.headers.get("Content-Length")
    return int(text) if text and text.isdecimal() else None


def _etag(response: Any, size: int) -> str:
    headers = response.headers
    return str(headers.get("ETag") or headers.get("Last-Modified") or size)


def _seconds(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:  # a server that writes dates its own way
        return None
