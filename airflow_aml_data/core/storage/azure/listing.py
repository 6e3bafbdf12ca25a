"""What is in a container, with what obstore leaves out: checksums, and which blobs are marks of folders."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote
from xml.etree import ElementTree

from airflow_aml_data.core.storage.azure.rest import Container
from airflow_aml_data.core.storage.base import StoredFile
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import StorageError

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
    requests = Requests()

    def fetch(marker: str) -> Page:
        return requests.retry("Listing", lambda: list_page(container, prefix, marker))

    upcoming = requests.start(lambda: fetch(""))
    while True:
        page = upcoming()
        if page.marker:
            upcoming = requests.start(lambda marker=page.marker: fetch(marker))  # type: ignore[misc]
        yield page
        if not page.marker:
            return


def list_page(container: Container, prefix: str, marker: str = "", limit: int = _PAGE) -> Page:
    """One request."""
    query = {"restype": "container", "comp": "list", "include": "metadata", "maxresults": str(limit), "prefix": prefix}
    answer = container.request("list", "GET", query=query | ({"marker": marker} if marker else {}))
    try:
        return _page(ElementTree.fromstring(answer.content), prefix)  # noqa: S314 - the storage service's own
    except (ElementTree.ParseError, LookupError, ValueError):  # a damaged one may name any encoding
        raise StorageError(f"{container}: a listing came cut short or damaged.") from None


def _page(root: ElementTree.Element, prefix: str) -> Page:
    """What a listing says.

    :raises ValueError: when it is none, or not the one that was asked for.
    """
    page = Page([], [], root.findtext("NextMarker") or "")
    for blob in root.iterfind("Blobs/Blob"):
        name, properties = _name(blob), blob.find("Properties")
        if properties is None:
            raise ValueError(f"no properties of {name!r}")
        if not name.startswith(prefix):
            raise ValueError(f"{name!r} does not begin with {prefix!r}")
        size = int(properties.findtext("Content-Length") or 0)
        if _is_mark(name, size, blob, properties):
            page.marks.append(name)
        else:
            page.files.append(_stored(name, size, properties))
    return page


def _name(blob: ElementTree.Element) -> str:
    name = blob.find("Name")
    if name is None:
        return ""
    return unquote(name.text or "") if name.get("Encoded") == "true" else name.text or ""


def _is_mark(name: str, size: int, blob: ElementTree.Element, properties: ElementTree.Element) -> bool:
    if size:
        return False
    is_folder = blob.findtext("Metadata/hdi_isfolder") or blob.findtext("Metadata/Hdi_isfolder") or ""
    return name.endswith("/") or is_folder.lower() == "true" or properties.findtext("ResourceType") == "directory"


def _stored(name: str, size: int, properties: ElementTree.Element) -> StoredFile:
    md5 = properties.findtext("Content-MD5")
    return StoredFile(
        name,
        size,
        (properties.findtext("Etag") or "").strip('"'),
        _seconds(properties.findtext("Last-Modified") or ""),
        f"md5:{base64.b64decode(md5).hex()}" if md5 else "",
    )


@lru_cache
def _seconds(date: str) -> float:
    """Neighbours were often written in the same second."""
    return parsedate_to_datetime(date).timestamp()
