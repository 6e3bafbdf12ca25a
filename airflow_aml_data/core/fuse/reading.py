"""Stored files, read in pieces: ahead of who reads from front to back, and no more than asked for otherwise."""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue

from airflow_aml_data.core.fuse.messages import LARGEST
from airflow_aml_data.core.storage.base import Storage, StoredFile
from airflow_aml_data.errors import AmlDataError

_MEMORY = 80 * 1024 * 1024
"""What all files together may hold in memory of what was read ahead."""
_SHORT = 512 * 1024
"""A file up to this size is fetched as a whole."""
_LONG = 4 * 1024 * 1024
"""Bytes of one request to a store at most."""
_LEAST = 256 * 1024
_FETCHERS = 8


class ReadAhead:
    """Fetches what will soon be read, and counts."""

    def __init__(self) -> None:
        self._wanted: SimpleQueue[_Run] = SimpleQueue()
        self._lock = threading.Lock()
        self._readers = 0
        self.files: set[int] = set()
        """The numbers of the files of which something was read."""
        self.fetched_bytes = 0
        for _ in range(_FETCHERS):
            threading.Thread(target=self._work, daemon=True).start()

    def fetch(self, storage: Storage, file: StoredFile, start: int, length: int) -> memoryview:
        content = memoryview(storage.read_range(file, start, length))
        with self._lock:
            self.fetched_bytes += len(content)
        return content

    def soon(self, run: _Run) -> None:
        self._wanted.put(run)

    def share(self) -> int:
        """What each of the files that are being read may hold in memory."""
        return max(_MEMORY // max(self._readers, 1), _LEAST)

    def count(self, readers: int) -> None:
        with self._lock:
            self._readers += readers

    def _work(self) -> None:
        while True:
            self._wanted.get().prepare()


class Reader:
    """Who reads an open file, from where to where.

    :param number: The file's, for counting.
    """

    def __init__(self, ahead: ReadAhead, storage: Storage, file: StoredFile, number: int) -> None:
        self._ahead, self._storage, self._file, self._number = ahead, storage, file, number
        self._lock = threading.Lock()
        self._runs: deque[_Run] = deque()
        """Neighbours, from front to back."""
        self._began = self._next = 0
        """Where the reading from front to back began; where the last read ended."""

    def read(self, offset: int, size: int) -> list[memoryview]:
        """Bytes of the file; fewer than ``size`` only at its end.

        :raises StorageError: when the store failed.
        :raises DataChanged: when the stored file is another one by now.
        """
        end = min(offset + size, self._file.size_bytes)
        if offset >= end:
            return []
        self._ahead.files.add(self._number)
        with self._lock:
            runs = self._runs_of(offset, end)
        if not runs:
            return [self._ahead.fetch(self._storage, self._file, offset, end - offset)]
        try:
            return [run.content()[max(offset - run.start, 0) : end - run.start] for run in runs]
        except BaseException:
            with self._lock:
                self._forget()  # what is asked for again is fetched again
            raise

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _runs_of(self, offset: int, end: int) -> list[_Run]:
        """What holds these bytes; nothing when the reading jumps."""
        adjoins, self._next = offset == self._next, end
        if not self._continues(offset):
            short = self._file.size_bytes <= _SHORT
            if not adjoins and not short:
                return []
            self._forget()
            self._began = 0 if short else offset
            self._ahead.count(1)
        self._extend(offset, end)
        behind = min(LARGEST, self._ahead.share() // 4)  # the kernel asks for neighbours in any order
        while self._runs[0].end <= offset - behind:
            self._runs.popleft()
        return [run for run in self._runs if run.start < end and run.end > offset]

    def _continues(self, offset: int) -> bool:
        return bool(self._runs) and self._runs[0].start <= offset <= self._runs[-1].end + LARGEST

    def _extend(self, offset: int, end: int) -> None:
        """Fetch ahead: the further, the more has been read."""
        share = self._ahead.share()
        until = min(max(end, offset + min(share // 2, 2 * (end - self._began))), self._file.size_bytes)
        at = self._runs[-1].end if self._runs else self._began
        while at < until:
            length = min(max(at - self._began, _SHORT), _LONG, share // 4, self._file.size_bytes - at)
            run = _Run(self, at, at + length)
            if at >= end:
                self._ahead.soon(run)
            self._runs.append(run)
            at += length

    def _forget(self) -> None:
        if self._runs:
            self._ahead.count(-1)
        for each in self._runs:
            each.wanted = False
        self._runs.clear()

    def fetch(self, start: int, end: int) -> memoryview:
        return self._ahead.fetch(self._storage, self._file, start, end - start)


class _Run:
    """A piece of a file, fetched by whoever needs it first."""

    __slots__ = ("_content", "_lock", "_reader", "end", "start", "wanted")

    def __init__(self, reader: Reader, start: int, end: int) -> None:
        self._reader, self.start, self.end = reader, start, end
        self._content: memoryview | None = None
        self._lock = threading.Lock()
        self.wanted = True

    def content(self) -> memoryview:
        with self._lock:
            if self._content is None:
                self._content = self._reader.fetch(self.start, self.end)
            return self._content

    def prepare(self) -> None:
        """Fetch it before it is needed; who needs it is told of errors."""
        with self._lock:
            if self.wanted and self._content is None:
                try:
                    self._content = self._reader.fetch(self.start, self.end)
                except AmlDataError:
                    return
