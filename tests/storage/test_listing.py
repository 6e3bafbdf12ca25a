"""Listings of Azure Blob storage, read by expressions: what a parser of XML reads in them, or an error."""

from __future__ import annotations

import base64
from email.utils import formatdate
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.storage.azure.listing import Page, parse_page, parse_survey
from airflow_aml_data.core.storage.base import StoredFile

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), max_size=12
)
DIGEST = base64.b64encode(bytes(range(16))).decode()


@st.composite
def blobs(draw: st.DrawFn, with_metadata: bool = True) -> str:
    """A blob as the service may describe it; elements in any order."""
    elements = [
        f"<Last-Modified>{formatdate(draw(st.integers(0, 2_000_000_000)), usegmt=True)}</Last-Modified>",
        f"<Etag>{draw(st.sampled_from(['0x8DE', '&quot;0x8DF&quot;']))}</Etag>",
        f"<Content-Length>{draw(st.integers(0, 3))}</Content-Length>",
        draw(
            st.sampled_from(["<Content-MD5 />", "<Content-MD5></Content-MD5>", f"<Content-MD5>{DIGEST}</Content-MD5>"])
        ),
        "<Creation-Time>Mon, 01 Jan 2024 00:00:00 GMT</Creation-Time><BlobType>BlockBlob</BlobType><Cache-Control />",
        draw(st.sampled_from(["", "<ResourceType>directory</ResourceType>", "<ResourceType>file</ResourceType>"])),
    ]
    name = draw(TEXT)
    encoded = draw(st.sampled_from(["", ' Encoded="true"']))
    keys = draw(
        st.lists(st.sampled_from(["Name", "Etag", "Content-Length", "hdi_isfolder", "Hdi_isfolder"]), unique=True)
    )
    values = st.sampled_from(["true", "True", "5", "x"])
    metadata = "".join(f"<{each}>{draw(values)}</{each}>" for each in keys) if with_metadata else ""
    properties = "".join(draw(st.permutations(elements)))
    tail = draw(st.sampled_from(["", "<OrMetadata />"]))
    return (
        f"<Blob><Name{encoded}>in/{escape(name)}</Name><VersionId>2024</VersionId><Properties>{properties}</Properties>"
        f"<Metadata>{metadata}</Metadata>{tail}</Blob>"
    )


def listing(found: list[str], marker: str = "") -> bytes:
    return (
        '\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://x/"><Prefix>in/</Prefix>'
        f"<Blobs>{''.join(found)}</Blobs><NextMarker>{escape(marker)}</NextMarker></EnumerationResults>"
    ).encode()


def by_a_parser(content: bytes) -> tuple[list[tuple[str, int, str, str]], list[str], str]:
    """Files, marks and marker, as a parser of XML finds them."""
    from urllib.parse import unquote

    root = ElementTree.fromstring(content)
    files, marks = [], []
    for blob in root.iterfind("Blobs/Blob"):
        element = blob.find("Name")
        assert element is not None
        name = unquote(element.text or "") if element.get("Encoded") == "true" else element.text or ""
        size = int(blob.findtext("Properties/Content-Length") or 0)
        folder = blob.findtext("Metadata/hdi_isfolder") or "", blob.findtext("Metadata/Hdi_isfolder") or ""
        kind = blob.findtext("Properties/ResourceType")
        if not size and (name.endswith("/") or kind == "directory" or "true" in [each.lower() for each in folder]):
            marks.append(name)
        else:
            etag = (blob.findtext("Properties/Etag") or "").strip('"')
            files.append((name, size, etag, blob.findtext("Properties/Content-MD5") or ""))
    return files, marks, root.findtext("NextMarker") or ""


@given(st.lists(blobs(), max_size=5), TEXT)
def test_a_page_says_what_a_parser_of_xml_reads(found: list[str], marker: str) -> None:
    content = listing(found, marker)
    page = parse_page(content, "in/")
    files, marks, following = by_a_parser(content)
    assert [(each.path, each.size_bytes, each.etag) for each in page.files] == [each[:3] for each in files]
    assert [each.checksum for each in page.files] == [
        f"md5:{bytes(range(16)).hex()}" if each[3] else "" for each in files
    ]
    assert (page.marks, page.marker) == (marks, following)


@given(st.lists(blobs(with_metadata=False), max_size=5), TEXT)
def test_a_survey_says_the_same_with_the_marks(found: list[str], marker: str) -> None:
    content = listing(found, marker)
    survey, following = parse_survey(content, "in/")
    page = parse_page(content, "in/")
    told = {(each.path, each.size_bytes, each.modified) for each in page.files}
    surveyed = list(zip(*survey, strict=True))
    assert told <= set(surveyed)
    assert sorted(each[0] for each in surveyed) == sorted([*(each.path for each in page.files), *page.marks])
    assert following == page.marker


@given(st.lists(blobs(), min_size=1, max_size=3), st.data())
def test_what_is_cut_short_is_no_page(found: list[str], data: st.DataObject) -> None:
    content = listing(found, "next")
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    for parse in (parse_page, parse_survey):
        with pytest.raises((ValueError, LookupError)):
            parse(cut, "in/")


def test_a_page_of_another_folder_is_refused() -> None:
    content = listing(
        [
            "<Blob><Name>x</Name><Properties><Last-Modified>Mon, 01 Jan 2024 00:00:00 GMT</Last-Modified><Etag>1</Etag>"
            "<Content-Length>1</Content-Length></Properties></Blob>"
        ]
    )
    assert parse_page(content, "") == Page([StoredFile("x", 1, "1", 1704067200.0)], [], "")
    for parse in (parse_page, parse_survey):
        with pytest.raises(ValueError, match="begin"):
            parse(content, "in/")


@given(st.lists(blobs(), max_size=5))
def test_a_survey_is_not_confused_by_metadata(found: list[str]) -> None:
    survey, _ = parse_survey(listing(found), "in/")
    assert {each.path for each in parse_page(listing(found), "in/").files} <= set(survey.paths)
