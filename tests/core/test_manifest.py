"""What a committed output consists of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.manifest import Manifest, ManifestEntry, manifest_path, missing_or_changed, read_local
from airflow_aml_data.errors import DataChanged

NAMES = st.binary(min_size=1, max_size=20).map(lambda raw: raw.replace(b"\0", b"_").decode("utf-8", "surrogateescape"))
ENTRIES = st.lists(
    st.builds(ManifestEntry, NAMES, st.integers(0, 2**63), st.text("0123456789abcdef"), st.text()), max_size=8
)


@given(ENTRIES)
def test_a_manifest_comes_back_as_it_was(entries):
    manifest = Manifest.of(entries)
    again = Manifest.from_bytes(manifest.to_bytes())
    assert list(again.entries) == entries
    assert again.digest == manifest.digest


@given(ENTRIES.filter(bool), st.data())
def test_a_manifest_cut_short_is_refused(entries, data):
    content = Manifest.of(entries).to_bytes()
    cut = data.draw(st.integers(0, len(content) - 2))
    with pytest.raises(ValueError):
        Manifest.from_bytes(content[:cut])


@pytest.mark.parametrize(
    "content",
    [
        b'{"manifest_version": 9, "files": []}',
        b"[]",
        b'{"manifest_version": 1}',
        b'{"manifest_version": 1, "files": [["a"]]}',
    ],
)
def test_anything_else_is_refused(content):
    with pytest.raises(ValueError, match="manifest"):
        Manifest.from_bytes(content)


def test_the_digest_depends_on_content_and_not_on_the_place():
    one = Manifest.of([ManifestEntry("a", 1, "c", "etag")])
    assert one.digest == Manifest.of([ManifestEntry("a", 1, "c", "other")]).digest
    for changed in (
        ManifestEntry("b", 1, "c", "etag"),
        ManifestEntry("a", 2, "c", "etag"),
        ManifestEntry("a", 1, "d", "etag"),
    ):
        assert Manifest.of([changed]).digest != one.digest


def test_missing_changed_and_extra_files_are_told_apart():
    manifest = Manifest.of([ManifestEntry(name, 1, "c", "1") for name in ("same", "gone", "changed")])
    assert missing_or_changed(manifest, iter([("same", "1"), ("changed", "2"), ("extra", "1")])) == (
        ["gone", "changed"],
        ["extra"],
    )


def test_a_checksum_sees_every_byte(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"x" * 2_999_999 + b"y")
    a, b = read_local((name, str(tmp_path / name)) for name in ("a", "b"))
    assert (a.path, a.size_bytes, b.size_bytes) == ("a", 3_000_000, 3_000_000)
    assert a.checksum != b.checksum


def test_a_manifest_with_a_path_out_of_its_output_reads_nothing(steps):
    """Somebody who can write the store, but not the reference, cannot lead a reader out of it."""
    made = steps.write()
    (steps.root.parent / "secret").write_text("s")
    evil = Manifest.of([ManifestEntry("../../../../secret", 1, "c", "e")])
    (steps.root / made.manifest).write_bytes(evil.to_bytes())
    with pytest.raises(DataChanged):
        made.download()
    from dataclasses import replace

    with pytest.raises(DataChanged):
        replace(made, manifest_digest=evil.digest).download()


def test_manifests_of_two_outputs_have_two_places():
    assert manifest_path("run", "a") != manifest_path("run", "b")
