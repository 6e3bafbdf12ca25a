"""Where the records of delimited text end, found in its bytes: quoted line ends are no ends.

Records are those of Python's csv module: a quote opens a value only at the beginning of a field, a doubled quote stands
for one, and what follows a closing quote is text as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_LF, _CR, _QUOTE = b'\n\r"'


class OpenQuote(Exception):
    """A quote is not closed before the end of the text."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.start = start


def record_ends(data: bytes | bytearray, separator: bytes, *, last: bool) -> NDArray[np.int64]:
    """Return the position behind each whole record of a text that begins with one. A blank line counts as a record.

    :param last: No text follows: what has no line end is a record too.
    :raises OpenQuote: with the beginning of its record; only when no text follows.
    """
    characters = np.frombuffer(data, dtype=np.uint8)
    ends = _line_ends(data, characters)
    if b'"' in data:
        quotes = np.flatnonzero(characters == _QUOTE)
        if not _alternate(characters, quotes, separator):
            return np.fromiter(_exact_ends(data, separator, last), dtype=np.int64)
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]  # an odd number of quotes before it: within a value
        if last and len(quotes) % 2:
            raise OpenQuote(int(ends[-1]) if len(ends) else 0)
    if last and len(data) > (ends[-1] if len(ends) else 0):
        ends = np.append(ends, len(data))
    return ends


def whole_records(data: bytes | bytearray, separator: bytes, *, last: bool) -> int:
    """Return the last of :func:`record_ends`, 0 where there is none, without finding them all."""
    quotes = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _QUOTE)
    if not _alternate(np.frombuffer(data, dtype=np.uint8), quotes, separator):
        return max(_exact_ends(data, separator, last), default=0)
    end = _last_end(data, quotes)
    if last and len(quotes) % 2:
        raise OpenQuote(end)
    return len(data) if last else end


def _last_end(data: bytes | bytearray, quotes: NDArray[np.int64]) -> int:
    """Return the position behind the last line end that is not within quotes."""
    feed, carriage = data.rfind(b"\n"), data.rfind(b"\r", 0, -1)
    while (end := max(feed, carriage) + 1) and (before := int(np.searchsorted(quotes, end))) % 2:
        until = int(quotes[before - 1])  # the quote that opens the value the line end is in
        feed = data.rfind(b"\n", 0, until) if feed >= until else feed
        carriage = data.rfind(b"\r", 0, until) if carriage >= until else carriage
    return end


def _line_ends(data: bytes | bytearray, characters: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the positions behind ``\\n``, ``\\r\\n`` and ``\\r``, but not a last ``\\r`` that ``\\n`` may follow."""
    ends = np.flatnonzero(characters == _LF)
    if b"\r" in data:
        returns = np.flatnonzero(characters[:-1] == _CR)
        alone = returns[characters[returns + 1] != _LF]
        if len(alone):
            ends = np.sort(np.concatenate([ends, alone]))
    return ends + 1


def _alternate(characters: NDArray[np.uint8], quotes: NDArray[np.int64], separator: bytes) -> bool:
    """Return whether every other quote opens a value, or is the second of a doubled one."""
    if len(separator) > 1:
        return False
    opening = quotes[::2]
    before = characters[opening[opening > 0] - 1]
    return bool(np.isin(before, [_LF, _CR, _QUOTE, separator[0]]).all())


def _exact_ends(data: bytes | bytearray, separator: bytes, last: bool) -> Iterator[int]:
    """Yield what :func:`record_ends` returns, record by record: for quotes within values that have no quotes."""
    match = _record(separator, last).match
    position = 0
    while position < len(data):
        if (record := match(data, position)) is None:
            if last:
                raise OpenQuote(position)
            return
        yield (position := record.end())


@lru_cache(maxsize=16)
def _record(separator: bytes, last: bool) -> re.Pattern[bytes]:
    between = re.escape(separator)
    plain = rb"(?:(?!" + between + rb")[^\r\n])*+"
    field = rb'(?:"(?:[^"]++|"")*+"' + plain + rb'|(?!")' + plain + rb")"
    end = rb"(?:\r\n|\n|\r|\Z)" if last else rb"(?:\r\n|\n|\r(?!\Z))"
    return re.compile(field + rb"(?:" + between + field + rb")*+" + end)
