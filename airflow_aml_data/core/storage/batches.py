"""Many small things at a time: one task, or one request, for each of 100,000 files would cost more than the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def in_batches(items: Iterable[T], size_bytes: Callable[[T], int], most: int, most_bytes: int) -> Iterator[list[T]]:
    """Neighbours together: at most ``most`` of them and ``most_bytes`` bytes, but never none."""
    batch: list[T] = []
    total = 0
    for each in items:
        size = size_bytes(each)
        if batch and (len(batch) == most or total + size > most_bytes):
            yield batch
            batch, total = [], 0
        batch.append(each)
        total += size
    if batch:
        yield batch
