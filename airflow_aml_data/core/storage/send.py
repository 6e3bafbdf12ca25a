"""Bring local files to a remote store: in parallel, and looked at again where nothing else guards them on their way."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from airflow_aml_data.core.storage.base import Progress, StoredFile
from airflow_aml_data.core.storage.batches import in_batches
from airflow_aml_data.core.storage.client import ObjectClient
from airflow_aml_data.core.storage.fetch import (
    BATCH_BYTES,
    BATCH_FILES,
    LARGE_THREADS,
    RANGE_BYTES,
    SMALL_BYTES,
    read_exactly,
    small_threads,
)
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import DataChanged, StorageError

_LARGE_AT_ONCE = 2
"""Large files at once: each is sent in blocks, several at a time."""


class _Sending(NamedTuple):
    """A local file, its place among the others, and where it goes."""

    place: int
    local: str
    path: str
    size_bytes: int


_Sent = list[tuple[int, StoredFile]]


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
    :raises DataChanged: when a local file becomes longer or shorter meanwhile.
    """
    sendings = [_Sending(i, local, path, os.stat(local).st_size) for i, (local, path) in enumerate(files)]  # noqa: PTH116
    small = [each for each in sendings if each.size_bytes <= SMALL_BYTES]
    middling = [[each] for each in sendings if SMALL_BYTES < each.size_bytes <= RANGE_BYTES]
    large = [[each] for each in sendings if each.size_bytes > RANGE_BYTES]
    batches = list(in_batches(small, lambda each: each.size_bytes, BATCH_FILES, BATCH_BYTES))

    stored: list[StoredFile | None] = [None] * len(sendings)

    def arrived(sent: _Sent) -> None:
        for place, file in sent:
            stored[place] = file
        progress(len(sent), sum(file.size_bytes for _, file in sent))

    sender = _Sender(client, metadata, reads_back)
    for threads, of_that_size, send_batch in (
        (small_threads(sum(each.size_bytes for each in batch) for batch in batches), batches, sender.send_whole),
        (LARGE_THREADS, middling, sender.send_whole),
        (_LARGE_AT_ONCE, large, sender.send_in_blocks),
    ):
        requests = Requests(threads)
        requests.each(partial(send_batch, requests), of_that_size, arrived)
    return [each for each in stored if each is not None]


class _Sender:
    """Sends a few files, as :func:`send` says."""

    def __init__(self, client: ObjectClient, metadata: Mapping[str, str], reads_back: bool) -> None:
        self._client, self._metadata, self._reads_back = client, metadata, reads_back
        self._reading = threading.Lock()

    def send_whole(self, requests: Requests, batch: Sequence[_Sending]) -> _Sent:
        # In turns: threads that read small files side by side spend their time on waiting for each other.
        with self._reading:
            contents = [_read(each) for each in batch]
        return [
            (each.place, requests.retry(f"Writing {each.path!r}", partial(self._write, each.path, content)))
            for each, content in zip(batch, contents, strict=True)
        ]

    def send_in_blocks(self, requests: Requests, batch: Sequence[_Sending]) -> _Sent:
        return [
            (each.place, requests.retry(f"Writing {each.path!r}", partial(self._write_large, each))) for each in batch
        ]

    def _write(self, path: str, content: bytes) -> StoredFile:
        stored = self._client.write(path, content, self._metadata)
        if self._reads_back and content and bytes(read_exactly(self._client, stored, 0, len(content))) != content:
            raise self._damaged(path)
        return stored

    def _write_large(self, sending: _Sending) -> StoredFile:
        local = Path(sending.local)
        stored = self._client.write_large(sending.path, local, sending.size_bytes, self._metadata)
        if self._reads_back:
            self._compare(stored, local)
        return stored

    def _compare(self, stored: StoredFile, local: Path) -> None:
        """Read a large file again, in ranges.

        :raises StorageError: when it is not what was sent.
        """
        requests = Requests(LARGE_THREADS // _LARGE_AT_ONCE)

        def compare(start: int) -> None:
            length = min(RANGE_BYTES, stored.size_bytes - start)
            read = partial(read_exactly, self._client, stored, start, length)
            content = requests.retry(f"Reading back {stored.path!r}", read)
            with local.open("rb") as opened:
                if os.pread(opened.fileno(), length, start) != bytes(content):
                    raise self._damaged(stored.path)

        requests.each(compare, list(range(0, stored.size_bytes, RANGE_BYTES)))

    def _damaged(self, path: str) -> StorageError:
        return StorageError(f"{path!r} did not arrive in {self._client.describe()} as it was sent.")


def _read(sending: _Sending) -> bytes:
    with open(sending.local, "rb", buffering=0) as opened:  # noqa: PTH123 - one of 100,000
        content = opened.read()
    if len(content) != sending.size_bytes:
        raise DataChanged(
            f"{sending.local} was {sending.size_bytes} bytes long and is not any more. It was written to while it was sent."
        )
    return content
