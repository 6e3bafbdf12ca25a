"""A job of the workspace, from the moment it was accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TERMINAL = {"Completed", "Failed", "Canceled"}


class JobFailed(Exception):
    """Why a job failed, as its user is told."""


class JobCanceled(Exception):
    """Somebody asked for the job's end."""


@dataclass
class Job:
    """What is known of it.

    :param body: Its properties, as they were sent.
    :param properties: As they are answered, but for the status.
    :param history: Every status that it had, the last one last.
    :param submitted: How many PUTs of it were accepted.
    :param cancel_requests: How often its end was asked for while it had not ended.
    :param exit_code: Of its command; None before it ended, or when it was not started.
    :param log: What its command said until now.
    :param has_log: Whether there is a log, be it empty.
    :param error: Why it failed.
    :param assets: Output to the id of what is registered for it; outputs without a name have one too.
    """

    name: str
    body: dict[str, Any]
    properties: dict[str, Any]
    history: list[str] = field(default_factory=lambda: ["Starting"])
    submitted: int = 1
    cancel_requests: int = 0
    exit_code: int | None = None
    log: str = ""
    has_log: bool = False
    error: str = ""
    assets: dict[str, str] = field(default_factory=dict)
    to_end: threading.Event = field(default_factory=threading.Event, repr=False)
    aborted: bool = False
    thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def status(self) -> str:
        return self.history[-1]

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    def becomes(self, status: str, error: str = "") -> None:
        """Give it the next status.

        :raises JobCanceled: when its end was asked for, and this is not that end.
        """
        if self.to_end.is_set() and status != "Canceled":
            raise JobCanceled
        self.history.append(status)
        self.error = error

    def cancel(self) -> None:
        """Ask for its end."""
        self.cancel_requests += 1
        if not self.to_end.is_set():
            self.history.append("CancelRequested")
            self.to_end.set()

    def abort(self) -> None:
        """End it at once, and wait until nothing of it runs."""
        self.aborted = True
        self.to_end.set()
        if self.thread:
            self.thread.join()

    def wait(self, *statuses: str, seconds: float = 60.0) -> str:
        """Wait until it has, or had, one of these statuses (without any: until it ended), and give the one that it has.

        :raises TimeoutError: when that takes longer, or cannot be any more.
        """
        wanted = set(statuses or TERMINAL)
        self._wait(lambda: bool(wanted & set(self.history)), str(sorted(wanted)), seconds)
        return self.status

    def wait_for_log(self, text: str, seconds: float = 60.0) -> None:
        """Wait until its log has this text.

        :raises TimeoutError: when that takes longer, or cannot be any more.
        """
        self._wait(lambda: text in self.log, repr(text), seconds)

    def _wait(self, condition: Callable[[], bool], wanted: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            ended = self.ended  # nothing comes after that
            if not condition() and (ended or time.monotonic() > deadline):
                raise TimeoutError(f"No {wanted} of job {self.name}: {self.history}. {self.error}\n{self.log}")
            time.sleep(0.02)
