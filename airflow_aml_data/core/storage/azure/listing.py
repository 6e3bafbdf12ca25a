"""What is in a container, with what obstore leaves out: checksums, and which blobs are marks of folders."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from html import unescape
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from airflow_aml_data.core.storage.azure.rest import Container
from airflow_aml_data.core.storage.base import StoredFile, Survey
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import StorageError

P = TypeVar("P", bound=tuple[Any, ...])
"""A part of a listing. Its last field says where the next one begins; empty after the last."""

_PAGE = 5000


class Page(NamedTuple):
    """A part of a listing.

    :param marks: Names of blobs that stand for folders.
    :param marker: Where the next part begins; empty after the last.
    """

    files: list[StoredFile]
    marks: list[str]
    marker: str


def list_pages(container: Container, prefix: str) -> Iterator[Page]:
    """All blobs whose names begin with ``prefix``; the next part is fetched while one is worked on."""
    return _pages(lambda marker: list_page(container, prefix, marker))


def survey_pages(container: Container, prefix: str) -> Iterator[Survey]:
    """The same, twice as fast for it says less: marks of folders are among the blobs, and what one calls them is not checked."""
    parts = _pages(lambda marker: _listed(container, prefix, marker, _PAGE, "", parse_survey))
    return (survey for survey, _ in parts)


def list_page(container: Container, prefix: str, marker: str = "", limit: int = _PAGE) -> Page:
    """One request."""
    return _listed(container, prefix, marker, limit, "metadata", parse_page)


def _pages(fetch: Callable[[str], P]) -> Iterator[P]:
    requests = Requests()

    def start(marker: str) -> Callable[[], P]:
        return requests.start(lambda: requests.retry("Listing", lambda: fetch(marker)))

    upcoming = start("")
    while True:
        page = upcoming()
        marker: str = page[-1]
        if marker:
            upcoming = start(marker)
        yield page
        if not marker:
            return


def _listed(
    container: Container, prefix: str, marker: str, limit: int, include: str, parse: Callable[[bytes, str], P]
) -> P:
    query = {"restype": "container", "comp": "list", "maxresults": str(limit), "prefix": prefix}
    query |= {name: value for name, value in (("include", include), ("marker", marker)) if value}
    answer = container.request("list", "GET", query=query)
    try:
        return parse(answer.content, prefix)
    except (LookupError, ValueError):
        raise StorageError(f"{container}: a listing came cut short or damaged.") from None


def parse_page(content: bytes, prefix: str) -> Page:
    """What the XML of a listing says, three times as fast as by a parser of all XML, which there is no time for.

    :raises ValueError: when it is none, is cut short, or is not the one that was asked for; or :exc:`LookupError`.
    """
    blobs, marker = _blobs(content)
    page = Page([], [], marker)
    for blob in blobs:
        properties, closed, more = blob.partition(b"</Properties>")
        fields = dict(_FIELDS.findall(properties))
        name, size = _name(fields[b"Name"], properties), int(fields[b"Content-Length"])
        if not (closed and name.startswith(prefix)):
            raise ValueError(f"{name!r} does not begin with {prefix!r}")
        if not size and _is_mark(name, fields.get(b"ResourceType"), more):
            page.marks.append(name)
        else:
            page.files.append(_stored(name, size, fields))
    return page


def parse_survey(content: bytes, prefix: str) -> tuple[Survey, str]:
    """Names, sizes and times only, and where the next part begins.

    :raises ValueError: as :func:`parse_page`.
    """
    blobs, marker = _blobs(content)
    names, sizes, times = (each.findall(content) for each in (_NAMES, _SIZES, _TIMES))
    if not len(names) == len(sizes) == len(times) == len(blobs):
        page = parse_page(content, prefix)  # there is metadata, and some of it is called like that
        return next(Survey.of(page.files), Survey([], [], [])), marker
    paths = [unquote(_text(name)) if encoded else _text(name) for encoded, name in names]
    if not all(each.startswith(prefix) for each in paths):
        raise ValueError(f"not every name begins with {prefix!r}")
    return Survey(paths, list(map(int, sizes)), list(map(_seconds, times))), marker


def _blobs(content: bytes) -> tuple[list[bytes], str]:
    """The parts of a listing that stand for a blob each, and where the next part begins."""
    text = content.strip()
    head, *blobs = text.split(b"<Blob>")
    end = blobs[-1].partition(b"</Blob>")[2] if blobs else head
    if not text.endswith(b"</EnumerationResults>") or text.count(b"</Blob>") != len(blobs) or b"<NextMarker" not in end:
        raise ValueError("not a whole listing")
    return blobs, _text(found[1]) if (found := _MARKER.search(end)) else ""


_NAMES = re.compile(rb'<Name( Encoded="true")?>([^<]*)</Name>')
_SIZES = re.compile(rb"<Content-Length>(\d+)</Content-Length>")
_TIMES = re.compile(rb"<Last-Modified>([^<]*)</Last-Modified>")
_FIELDS = re.compile(rb"<(Name|Last-Modified|Etag|Content-Length|Content-MD5|ResourceType)(?: [^>]*)?>([^<]*)</")
_MARKER = re.compile(rb"<NextMarker>([^<]*)</NextMarker>")
_IS_FOLDER = re.compile(rb"<Metadata>.*<[Hh]di_isfolder>[Tt]rue<", re.DOTALL)


def _text(content: bytes) -> str:
    text = content.decode()
    return unescape(text) if "&" in text else text


def _name(content: bytes, blob: bytes) -> str:
    name = _text(content)
    return unquote(name) if b'<Name Encoded="true">' in blob else name


def _is_mark(name: str, kind: bytes | None, metadata: bytes) -> bool:
    """Whether an empty blob stands for a folder."""
    return name.endswith("/") or kind == b"directory" or _IS_FOLDER.search(metadata) is not None


def _stored(name: str, size: int, fields: Mapping[bytes, bytes]) -> StoredFile:
    md5 = fields.get(b"Content-MD5")
    return StoredFile(
        name,
        size,
        _text(fields[b"Etag"]).strip('"'),
        _seconds(fields[b"Last-Modified"]),
        f"md5:{base64.b64decode(md5).hex()}" if md5 else "",
    )


@lru_cache
def _seconds(date: bytes) -> float:
    """Neighbours were often written in the same second."""
    return parsedate_to_datetime(date.decode()).timestamp()
