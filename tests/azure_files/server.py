"""The double's REST interface: requests of the real SDK in, answers as Azure's out."""

from __future__ import annotations

import base64
import hashlib
import re
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.azure_files import signatures
from tests.azure_files.shares import Entry, Failure

if TYPE_CHECKING:
    from tests.azure_files import AzureFiles

_PAGE = 5000
_RANGE_LIMIT = 4 * 1024 * 1024


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def do_any(self) -> None:
        double = self.double = self.server.double
        self.shares = double.shares
        self.said = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(self.said.get("content-length", 0)))
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        _, self.account, self.share, *rest = [unquote(each) for each in parts.path.split("/")]
        self.place = "/".join(rest)
        double.requests.append(f"{self.command} {unquote(parts.path)} {self.query.get('comp', '')}".strip())
        secure = double.url.startswith("https:")
        try:
            signatures.check(self.command, self.path, self.said, double.keys, double.tokens, secure=secure)
            with self.shares.lock:
                self._fail_as_told()
                self._answer(body)
        except Failure as failure:
            text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{failure.code}</Code><Message>No.</Message></Error>'
            self._send(failure.status, text.encode(), {"x-ms-error-code": failure.code, **failure.headers})

    do_GET = do_HEAD = do_PUT = do_DELETE = do_any  # noqa: N815 - the base class's names

    def _fail_as_told(self) -> None:
        for each in self.shares.failures:
            if each[:2] == (self.command, self.query.get("comp", "")):
                self.shares.failures.remove(each)
                raise each[2]

    def _answer(self, body: bytes) -> None:
        restype = self.query.get("restype", "file")
        asked = (self.command, restype, self.query.get("comp", ""))
        answers = {
            ("PUT", "share", ""): self._create_share,
            ("GET", "share", ""): self._share_properties,
            ("PUT", "directory", ""): self._create_directory,
            ("DELETE", "directory", ""): self._delete,
            ("GET", "directory", "list"): self._list,
            ("PUT", "file", ""): self._copy if "x-ms-copy-source" in self.said else self._create_file,
            ("PUT", "file", "range"): lambda: self._put_range(body),
            ("PUT", "file", "rename"): self._rename,
            ("PUT", "file", "properties"): self._set_properties,
            ("PUT", "file", "metadata"): self._set_metadata,
            ("GET", "file", ""): self._read,
            ("HEAD", "file", ""): self._properties,
            ("DELETE", "file", ""): self._delete,
        }
        if asked not in answers:
            self.double.unanswered.append(f"{asked} {self.path}")
            raise Failure(501, "NotImplemented")
        answers[asked]()

    def _create_share(self) -> None:
        self.shares.create_share(self.account, self.share)
        self._send(201)

    def _share_properties(self) -> None:
        root = self.shares.find(self.account, self.share, "", directory=True)
        self._send(200, headers=_versions(self.shares.touch(root)) | {"x-ms-share-quota": "1"})

    def _create_directory(self) -> None:
        entry = self.shares.put(self.account, self.share, Entry(self.place), replaces=False)
        self._send(201, headers=_versions(entry))

    def _create_file(self) -> None:
        size = int(self.said["x-ms-content-length"])
        md5, metadata = self.said.get("x-ms-content-md5", ""), self._metadata()
        entry = Entry(self.place, bytearray(size), md5, metadata)
        self._send(201, headers=_versions(self.shares.put(self.account, self.share, entry, replaces=True)))

    def _put_range(self, body: bytes) -> None:
        entry = self._file()
        start, end = _range(self.said)
        if self.said["x-ms-write"] == "clear":
            body = bytes(end + 1 - start)
        elif len(body) != end + 1 - start or len(body) > _RANGE_LIMIT:
            raise Failure(413 if len(body) > _RANGE_LIMIT else 400, "InvalidHeaderValue")
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        if self.said.get("content-md5", digest) != digest:
            raise Failure(400, "Md5Mismatch")
        self.shares.write(entry, start, body)
        self._send(201, headers=_versions(entry) | {"Content-MD5": digest})

    def _read(self) -> None:
        entry = self._file()
        content = bytes(entry.content or b"")
        headers = self._of_file(entry)
        if "x-ms-range" not in self.said:
            self._send(200, content, headers)
            return
        start, end = _range(self.said)
        if start >= len(content):
            raise Failure(416, "InvalidRange")
        end = min(end, len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        if headers.pop("Content-MD5", ""):
            headers["x-ms-content-md5"] = entry.md5
        if self.said.get("x-ms-range-get-content-md5") == "true":
            headers["Content-MD5"] = base64.b64encode(hashlib.md5(content[start : end + 1]).digest()).decode()
        self._send(206, content[start : end + 1], headers)

    def _properties(self) -> None:
        entry = self._file()
        self._send(200, headers=self._of_file(entry) | {"Content-Length": str(len(entry.content or b""))})
        entry.pending = max(entry.pending - 1, 0)

    def _set_properties(self) -> None:
        entry = self._file()
        entry.md5 = self.said.get("x-ms-content-md5", "")
        self._send(200, headers=_versions(self.shares.touch(entry)))

    def _set_metadata(self) -> None:
        entry = self._file()
        entry.metadata = self._metadata()
        self._send(200, headers=_versions(self.shares.touch(entry)))

    def _delete(self) -> None:
        directory = self.query.get("restype") == "directory"
        self.shares.delete(self.account, self.share, self.place, directory=directory)
        self._send(202)

    def _copy(self) -> None:
        account, share, path = self._source("x-ms-copy-source")
        if account != self.account or self.shares.refuse_copies:
            raise Failure(404, "CannotVerifyCopySource")
        source = self.shares.find(account, share, path)
        entry = self.shares.copy(self.account, self.share, self.place, source, self._metadata())
        self._send(202, headers=self._of_file(entry) | {"x-ms-copy-id": "1"})

    def _rename(self) -> None:
        account, share, path = self._source("x-ms-file-rename-source")
        if (account, share) != (self.account, self.share):
            raise Failure(400, "InvalidHeaderValue")
        source = self.shares.find(account, share, path)
        replaces = self.said.get("x-ms-file-rename-replace-if-exists") == "true"
        entry = self.shares.rename(account, share, source, self.place, replaces=replaces)
        self._send(200, headers=_versions(entry))

    def _list(self) -> None:
        self.shares.find(self.account, self.share, self.place, directory=True)
        prefix, marker = self.query.get("prefix", ""), self.query.get("marker", "")
        limit = int(self.query.get("maxresults", _PAGE))
        found = [
            each
            for each in self.shares.children(self.account, self.share, self.place)
            if each.name.lower().startswith(prefix.lower()) and each.name.lower() >= marker
        ]
        following = found[limit].name.lower() if len(found) > limit else ""
        included = self.query.get("include", "").lower().split(",")
        text = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{self.double.account_url(self.account)}/" '
            f'ShareName="{self.share}" DirectoryPath="{escape(self.place)}"><MaxResults>{limit}</MaxResults><Entries>'
            + "".join(_listed(each, included) for each in found[:limit])
            + f"</Entries><NextMarker>{escape(following)}</NextMarker></EnumerationResults>"
        )
        self._send(200, text.encode(), {"Content-Type": "application/xml"})

    def _file(self) -> Entry:
        return self.shares.find(self.account, self.share, self.place)

    def _source(self, header: str) -> tuple[str, str, str]:
        """Account, share and path of the file that a header names by its address."""
        _, account, share, path = unquote(urlsplit(self.said[header]).path).split("/", 3)
        return account, share, path

    def _metadata(self) -> dict[str, str]:
        return {name[10:]: value for name, value in self.said.items() if name.startswith("x-ms-meta-")}

    def _of_file(self, entry: Entry) -> dict[str, str]:
        headers = _versions(entry) | {"Content-Type": "application/octet-stream", "x-ms-type": "File"}
        if entry.md5:
            headers["Content-MD5"] = entry.md5
        if entry.copied:
            headers["x-ms-copy-status"] = "pending" if entry.pending else "success"
        return headers | {f"x-ms-meta-{name}": value for name, value in entry.metadata.items()}

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    double: AzureFiles

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)


def _versions(entry: Entry) -> dict[str, str]:
    return {"ETag": entry.etag, "Last-Modified": format_datetime(entry.modified, usegmt=True)}


def _range(said: dict[str, str]) -> tuple[int, int]:
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", said["x-ms-range"])
    if found is None:
        raise Failure(400, "InvalidHeaderValue")
    return int(found[1]), int(found[2])


def _listed(entry: Entry, included: list[str]) -> str:
    kind = "Directory" if entry.content is None else "File"
    properties = "" if entry.content is None else f"<Content-Length>{len(entry.content)}</Content-Length>"
    if "timestamps" in included:
        properties += f"<Last-Modified>{format_datetime(entry.modified, usegmt=True)}</Last-Modified>"
    if "etag" in included:
        properties += f"<Etag>{escape(entry.etag)}</Etag>"
    return f"<{kind}><Name>{escape(entry.name)}</Name><Properties>{properties}</Properties></{kind}>"
