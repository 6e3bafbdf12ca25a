"""What the bench's blob server answers: the calls of Azure Blob storage's REST interface that clients move files with.

Blobs are block blobs in memory; nobody is asked for credentials. Unlike the service, it computes no MD5 of its own: the time
would be the server's, and that of the client is to be measured.
"""

from __future__ import annotations

import base64
import itertools
import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

Buffer = bytes | bytearray | memoryview

_VERSION = "2021-12-02"
_PAGE = 5000
_REASONS = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    206: "Partial Content",
    304: "Not Modified",
    404: "Not Found",
    412: "Precondition Failed",
}
_IF_MATCH = re.compile(r"^If-Match: (\S+)\r$", re.IGNORECASE | re.MULTILINE)
_LONG_AGO = formatdate(1_700_000_000, usegmt=True)
_PREFIX_END = "\U0010ffff"


class Request(NamedTuple):
    """One call.

    :param headers: By lower-case name.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, head: str) -> Request:
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        pairs = (each.partition("=") for each in query.split("&"))
        headers = (each.partition(":") for each in lines)
        return cls(
            method,
            _decoded(path),
            {name: _decoded(value) for name, _, value in pairs},
            {name.lower(): value.strip() for name, _, value in headers},
        )


class Answer(NamedTuple):
    """What a call gets.

    :param body: In pieces, so that blobs are not copied. A ``HEAD`` gets its length only.
    """

    status: int
    headers: Sequence[str] = ()
    body: Sequence[Buffer] = ()

    def head(self) -> bytes:
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Error')}",
            f"Content-Length: {sum(map(len, self.body))}",
            f"Date: {_now()}",
            f"x-ms-version: {_VERSION}",
            "x-ms-request-id: 0",
            *self.headers,
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass(slots=True, kw_only=True)
class Blob:
    """A block blob.

    :param blocks: Its content.
    :param ends: Where each of the blocks ends.
    """

    blocks: Sequence[Buffer]
    etag: str
    modified: str
    content_type: str
    md5: str
    metadata: Sequence[str]
    ends: list[int] = field(default_factory=list)
    entry: str = ""

    def __post_init__(self) -> None:
        self.ends = list(itertools.accumulate(len(each) for each in self.blocks)) or [0]

    @property
    def size_bytes(self) -> int:
        return self.ends[-1]

    def headers(self) -> list[str]:
        found = [
            f"Content-Type: {self.content_type}",
            f"ETag: {self.etag}",
            f"Last-Modified: {self.modified}",
            f"x-ms-creation-time: {self.modified}",
            "Accept-Ranges: bytes",
            "x-ms-blob-type: BlockBlob",
            "x-ms-lease-status: unlocked",
            "x-ms-lease-state: available",
            "x-ms-server-encrypted: true",
            *self.metadata,
        ]
        return [*found, f"Content-MD5: {self.md5}"] if self.md5 else found

    def read(self, start: int, end: int) -> list[Buffer]:
        """The bytes from ``start`` to before ``end``, as pieces of the blocks."""
        found: list[Buffer] = []
        for number in range(bisect_right(self.ends, start), len(self.blocks)):
            begin = self.ends[number] - len(self.blocks[number])
            if begin >= end:
                break
            found.append(memoryview(self.blocks[number])[max(start - begin, 0) : end - begin])
        return found


@dataclass(slots=True)
class Container:
    """Blobs and blocks that are no blobs yet, by name."""

    blobs: dict[str, Blob] = field(default_factory=dict)
    blocks: dict[str, dict[str, Buffer]] = field(default_factory=dict)
    sorted_names: list[str] | None = None

    def names(self) -> list[str]:
        if self.sorted_names is None:
            self.sorted_names = sorted(self.blobs)
        return self.sorted_names

    def put(self, name: str, blob: Blob) -> None:
        if name not in self.blobs:
            self.sorted_names = None
        self.blobs[name] = blob

    def delete(self, name: str, etag: str = "") -> tuple[int, str]:
        """Delete a blob, if it has the etag when there is one; status and code of the answer."""
        found = self.blobs.get(name)
        if found is None:
            return 404, "BlobNotFound"
        if etag.strip('"') not in ("", found.etag[1:-1]):
            return 412, "ConditionNotMet"
        self.sorted_names = None
        del self.blobs[name]
        return 202, ""


class Account:
    """One storage account, whose address is ``/NAME``: answers calls."""

    def __init__(self) -> None:
        self._containers: dict[str, Container] = {}
        self._etags = itertools.count(0x8DE000000000000)

    def fill(self, name: str, files: Iterable[tuple[str, Buffer]], etag: str) -> None:
        """Make a container with blobs in it, all of one etag, without a request for each."""
        container = self._containers[name] = Container()
        for path, content in files:
            blob = Blob(
                blocks=[content],
                etag=f'"{etag}"',
                modified=_LONG_AGO,
                content_type="application/octet-stream",
                md5="",
                metadata=[],
            )
            container.put(path, blob)

    def answer(self, request: Request, body: Buffer) -> Answer:
        """Do what a request says."""
        _, _, inside = request.path.removeprefix("/").partition("/")
        name, _, blob = inside.partition("/")
        if request.query.get("comp") == "batch":
            return self._batch(body)
        if not name:
            return self._account(request)
        container = self._containers.get(name)
        if not blob:
            return self._container(request, name, container)
        if container is None:
            return _error(404, "ContainerNotFound")
        match request.method:
            case "GET" | "HEAD":
                return self._get(request, container, blob)
            case "PUT":
                return self._put(request, container, blob, body)
            case "DELETE":
                status, code = container.delete(blob, request.headers.get("if-match", ""))
                return Answer(status) if status == 202 else _error(status, code)
        return _error(405, "UnsupportedHttpVerb")

    def _account(self, request: Request) -> Answer:
        if request.query.get("comp") == "list":
            names = "".join(f"<Container><Name>{each}</Name></Container>" for each in self._containers)
            return _xml(f"<EnumerationResults><Containers>{names}</Containers><NextMarker/></EnumerationResults>")
        return Answer(
            200, ["x-ms-sku-name: Standard_LRS", "x-ms-account-kind: StorageV2", "x-ms-is-hns-enabled: false"]
        )

    def _container(self, request: Request, name: str, container: Container | None) -> Answer:
        if request.query.get("restype") == "account":
            return self._account(request)
        if request.method == "PUT":
            if container is not None:
                return _error(409, "ContainerAlreadyExists")
            self._containers[name] = Container()
            return Answer(201, self._written()[1])
        if container is None:
            return _error(404, "ContainerNotFound")
        if request.method == "DELETE":
            del self._containers[name]
            return Answer(202)
        if request.query.get("comp") == "list":
            return _list(request, name, container)
        return Answer(200, self._written()[1])

    def _get(self, request: Request, container: Container, name: str) -> Answer:
        blob = container.blobs.get(name)
        if blob is None:
            return _error(404, "BlobNotFound")
        if request.headers.get("if-match", "*").strip('"') not in ("*", blob.etag[1:-1]):  # lists say it without quotes
            return _error(412, "ConditionNotMet")
        if request.headers.get("if-none-match") == blob.etag:
            return Answer(304)
        wanted = request.headers.get("x-ms-range") or request.headers.get("range")
        if not wanted:
            return Answer(200, blob.headers(), blob.blocks)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1, blob.size_bytes) if last else blob.size_bytes
        if start >= blob.size_bytes:
            return _error(416, "InvalidRange")
        ranged = f"Content-Range: bytes {start}-{end - 1}/{blob.size_bytes}"
        return Answer(206, [ranged, *blob.headers()], blob.read(start, end))

    def _put(self, request: Request, container: Container, name: str, body: Buffer) -> Answer:
        comp = request.query.get("comp")
        if comp == "block":
            container.blocks.setdefault(name, {})[request.query["blockid"]] = body
            return Answer(201, ["x-ms-request-server-encrypted: true"])
        before = container.blobs.get(name)
        if before is not None and request.headers.get("if-none-match") == "*":
            return _error(409, "BlobAlreadyExists")
        if comp in ("metadata", "properties"):
            if before is None:
                return _error(404, "BlobNotFound")
            return self._stored(request, container, name, before.blocks)
        if comp == "blocklist":
            blocks = container.blocks.pop(name, {})
            ids = re.findall(r"<(?:Latest|Uncommitted|Committed)>([^<]*)<", bytes(body).decode())
            if missing := [each for each in ids if each not in blocks]:
                return _error(400, "InvalidBlockList", missing[0])
            return self._stored(request, container, name, [blocks[each] for each in ids])
        if source := request.headers.get("x-ms-copy-source"):
            return self._copy(request, container, name, source)
        return self._stored(request, container, name, [body])

    def _copy(self, request: Request, container: Container, name: str, source: str) -> Answer:
        _, origin, path = unquote(urlsplit(source).path).removeprefix("/").split("/", 2)
        found = self._containers[origin].blobs.get(path) if origin in self._containers else None
        if found is None:
            return _error(404, "CannotVerifyCopySource")
        answer = self._stored(request, container, name, found.blocks)
        return Answer(202, [*answer.headers, "x-ms-copy-id: 0", "x-ms-copy-status: success"])

    def _stored(self, request: Request, container: Container, name: str, blocks: Sequence[Buffer]) -> Answer:
        headers = request.headers
        (etag, modified), said = self._written()
        blob = Blob(
            blocks=blocks,
            etag=etag,
            modified=modified,
            content_type=headers.get("x-ms-blob-content-type") or "application/octet-stream",
            md5=headers.get("x-ms-blob-content-md5") or headers.get("content-md5") or "",
            metadata=[f"{name}: {value}" for name, value in headers.items() if name.startswith("x-ms-meta-")],
        )
        container.put(name, blob)
        return Answer(201, [*said, "x-ms-request-server-encrypted: true"])

    def _written(self) -> tuple[tuple[str, str], list[str]]:
        """A new etag and the time, and the headers that say so."""
        etag, modified = f'"0x{next(self._etags):X}"', _now()
        return (etag, modified), [f"ETag: {etag}", f"Last-Modified: {modified}"]

    def _batch(self, body: Buffer) -> Answer:
        """Delete each blob that a part of the body names, if it has the etag that is wanted."""
        parts = []
        for number, part in enumerate(bytes(body).decode().split("\r\nDELETE ")[1:]):
            path = _decoded(part.partition(" ")[0].partition("?")[0]).removeprefix("/")
            _, name, blob = path.split("/", 2)
            wanted = _IF_MATCH.search(part)
            container = self._containers.get(name) or Container()
            status, code = container.delete(blob, wanted[1] if wanted else "")
            why = f"x-ms-error-code: {code}\r\n" if code else ""
            parts.append(
                f"--parts\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
                f"HTTP/1.1 {status} {_REASONS[status]}\r\n{why}x-ms-request-id: 0\r\n\r\n"
            )
        content = "".join([*parts, "--parts--\r\n"]).encode()
        return Answer(202, ["Content-Type: multipart/mixed; boundary=parts"], [content])


def _list(request: Request, container_name: str, container: Container) -> Answer:
    """One page of List Blobs."""
    names, prefix, delimiter = (
        container.names(),
        request.query.get("prefix", ""),
        request.query.get("delimiter", ""),
    )
    most = min(int(request.query.get("maxresults") or _PAGE), _PAGE)
    with_metadata = "metadata" in request.query.get("include", "")
    marker = base64.urlsafe_b64decode(request.query.get("marker", "")).decode()
    place = bisect_left(names, max(prefix, marker))
    found: list[str] = []
    while place < len(names) and names[place].startswith(prefix) and len(found) < most:
        name = names[place]
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut >= 0:
            folder = name[: cut + 1]
            found.append(f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>")
            place = bisect_left(names, folder + _PREFIX_END)
        else:
            found.append(_entry(name, container.blobs[name], with_metadata))
            place += 1
    more = place < len(names) and names[place].startswith(prefix)
    following = base64.urlsafe_b64encode(names[place].encode()).decode() if more else ""
    return _xml(
        f'<EnumerationResults ServiceEndpoint="/" ContainerName="{container_name}"><MaxResults>{most}</MaxResults>'
        f"<Blobs>{''.join(found)}</Blobs>"
        f"<NextMarker>{following}</NextMarker></EnumerationResults>"
    )


def _entry(name: str, blob: Blob, with_metadata: bool) -> str:
    if not blob.entry:
        blob.entry = (
            f"<Blob><Name>{escape(name)}</Name><Properties><Creation-Time>{blob.modified}</Creation-Time>"
            f"<Last-Modified>{blob.modified}</Last-Modified><Etag>{blob.etag[1:-1]}</Etag>"
            f"<Content-Length>{blob.size_bytes}</Content-Length><Content-Type>{blob.content_type}</Content-Type>"
            f"<Content-MD5>{blob.md5}</Content-MD5><BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier>"
            "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>"
            "<ServerEncrypted>true</ServerEncrypted></Properties>"
        )
    if not with_metadata:
        return f"{blob.entry}</Blob>"
    pairs = (each.removeprefix("x-ms-meta-").partition(": ") for each in blob.metadata)
    metadata = "".join(f"<{name}>{escape(value)}</{name}>" for name, _, value in pairs)
    return f"{blob.entry}<Metadata>{metadata}</Metadata></Blob>"


def _xml(text: str) -> Answer:
    content = f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()
    return Answer(200, ["Content-Type: application/xml"], [content])


def _error(status: int, code: str, message: str = "") -> Answer:
    answer = _xml(f"<Error><Code>{code}</Code><Message>{escape(message or code)}</Message></Error>")
    return Answer(status, [*answer.headers, f"x-ms-error-code: {code}"], answer.body)


def _decoded(text: str) -> str:
    return unquote(text) if "%" in text else text


_clock = (0, "")


def _now() -> str:
    """The time as headers have it, made once a second."""
    global _clock
    second = int(time.time())
    if _clock[0] != second:
        _clock = (second, formatdate(second, usegmt=True))
    return _clock[1]
