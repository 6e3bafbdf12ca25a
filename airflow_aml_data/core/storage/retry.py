"""Requests to a store in parallel, each retried; the only place of the package that retries."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from airflow_aml_data.errors import AzureMlError, StorageError, TransfersCancelled

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_BUDGET_SECONDS = 300.0
_ATTEMPTS = 12
_NOTICE_SECONDS = 0.1
_GRACE_SECONDS = 2.0
_END = object()

_cancelled = threading.Event()
_cancelled_at = 0.0
_current = threading.local()
_late: list[threading.Thread] = []


def cancel() -> None:
    """End every transfer of this process within seconds, also from a signal handler: they raise :exc:`.TransfersCancelled`.

    What is done inside :func:`clearing` goes on: it is what a cancelled task still has to do.
    """
    global _cancelled_at
    _cancelled_at = time.monotonic()
    _cancelled.set()


def begin() -> None:
    """Allow transfers again; called when a task starts."""
    _cancelled.clear()


@contextmanager
def clearing() -> Iterator[None]:
    """Let what this thread starts here go on in a cancelled task: it clears away."""
    before, _current.is_clearing = getattr(_current, "is_clearing", False), True
    try:
        yield
    finally:
        _current.is_clearing = before


def check() -> Callable[[], None]:
    """What raises once the operation that this thread works for has ended; for requests of many parts."""
    requests: Requests | None = getattr(_current, "requests", None)
    return requests.check if requests else Requests().check


def settle() -> None:
    """Wait for requests under way that nobody waits for any more: a write must not come after what clears it away.

    In a cancelled task only for a moment: Airflow kills it five seconds after it was told to end, and what is under way with it.
    """
    for each in list(_late):
        while each.ident is not None and each.is_alive() and not _is_overdue():
            each.join(_NOTICE_SECONDS)
        if not each.is_alive():
            _late.remove(each)


def _is_overdue() -> bool:
    return _cancelled.is_set() and time.monotonic() > _cancelled_at + _GRACE_SECONDS


class Requests:
    """The requests of one operation on a store.

    One that fails for good ends the others, and so does :func:`cancel`.

    :param threads: How many there may be at once.
    :param budget_seconds: How long one request may be repeated.
    """

    def __init__(
        self,
        threads: int = 1,
        *,
        budget_seconds: float = _BUDGET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], Any] = threading.Event.wait,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._threads, self._budget_seconds = threads, budget_seconds
        self.is_clearing: bool = getattr(_current, "is_clearing", False)
        self._clock, self._wait, self._jitter = clock, wait, jitter
        self._ended = threading.Event()

    def check(self) -> None:
        """Raise when the operation has ended: another request failed, or the task was cancelled."""
        if self._ended.is_set() or (_cancelled.is_set() and not self.is_clearing):
            raise TransfersCancelled()

    def retry(self, what: str, request: Callable[[], T]) -> T:
        """Do a request, again and again while it fails with what another attempt may cure.

        :param what: For messages, such as ``"Reading 'a/b' of container 'c'"``.
        :raises StorageError, AzureMlError: the last failure, when the budget is used up.
        """
        started = self._clock()
        for attempt in range(1, _ATTEMPTS + 1):
            self.check()
            try:
                return request()
            except (StorageError, AzureMlError) as error:
                seconds = self._pause(attempt, error.retry_after_seconds)
                spent = self._clock() - started
                if attempt == _ATTEMPTS or spent + seconds > self._budget_seconds:
                    if attempt > 1:
                        error.add_note(f"Tried {attempt} times in {spent:.0f} s.")
                    raise
                log.warning("%s failed: %s Attempt %d follows in %.1f s.", what, error, attempt + 1, seconds)
            self._wait(self._ended, seconds)
        raise AssertionError("unreachable")

    def _pause(self, attempt: int, asked: float | None) -> float:
        """Seconds before the next attempt: random, so that many clients do not come back at once."""
        longest = min(_FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1), _LONGEST_WAIT_SECONDS)
        seconds = longest * (0.5 + 0.5 * self._jitter())
        return seconds if asked is None else asked + seconds / 2

    def each(self, work: Callable[[T], R], items: Iterable[T], done: Callable[[R], None] = lambda _: None) -> None:
        """Do something for each item, in parallel.

        The items are taken one by one, so that a generator needs no memory; an error ends everything.

        :param done: Gets each result, in this thread, in any order.
        """
        self.check()
        results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        source = _Source(items, self._ended)
        count = min(self._threads, len(items)) if isinstance(items, list | tuple) else self._threads
        threads = [
            threading.Thread(target=_serve, args=(self, work, source, results), name="aml-data-transfer", daemon=True)
            for _ in range(count)
        ]
        try:
            for each in threads:
                each.start()
            self._collect(results, count, done)
        except BaseException:
            self._ended.set()
            _late.extend(threads)
            settle()
            raise

    def one(self, what: str, request: Callable[[], T]) -> T:
        """Do one request, as :meth:`retry` does, without keeping a cancelled task waiting for its answer."""
        found: list[T] = []
        self.each(lambda each: self.retry(what, each), [request], found.append)
        return found[0]

    def start(self, work: Callable[[], T]) -> Callable[[], T]:
        """Do something in the background; call what is returned for the result."""
        results: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=_serve, args=(self, _call, _Source([work], self._ended), results), daemon=True).start()

        def result() -> T:
            found: list[T] = []
            self._collect(results, 1, found.append)
            return found[0]

        return result

    def _collect(self, results: SimpleQueue[Any], count: int, done: Callable[[R], None]) -> None:
        while count:
            try:
                result, error = results.get(timeout=_NOTICE_SECONDS)
            except Empty:
                try:
                    self.check()
                except TransfersCancelled:
                    if results.empty():  # else it has ended for a reason, which has come just now
                        raise
                continue
            if error is not None:
                raise error
            if result is _END:
                count -= 1
            else:
                done(result)


class _Source:
    """Gives items to threads until the operation ends."""

    def __init__(self, items: Iterable[Any], ended: threading.Event) -> None:
        self._items: Iterator[Any] = iter(items)
        self._ended, self._lock = ended, threading.Lock()

    def end(self) -> None:
        self._ended.set()

    def next(self) -> Any:
        with self._lock:
            return _END if self._ended.is_set() else next(self._items, _END)


def _call(work: Callable[[], T]) -> T:
    return work()


def _serve(requests: Requests, work: Callable[[Any], Any], source: _Source, results: SimpleQueue[Any]) -> None:
    _current.requests, _current.is_clearing = requests, requests.is_clearing
    try:
        while (item := source.next()) is not _END:
            results.put((work(item), None))
        results.put((_END, None))
    except BaseException as error:  # raised again in the thread that waits
        results.put((None, error))
        source.end()
