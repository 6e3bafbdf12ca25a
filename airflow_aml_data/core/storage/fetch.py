"""Bring files of a remote store to this machine: in parallel, verified, and never half."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from airflow_aml_data.core.storage.base import Placement, Progress, StoredFile
from airflow_aml_data.core.storage.batches import in_batches
from airflow_aml_data.core.storage.client import ObjectClient
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import DataChanged, StorageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

RANGE_BYTES = 3 * 1024 * 1024
"""What one request moves of a large file."""
SMALL_BYTES = 512 * 1024
"""Files up to here are moved whole, many at once."""
SMALL_THREADS = 48
"""For files of a few KiB, of which each waits longer than it takes."""
LARGE_THREADS = 8
BATCH_FILES, BATCH_BYTES = 64, 512 * 1024
_IN_MEMORY_BYTES = 12 * 1024 * 1024
"""Of small files at a time, about."""
_VERIFY_BYTES = 1024 * 1024
_FETCHES = 3
"""How often a file is fetched whose content is not what its checksum says: the network may have been at fault."""


_IsThere = Callable[[Placement], bool]
_Moved = Callable[[tuple[int, int]], None]


def fetch(client: ObjectClient, placements: Sequence[Placement], folder: Path, progress: Progress) -> None:
    """Bring files below ``folder``; a file that is there already, whole and right, stays as it is.

    :raises DataChanged: naming a file that is no longer what its placement says.
    """
    moved: _Moved = lambda done: progress(*done)  # noqa: E731
    parents = {each.target.rpartition("/")[0] for each in placements}
    new = {each for each in parents if not (folder / each).exists()}
    for each in parents:
        (folder / each).mkdir(parents=True, exist_ok=True)

    def is_there(placement: Placement) -> bool:
        file, target = placement
        return target.rpartition("/")[0] not in new and is_whole(file, f"{folder}/{target}")

    _fetch_small(client, [each for each in placements if each.file.size_bytes <= SMALL_BYTES], folder, is_there, moved)
    _fetch_large(client, [each for each in placements if each.file.size_bytes > SMALL_BYTES], folder, is_there, moved)


def read_whole(client: ObjectClient, requests: Requests, file: StoredFile) -> Buffer:
    """The content of a file that fits into memory, verified."""
    what = f"Reading {file.path!r}"
    for _ in range(_FETCHES):
        content = requests.retry(what, lambda: read_exactly(client, file, 0, file.size_bytes))
        if _digest(file.checksum, content) == file.checksum:
            return content
        log.warning("%s: what came has another checksum than it should have.", what)
    raise changed(client, file)


def read_exactly(client: ObjectClient, file: StoredFile, start: int, length: int) -> Buffer:
    """Bytes of a file, no less than asked for.

    :raises StorageError: when the answer was cut short.
    """
    content = client.read(file, start, length)
    if (got := memoryview(content).nbytes) != length:
        raise StorageError(f"{file.path!r} in {client.describe()}: {got} of {length} bytes came.")
    return content


def changed(client: ObjectClient, file: StoredFile) -> DataChanged:
    """What is raised for a file whose content is not what its checksum says."""
    return DataChanged(
        f"{file.path!r} in {client.describe()} is not what it should be: its content has another checksum than {file.checksum}. "
        "It was changed or damaged since. Run what wrote it again."
    )


def hasher(checksum: str) -> Any:
    """Computes a checksum of the kind of this one; None when it is of no kind."""
    kind = checksum.partition(":")[0]
    if kind == "xxh3":
        return xxhash.xxh3_128()
    return hashlib.md5(usedforsecurity=False) if kind == "md5" else None


def _digest(checksum: str, content: Buffer) -> str:
    digest = hasher(checksum)
    if digest is None:
        return checksum
    digest.update(content)
    return f"{checksum.partition(':')[0]}:{digest.hexdigest()}"


def is_whole(file: StoredFile, local: str) -> bool:
    """Whether a local file is this stored one; never without a checksum to tell."""
    digest = hasher(file.checksum)
    try:
        if digest is None or os.stat(local).st_size != file.size_bytes:  # noqa: PTH116 - one of 100,000
            return False
        with open(local, "rb") as opened:  # noqa: PTH123
            while block := opened.read(_VERIFY_BYTES):
                digest.update(block)
    except FileNotFoundError:
        return False
    return f"{file.checksum.partition(':')[0]}:{digest.hexdigest()}" == file.checksum


def small_threads(batch_bytes: Iterable[int]) -> int:
    """How many batches of small files to move at once.

    :param batch_bytes: Of each batch.
    """
    return min(SMALL_THREADS, _IN_MEMORY_BYTES // max(1, max(batch_bytes, default=1)))


def _fetch_small(
    client: ObjectClient, placements: Sequence[Placement], folder: Path, is_there: _IsThere, moved: _Moved
) -> None:
    batches = list(in_batches(placements, lambda each: each.file.size_bytes, BATCH_FILES, BATCH_BYTES))
    threads = small_threads(sum(each.file.size_bytes for each in batch) for batch in batches)
    requests, writing = Requests(threads), threading.Lock()

    def fetch_batch(batch: Sequence[Placement]) -> tuple[int, int]:
        missing = [each for each in batch if not is_there(each)]
        contents = [read_whole(client, requests, each.file) for each in missing]
        # In turns: threads that write small files side by side spend their time on waiting for each other.
        with writing:
            _write_files(zip(missing, contents, strict=True), folder, requests)
        return len(batch), sum(each.file.size_bytes for each in batch)

    requests.each(fetch_batch, batches, moved)


def _write_files(contents: Iterable[tuple[Placement, Buffer]], folder: Path, requests: Requests) -> None:
    partial = f"{folder}/.{uuid.uuid4().hex}.partial"
    try:
        for placement, content in contents:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                _write(descriptor, content, 0)
            finally:
                os.close(descriptor)
            requests.check()
            os.rename(partial, f"{folder}/{placement.target}")  # noqa: PTH104 - of 100,000
    finally:
        if os.path.lexists(partial):
            os.unlink(partial)  # noqa: PTH108


class _Piece(NamedTuple):
    """One range of a large file."""

    file: _LargeFile
    start: int


def _fetch_large(
    client: ObjectClient, placements: Sequence[Placement], folder: Path, is_there: _IsThere, moved: _Moved
) -> None:
    left = list(placements)
    for _ in range(_FETCHES):
        if not left:
            return
        opened: list[_LargeFile] = []
        damaged: list[Placement] = []
        requests = Requests(LARGE_THREADS)

        def fetch_piece(
            piece: _Piece, requests: Requests = requests, damaged: list[Placement] = damaged
        ) -> tuple[int, int]:
            file, length = piece.file.placement.file, piece.file.length(piece.start)
            what = f"Reading {file.path!r}"
            content = requests.retry(what, lambda: read_exactly(client, file, piece.start, length))
            if not piece.file.put(piece.start, content):
                return 0, length
            if piece.file.finish():
                return 1, length
            log.warning("%s: what came has another checksum than it should have.", what)
            damaged.append(piece.file.placement)
            return 0, length - file.size_bytes

        try:
            requests.each(fetch_piece, _pieces(left, folder, is_there, opened, moved), moved)
        finally:
            for each in opened:
                each.abandon()
        left = damaged
    raise changed(client, left[0].file)


def _pieces(
    placements: Sequence[Placement],
    folder: Path,
    is_there: _IsThere,
    opened: list[_LargeFile],
    moved: _Moved,
) -> Iterator[_Piece]:
    for placement in placements:
        if is_there(placement):
            moved((1, placement.file.size_bytes))
            continue
        file = _LargeFile(placement, folder)
        opened.append(file)
        for start in range(0, placement.file.size_bytes, RANGE_BYTES):
            yield _Piece(file, start)


class _LargeFile:
    """A file that comes in ranges, in any order; it gets its name when it is whole and right."""

    def __init__(self, placement: Placement, folder: Path) -> None:
        self.placement = placement
        self._target = folder / placement.target
        self._partial = self._target.with_name(f".{uuid.uuid4().hex}.partial")
        self._descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._open = True
        self._lock = threading.Lock()
        self._digest = hasher(placement.file.checksum)
        self._hashed = 0
        self._written: set[int] = set()
        self._missing = placement.file.size_bytes

    def length(self, start: int) -> int:
        return min(RANGE_BYTES, self.placement.file.size_bytes - start)

    def put(self, start: int, content: Buffer) -> bool:
        """Write a range; whether it was the last that was missing."""
        with self._lock:
            if not self._open:
                return False
            _write(self._descriptor, content, start)
            self._written.add(start)
            self._missing -= self.length(start)
            if self._digest is not None and start == self._hashed:
                self._digest.update(content)
                self._hashed += self.length(start)
                self._hash_written()
            return self._missing == 0

    def _hash_written(self) -> None:
        """Go on with ranges that came before their turn."""
        while self._hashed in self._written:
            end = self._hashed + self.length(self._hashed)
            while self._hashed < end:
                block = os.pread(self._descriptor, min(_VERIFY_BYTES, end - self._hashed), self._hashed)
                self._digest.update(block)
                self._hashed += len(block)

    def finish(self) -> bool:
        """Give a whole file its name when its checksum is right, else remove it."""
        checksum = self.placement.file.checksum
        is_right = self._digest is None or f"{checksum.partition(':')[0]}:{self._digest.hexdigest()}" == checksum
        with self._lock:
            if self._open and is_right:
                self._partial.rename(self._target)
        self.abandon()
        return is_right

    def abandon(self) -> None:
        """Close it, and remove what has not got its name; nobody writes to it after that."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._descriptor)
                self._partial.unlink(missing_ok=True)


def _write(descriptor: int, content: Buffer, start: int) -> None:
    rest = memoryview(content).cast("B")
    while rest:
        done = os.pwrite(descriptor, rest, start)
        rest, start = rest[done:], start + done
