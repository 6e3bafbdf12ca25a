"""One pass over a file: read ahead on a second thread, and the same file from beginning to end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from airflow_aml_data.core.tabular.base import TableFile
from airflow_aml_data.errors import DataChanged, DataNotReadable

T = TypeVar("T")


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, each made on another thread while the one before it is used."""
    end = object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]


@contextmanager
def unchanged(file: TableFile) -> Iterator[None]:
    """Read a file in the body.

    :raises DataChanged: at its end, or instead of what a half-written file made it raise, when the file was written to,
        replaced or removed meanwhile.
    """
    before = _state(file.path)
    try:
        yield
    except DataNotReadable as error:
        _check(file, before, error)
        raise
    _check(file, before, None)


def _state(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _check(file: TableFile, before: tuple[int, int, int], cause: Exception | None) -> None:
    try:
        how = "" if _state(file.path) == before else "changed"
    except FileNotFoundError:
        how = "was removed"
    if how:
        raise DataChanged(
            f"{file.name} {how} while it was read. Write data to a new folder instead of over what others read, and run this again."
        ) from cause
