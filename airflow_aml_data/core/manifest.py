"""What a committed output consists of: every file with size, checksum and etag.

A manifest is three lines of JSON: a head; path, size and checksum of each file; the etags in the same order. It is
written once, after the bytes, and never changed; readers take exactly the files it names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from airflow_aml_data.core.identity import RESERVED_FOLDER

MANIFEST_VERSION = 1
_CHUNK = 1024 * 1024


class ManifestEntry(NamedTuple):
    """One file of an output.

    :param path: Relative to the output; ``""`` when the output itself is one file.
    :param checksum: xxh3-128 of the content, hexadecimal; of what an Azure ML job wrote ``md5:`` and that, or ``etag:`` and the etag.
    :param etag: The store's, at the moment of the commit.
    """

    path: str
    size_bytes: int
    checksum: str
    etag: str


class LocalFile(NamedTuple):
    """One file on this machine, read to its end.

    :param path: Relative to the folder it was found in; ``""`` when that was a file itself.
    :param checksum: As in a manifest.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of one committed output, sorted by path.

    :param digest: SHA-256 over paths, sizes and checksums: the same content has the same digest wherever it lies.
    """

    entries: Sequence[ManifestEntry]
    digest: str

    @classmethod
    def of(cls, entries: Sequence[ManifestEntry]) -> Manifest:
        """The manifest of these files."""
        return cls(entries, sha256(_content_line(entries)).hexdigest())

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)

    @property
    def is_single_file(self) -> bool:
        """Whether the script made the output a file instead of a folder."""
        return len(self.entries) == 1 and self.entries[0].path == ""

    def to_bytes(self) -> bytes:
        head = {"manifest_version": MANIFEST_VERSION, "files": len(self.entries)}
        etags = [entry.etag for entry in self.entries]
        return b"\n".join((json.dumps(head).encode(), _content_line(self.entries), json.dumps(etags).encode()))

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read a manifest back.

        :raises ValueError: when it is cut short or of another version.
        """
        lines = content.split(b"\n")
        head = json.loads(lines[0])
        if not isinstance(head, dict) or head.get("manifest_version") != MANIFEST_VERSION or len(lines) != 3:
            raise ValueError(f"not a manifest of version {MANIFEST_VERSION}")
        try:
            files = zip(json.loads(lines[1]), json.loads(lines[2]), strict=True)
            entries = [ManifestEntry(path, size, checksum, etag) for (path, size, checksum), etag in files]
        except TypeError as error:
            raise ValueError(f"not a whole manifest: {error}") from error
        if len(entries) != head.get("files"):
            raise ValueError(f"a manifest of {head.get('files')!r} files lists {len(entries)}")
        return cls(entries, sha256(lines[1]).hexdigest())


def _content_line(entries: Sequence[ManifestEntry]) -> bytes:
    return json.dumps([entry[:3] for entry in entries]).encode("ascii")


def manifest_path(step_run_id: str, output_name: str) -> str:
    """Where the manifest of an output lies, relative to its datastore's root."""
    return f"{RESERVED_FOLDER}/manifests/{step_run_id}/{output_name}.json"


def read_local(paths: Iterable[tuple[str, str]]) -> list[LocalFile]:
    """Local files with their checksums, in the order given and in constant memory.

    :param paths: What to call each file, and its path on this machine.
    """
    import xxhash  # not needed where manifests are only read: in a script's own environment

    buffer = memoryview(bytearray(_CHUNK))  # one for all: a new one for each read would take longer than the read
    found = []
    for path, file in paths:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            digest = xxhash.xxh3_128(buffer[: os.readv(descriptor, [buffer])])
            if status.st_size >= _CHUNK:
                while size := os.readv(descriptor, [buffer]):
                    digest.update(buffer[:size])
        finally:
            os.close(descriptor)
        found.append(LocalFile(path, status.st_size, status.st_mtime_ns, digest.hexdigest()))
    return found


def missing_or_changed(manifest: Manifest, found: Iterator[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Compare a manifest with what is stored.

    :param found: Relative path and etag of what is there, any order.
    :returns: Paths the manifest names that are gone or different, and paths it does not name.
    """
    expected = {entry.path: entry.etag for entry in manifest.entries}
    extra, changed = [], []
    for path, etag in found:
        known = expected.pop(path, None)
        if known is None:
            extra.append(path)
        elif known != etag:
            changed.append(path)
    return [*expected, *changed], extra
