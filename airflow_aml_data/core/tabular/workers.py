"""Work on two items at once, with the results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

from airflow_aml_data.errors import AmlDataError

S = TypeVar("S")
T = TypeVar("T")

_MOST_THREADS = 4  # each holds an item and its result


def in_order(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Yield what the work makes of each item; on threads, few items ahead of what is asked for.

    Items are made on the caller's thread. An error comes after the results before it.
    """
    source = iter(items)
    first = list(islice(source, 2))
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    if len(first) < 2 or threads < 2:
        yield from map(work, chain(first, source))
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in chain(first, source):
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
        except AmlDataError:  # of the next item
            yield from _results(waiting)
            raise
        else:
            yield from _results(waiting)
        finally:
            for each in waiting:
                each.cancel()


def _results(waiting: deque[Future[T]]) -> Iterator[T]:
    while waiting:
        yield waiting.popleft().result()
