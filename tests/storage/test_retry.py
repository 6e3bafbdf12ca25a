"""When requests are repeated, how long after, and what ends them; with a clock of the test's own."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from airflow_aml_data.core.storage import retry
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import StorageError, StorageRefused, TransfersCancelled


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def requests(self, **more) -> Requests:
        return Requests(clock=self, wait=self.wait, jitter=lambda: 1.0, **more)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def nothing_is_cancelled():
    retry.begin()
    yield
    retry.begin()


def failing(times: int, error: Exception | None = None):
    """A request that fails some times, then succeeds."""
    left = [times]

    def request() -> str:
        if left[0]:
            left[0] -= 1
            raise error or StorageError("busy")
        return "done"

    return request


def test_what_may_pass_is_repeated_with_growing_waits_and_each_is_logged(clock, caplog):
    assert clock.requests().retry("Reading 'a'", failing(4)) == "done"
    assert clock.waits == [0.5, 1.0, 2.0, 4.0]
    messages = [each.getMessage() for each in caplog.records]
    assert messages[0] == "Reading 'a' failed: busy Attempt 2 follows in 0.5 s."
    assert len(messages) == 4


def test_waits_are_random_between_half_and_all(clock):
    low = Requests(clock=clock, wait=clock.wait, jitter=lambda: 0.0)
    low.retry("x", failing(2))
    assert clock.waits == [0.25, 0.5]


def test_a_store_that_says_how_long_to_wait_is_left_alone_that_long(clock):
    error = StorageError("throttled")
    error.retry_after_seconds = 20.0
    clock.requests().retry("x", failing(2, error))
    assert all(each >= 20.0 for each in clock.waits)
    assert len(clock.waits) == 2


def test_it_ends_with_the_last_error_when_the_budget_is_used_up(clock):
    with pytest.raises(StorageError, match="busy") as caught:
        clock.requests(budget_seconds=10).retry("x", failing(100))
    assert clock.now <= 10
    assert caught.value.__notes__ == ["Tried 5 times in 8 s."]


def test_what_no_retry_cures_is_raised_at_once(clock):
    with pytest.raises(StorageRefused):
        clock.requests().retry("x", failing(1, StorageRefused("no")))
    assert clock.waits == []


def test_results_of_all_items_come_to_the_calling_thread():
    threads, results = set(), []

    def done(result: int) -> None:
        threads.add(threading.current_thread())
        results.append(result)

    Requests(4).each(lambda item: item * 2, iter(range(100)), done)
    assert sorted(results) == [2 * each for each in range(100)]
    assert threads == {threading.current_thread()}


def test_an_error_ends_the_others_also_while_they_wait():
    requests, waiting = Requests(2), threading.Event()

    def work(item: str) -> None:
        if item == "waits":
            waiting.set()
            error = StorageError("busy")
            error.retry_after_seconds = 200.0

            def request() -> None:
                raise error

            requests.retry("x", request)
        waiting.wait()
        raise StorageRefused("no")

    with pytest.raises(StorageRefused):
        requests.each(work, ["waits", "fails"])


def test_an_error_that_comes_while_nobody_looks_is_told_as_it_is():
    requests = Requests()

    class ComesLate(SimpleQueue[Any]):
        """Has its error when the time to wait for it has just passed."""

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if self.empty():
                self.put((None, StorageRefused("no")))
                requests._ended.set()
                raise Empty
            return super().get(block, timeout)

    with pytest.raises(StorageRefused):
        requests._collect(ComesLate(), 1, print)


def test_items_are_taken_only_as_fast_as_they_are_worked_on():
    taken = []

    def items():
        for each in range(1000):
            taken.append(each)
            yield each

    def work(item: int) -> None:
        if item == 5:
            raise StorageRefused("no")

    with pytest.raises(StorageRefused):
        Requests(2).each(work, items())
    assert len(taken) < 1000


def test_cancelling_ends_transfers_that_wait_for_an_answer_but_not_what_clears_away():
    started, answered = threading.Event(), threading.Event()

    def hangs(item: int) -> None:
        started.set()
        answered.wait()

    threading.Thread(target=lambda: (started.wait(), retry.cancel())).start()
    with pytest.raises(TransfersCancelled):
        Requests(1).each(hangs, [1])
    with pytest.raises(TransfersCancelled):
        Requests().one("x", lambda: "never")
    with retry.clearing():
        assert Requests().one("x", lambda: Requests().one("y", lambda: "cleared")) == "cleared"

    retry.begin()
    later: list[bool] = []
    settling = threading.Thread(target=lambda: (retry.settle(), later.append(answered.is_set())))
    settling.start()
    answered.set()
    settling.join()
    assert later == [True]  # a late write is waited for before what it wrote is cleared away


def test_an_iterator_that_fails_ends_everything():
    def items():
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        Requests(3).each(lambda item: item, items())
