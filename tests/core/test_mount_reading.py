"""Reading ahead: every byte where it belongs, whatever is asked for in whatever order, and not much that nobody asked for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.fuse.reading import ReadAhead, Reader
from airflow_aml_data.core.storage.base import StoredFile
from airflow_aml_data.errors import StorageError

_MIB = 1024 * 1024
_CONTENT = b"".join(number.to_bytes(4, "little") for number in range(5 * _MIB // 4 + 1))


class Store:
    """A store of one file in memory, which counts what is taken from it and fails when told so."""

    def __init__(self, content: bytes = _CONTENT) -> None:
        self.content, self.asked, self.fails = content, [], False
        self._lock = threading.Lock()

    def read_range(self, file: StoredFile, start: int, length: int) -> bytes:
        with self._lock:
            self.asked.append((start, length))
            if self.fails:
                raise StorageError("out of order")
        return self.content[start : start + length]

    def reader(self, ahead: ReadAhead) -> Reader:
        return Reader(ahead, self, StoredFile("f", len(self.content), "e"), 1)


@pytest.fixture(scope="module")
def ahead():
    return ReadAhead()


def joined(parts):
    return b"".join(parts)


@given(
    size=st.integers(0, len(_CONTENT)),
    reads=st.lists(st.tuples(st.integers(0, len(_CONTENT)), st.integers(1, 2 * _MIB)), max_size=12),
    threads=st.sampled_from([1, 4]),
)
def test_any_reads_in_any_order(ahead, size, reads, threads):
    store = Store(_CONTENT[:size])
    reader = store.reader(ahead)
    with ThreadPoolExecutor(threads) as pool:
        got = list(pool.map(lambda each: joined(reader.read(*each)), reads))
    reader.close()
    assert got == [store.content[at : at + length] for at, length in reads]


@pytest.mark.parametrize("start", [0, 123_456])
@pytest.mark.parametrize("swap", [False, True], ids=["in order", "neighbours out of order"])
def test_from_front_to_back_everything_is_fetched_once_and_in_large_pieces(ahead, start, swap):
    store = Store(_CONTENT * 6)
    reader = store.reader(ahead)
    offsets = list(range(start, len(store.content), 131_072))
    if swap and start == 0:
        offsets[2:-2] = [each for pair in zip(offsets[3:-1:2], offsets[2:-2:2], strict=False) for each in pair]
    for at in offsets:
        assert joined(reader.read(at, 131_072)) == store.content[at : at + 131_072]
    reader.close()

    pieces = sorted(store.asked)
    assert all(begin + length <= after for (begin, length), (after, _) in pairwise(pieces))
    assert len(pieces) < 20


def test_reads_here_and_there_fetch_what_they_ask_for(ahead):
    store = Store(_CONTENT * 20)
    reader = store.reader(ahead)
    for number in range(1, 101):
        at = number * 7_919_000 % (len(store.content) - 65_536)
        assert joined(reader.read(at, 65_536)) == store.content[at : at + 65_536]
    reader.close()
    assert sum(length for _, length in store.asked) == 100 * 65_536


def test_the_first_bytes_of_a_file_do_not_bring_the_rest(ahead):
    store = Store()
    reader = store.reader(ahead)
    reader.read(0, 4096)
    assert sum(length for _, length in store.asked) <= 512 * 1024
    reader.close()


def test_what_failed_is_fetched_again_when_it_is_asked_for_again(ahead):
    store = Store()
    reader = store.reader(ahead)
    store.fails = True
    for _ in range(2):
        with pytest.raises(StorageError):
            reader.read(0, 4096)
    store.fails = False
    assert joined(reader.read(0, 4096)) == _CONTENT[:4096]
    reader.close()


def test_many_open_files_share_the_memory():
    ahead = ReadAhead()
    stores = [Store(_CONTENT * 2) for _ in range(100)]
    readers = [each.reader(ahead) for each in stores]
    for at in range(0, 8 * _MIB, 131_072):
        for each in readers:
            each.read(at, 131_072)
    held = sum(run.end - run.start for each in readers for run in each._runs)
    assert held <= 80 * _MIB
