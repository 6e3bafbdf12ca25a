"""SAS tokens that end before a transfer does, and are asked for anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from airflow_aml_data.errors import AmlDataError

if TYPE_CHECKING:
    from obstore.store import AzureSASToken

_RENEW_SECONDS = 300.0
_NEW_SECONDS = 60.0
"""A token that is refused so soon after it was given would be refused again."""


class RenewedSas:
    """A SAS token that is asked for again before it ends. Safe in threads.

    :param ask: Gives a new one, with or without a question mark.
    :param first: One that was given already.
    :ivar sign_in: Number of the token; what keeps one keeps this beside it.
    """

    def __init__(self, ask: Callable[[], str], *, first: str = "", clock: Callable[[], float] = time.time) -> None:
        self._ask, self._clock = ask, clock
        self._lock = threading.Lock()
        self._token = ""
        self._asked_at = self._renew_at = 0.0
        self.sign_in = 0
        if first:
            self._keep(first)

    def __call__(self) -> str:
        """A token that is good for a while."""
        return self._current()[0]

    def renew(self, sign_in: int) -> bool:
        """Forget a token that is refused although its time is not over.

        :param sign_in: Of the refused token.
        :returns: Whether a new one may help; not when the refused one was new itself.
        """
        with self._lock:
            if sign_in == self.sign_in and self._clock() - self._asked_at < _NEW_SECONDS:
                return False
            if sign_in == self.sign_in:
                self._renew_at = 0.0
                self.sign_in += 1
            return True

    def _current(self) -> tuple[str, float]:
        with self._lock:
            if self._clock() >= self._renew_at:
                self._keep(self._ask())
            return self._token, self._renew_at

    def _keep(self, token: str) -> None:
        self._token, now = token.removeprefix("?"), self._clock()
        left = max(_end(self._token) - now, 0.0)
        self._asked_at, self._renew_at = now, now + max(left - _RENEW_SECONDS, left / 2)
        self.sign_in += 1


class ObstoreSas:
    """Gives obstore the SAS tokens of an account.

    :ivar error: Why the last call failed: obstore keeps only the text of an exception.
    """

    def __init__(self, sas: RenewedSas) -> None:
        self._sas = sas
        self.error: AmlDataError | None = None

    def __call__(self) -> AzureSASToken:
        try:
            token, renewed = self._sas._current()
        except AmlDataError as error:
            self.error = error
            raise
        self.error = None
        return {"sas_token": token, "expires_at": datetime.fromtimestamp(renewed, UTC)}


def _end(token: str) -> float:
    """When a token ends, in seconds since the epoch; never, for one that leaves it to a policy of the container."""
    said = parse_qs(token).get("se", [""])[0]
    try:
        return datetime.fromisoformat(said).astimezone(UTC).timestamp()
    except ValueError:
        return float("inf")
