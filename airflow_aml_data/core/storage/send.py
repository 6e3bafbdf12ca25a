"""Bring local files to a remote store: in parallel, and looked at again where nothing else guards them on their way."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from airflow_aml_data.core.storage.base import Progress, StoredFile
from airflow_aml_data.core.storage.client import ObjectClient
from airflow_aml_data.core.storage.fetch import LARGE_THREADS, RANGE_BYTES, SMALL_BYTES, SMALL_THREADS, read_exactly
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import StorageError

_BATCH_FILES = 64
_LARGE_AT_ONCE = 2
"""Large files at once: each is sent in blocks, several at a time."""


class Sending(NamedTuple):
    """A local file, its place among the others, and where it goes."""

    place: int
    local: str
    path: str
    size_bytes: int


_SendOne = Callable[[ObjectClient, Requests, Sending, Mapping[str, str], bool], StoredFile]


def send(
    client: ObjectClient,
    files: Sequence[tuple[str, str]],
    metadata: Mapping[str, str],
    progress: Progress,
    *,
    reads_back: bool,
) -> list[StoredFile]:
    """Bring local files to paths in the store, replacing what is there.

    :param reads_back: Compare what arrived with what was sent.
    :returns: The stored files, in the order of ``files``.
    """
    sendings = [Sending(i, local, path, os.stat(local).st_size) for i, (local, path) in enumerate(files)]  # noqa: PTH116
    stored: list[StoredFile | None] = [None] * len(sendings)

    def arrived(batch: list[tuple[int, StoredFile]]) -> None:
        for index, file in batch:
            stored[index] = file
        progress(len(batch), sum(file.size_bytes for _, file in batch))

    def send_all(threads: int, batches: Sequence[Sequence[Sending]], send_one: _SendOne) -> None:
        requests = Requests(threads)
        requests.each(
            lambda batch: [(each.place, send_one(client, requests, each, metadata, reads_back)) for each in batch],
            batches,
            arrived,
        )

    small = [each for each in sendings if each.size_bytes <= SMALL_BYTES]
    send_all(SMALL_THREADS, [small[at : at + _BATCH_FILES] for at in range(0, len(small), _BATCH_FILES)], _send_whole)
    send_all(LARGE_THREADS, [[each] for each in sendings if SMALL_BYTES < each.size_bytes <= RANGE_BYTES], _send_whole)
    send_all(_LARGE_AT_ONCE, [[each] for each in sendings if each.size_bytes > RANGE_BYTES], _send_large)
    return [each for each in stored if each is not None]


def _send_whole(
    client: ObjectClient, requests: Requests, sending: Sending, metadata: Mapping[str, str], reads_back: bool
) -> StoredFile:
    with open(sending.local, "rb") as opened:  # noqa: PTH123 - one of 100,000
        content = opened.read()

    def write() -> StoredFile:
        stored = client.write(sending.path, content, metadata)
        if reads_back and content and bytes(read_exactly(client, stored, 0, len(content))) != content:
            raise _damaged(client, sending.path)
        return stored

    return requests.retry(f"Writing {sending.path!r}", write)


def _send_large(
    client: ObjectClient, requests: Requests, sending: Sending, metadata: Mapping[str, str], reads_back: bool
) -> StoredFile:
    local = Path(sending.local)

    def write() -> StoredFile:
        stored = client.write_large(sending.path, local, sending.size_bytes, metadata)
        if reads_back:
            _compare(client, stored, local)
        return stored

    return requests.retry(f"Writing {sending.path!r}", write)


def _compare(client: ObjectClient, stored: StoredFile, local: Path) -> None:
    """Read a large file again, in ranges.

    :raises StorageError: when it is not what was sent.
    """
    requests = Requests(LARGE_THREADS // _LARGE_AT_ONCE)

    def compare(start: int) -> None:
        length = min(RANGE_BYTES, stored.size_bytes - start)
        what = f"Reading back {stored.path!r}"
        content = requests.retry(what, lambda: read_exactly(client, stored, start, length))
        with local.open("rb") as opened:
            if os.pread(opened.fileno(), length, start) != bytes(content):
                raise _damaged(client, stored.path)

    requests.each(compare, list(range(0, stored.size_bytes, RANGE_BYTES)))


def _damaged(client: ObjectClient, path: str) -> StorageError:
    return StorageError(f"{path!r} did not arrive in {client.describe()} as it was sent.")
