"""Which type all values of a column of text fit, so that it loses nothing of any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import isinf

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ROWS_AT_ONCE = 16_384


_YEAR = r"(?:[1-9]\d{3}|0[1-9]\d{2}|00[1-9]\d|000[1-9])"  # pandas and Python know no year 0
_DATE = _YEAR + r"-\d{2}-\d{2}"
_CLOCK = r"[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?"
_UTC_TIME = f"^{_DATE}{_CLOCK}(?:Z|\\+00:00)$"
_WHOLE = r"(?:0|[1-9]\d*)"
_EXPONENT = r"(?:[eE][+-]?\d+)"
# whole numbers of 19 digits and more are identifiers or would lose digits; they are no floats
_NUMBER = rf"^-?(?:0|[1-9]\d{{0,17}}|{_WHOLE}\.\d*{_EXPONENT}?|\.\d+{_EXPONENT}?|{_WHOLE}{_EXPONENT})$"
_WHOLE_DIGITS = 18
_WHOLE_LIMIT = 10**_WHOLE_DIGITS
_EXACT_DIGITS = 15  # every decimal of 15 digits comes back from a double unchanged
_MINUS, _ZERO = b"-0"

_NS_FROM, _NS_UNTIL = "1678", "2262"  # the full years int64 can count in ns
NS_RANGE = tuple(int(np.datetime64(year, "us").astype(int)) for year in (_NS_FROM, _NS_UNTIL))
_US_RANGE = tuple(int(np.datetime64(year, "us").astype(int)) for year in ("0001", "10000"))
_LONGEST_IN_US = len("2020-01-31T10:20:30.123456")
# of ISO 8601 without a zone: day, minute, second, one to nine digits behind it; the cast knows the rest
_LOCAL_LENGTHS = np.isin(np.arange(32), [0, 10, 16, 19, *range(21, 30)])

# mimalloc, the default, takes several times as long to grow what stays
POOL = pa.jemalloc_memory_pool() if "jemalloc" in pa.supported_memory_backends() else pa.system_memory_pool()

_BOOL, _INT, _FLOAT = pa.bool_(), pa.int64(), pa.float64()
_LOCAL_NS, _LOCAL_US = pa.timestamp("ns"), pa.timestamp("us")
_UTC_NS, _UTC_US = pa.timestamp("ns", tz="UTC"), pa.timestamp("us", tz="UTC")
_TYPES = (_BOOL, _INT, _FLOAT, _LOCAL_NS, _LOCAL_US, _UTC_NS, _UTC_US)


@dataclass(slots=True)
class ColumnEvidence:
    """Which types the values of a column allow; fed in any number of parts, in any order. None possible: text it is.

    The type is the first of these that loses nothing of any value, and text when none does:

    * bool: ``true`` and ``false`` in any case.
    * int64: whole numbers as Python writes them. ``00123``, ``+5`` and what int64 cannot hold are not.
    * float64: numbers that a double gives back digit by digit, so ``9007199254740993`` next to ``1.5`` is
      not; neither are ``NaN`` and ``inf``, leading zeros or plus signs, nor whole numbers of over 18 digits.
    * timestamp: ISO 8601 dates and times without a zone, or all of them in UTC (``Z``, ``+00:00``). In ns as
      in v1; in us when a value lies outside the years 1678 to 2261. Other zones would be lost: text.
    """

    possible: tuple[pa.DataType, ...] = _TYPES
    seen: bool = field(default=False)

    def add(self, values: pa.Array) -> None:
        """Take in more values of the column; nulls and empty ones say nothing."""
        for start in range(0, len(values), _ROWS_AT_ONCE):  # so few that most types are ruled out cheaply
            present = values.slice(start, _ROWS_AT_ONCE).drop_null()
            if len(present) and not _Text(present).lengths.all():
                present = without_empty(present).drop_null()
            if len(present) and self.possible:
                self.seen = True
                allowed = _types_of(present, self.possible)
                self.possible = tuple(type_ for type_ in self.possible if type_ in allowed)

    def convert(self, values: pa.Array) -> pa.Array | None:
        """Return text as values of :attr:`type`, or None when one of them would change the type."""
        if self.possible and not self.seen:
            return values if without_empty(values).null_count == len(values) else None
        if self.type == pa.string():
            return values
        return as_type(values, self.type)

    def merge(self, other: ColumnEvidence) -> None:
        """Take in what other values of the column allow."""
        self.seen |= other.seen
        self.possible = tuple(type_ for type_ in self.possible if type_ in other.possible)

    @property
    def type(self) -> pa.DataType:
        """The column's type, so far; text for a column of nulls."""
        return self.possible[0] if self.seen and self.possible else pa.string()


def _types_of(values: pa.Array, possible: Sequence[pa.DataType]) -> list[pa.DataType]:
    """Return the types every one of the values fits; no nulls among them."""
    if _INT in possible and (integers := as_type(values, _INT)) is not None:
        return [_INT, _FLOAT] if _fit_floats(integers) else [_INT]
    if _FLOAT in possible and as_type(values, _FLOAT) is not None:
        return [_FLOAT]
    if _BOOL in possible and as_type(values, _BOOL) is not None:
        return [_BOOL]
    for nanoseconds, microseconds in ((_LOCAL_NS, _LOCAL_US), (_UTC_NS, _UTC_US)):
        fitting = [
            each for each in (nanoseconds, microseconds) if each in possible and as_type(values, each) is not None
        ]
        if fitting:
            return fitting
    return []


def as_type(values: pa.Array, type_: pa.DataType) -> pa.Array | None:
    """Return text as values of a type, or None unless each of them fits it as :class:`ColumnEvidence` says.

    :param values: Nulls and empty ones become nulls.
    """
    if len(values) == values.null_count:
        return pa.nulls(len(values), type_)
    text = _Text(values)
    if text.lengths.min() == 0 and np.count_nonzero(text.lengths == 0) > values.null_count:
        return as_type(without_empty(values), type_)
    try:
        if type_ == _BOOL:
            return _as_booleans(values)
        if type_ == _INT:
            return _as_integers(text)
        if type_ == _FLOAT:
            return _as_floats(text)
        return _as_times(text, type_)
    except pa.ArrowInvalid:  # a cast that found something else
        return None


def _all(answers: pa.Array) -> bool:
    return bool(pc.all(answers).as_py())


def _cast(values: pa.Array, type_: pa.DataType) -> pa.Array:
    return pc.cast(values, type_, memory_pool=POOL)


class _Text:
    """Text values, their bytes one after the other, and where each begins in them; nulls are empty."""

    def __init__(self, values: pa.Array) -> None:
        self.values = values
        _, offsets, data = values.buffers()
        around = np.frombuffer(offsets, dtype=np.int32)[values.offset : values.offset + len(values) + 1]
        self.bytes = np.frombuffer(data or b"", dtype=np.uint8)[around[0] : around[-1]]
        self.starts = around[:-1] - around[0]
        self.lengths = np.diff(around)

    def within(self, low: str, high: str) -> bool:
        """Return whether no byte lies outside a range."""
        return bool(self.bytes.min() >= ord(low) and self.bytes.max() <= ord(high))


def _as_booleans(values: pa.Array) -> pa.Array | None:
    lower = pc.ascii_lower(values)
    if not _all(pc.is_in(lower, value_set=pa.array(["true", "false", None]))):
        return None
    return pc.equal(lower, "true")


def _as_integers(text: _Text) -> pa.Array | None:
    """No text is shorter than what Python writes for its number, so all are written so if all are as long together."""
    if not text.within("-", "9"):  # a minus, digits and what no number has; 0x1F could be as long as 31 is
        return None
    numbers = _cast(text.values, _INT)
    present = (numbers.drop_null() if numbers.null_count else numbers).to_numpy()
    sizes = np.abs(present).astype(np.uint64)
    digits = len(sizes) + sum(np.count_nonzero(sizes >= 10**n) for n in range(1, len(str(sizes.max()))))
    return numbers if digits + np.count_nonzero(present < 0) == len(text.bytes) else None


def _fit_floats(integers: pa.Array) -> bool:
    """Return whether the texts of these would pass :func:`_as_floats`; that would take longer."""
    numbers = integers.to_numpy(zero_copy_only=False)
    if np.any((numbers <= -_WHOLE_LIMIT) | (numbers >= _WHOLE_LIMIT)):
        return False
    return bool(np.all(numbers.astype(np.float64).astype(np.int64) == numbers))


def _as_floats(text: _Text) -> pa.Array | None:
    values, longest = text.values, text.lengths.max()
    plain = text.within("-", "9") and not _any_leading_zero(text)  # the cast refuses what else is no number
    if not plain:
        if not _all(pc.match_substring_regex(values, _NUMBER)):
            return None
    elif longest > _WHOLE_DIGITS:
        long = values.filter(pa.array(text.lengths > _WHOLE_DIGITS))
        if not _all(pc.match_substring_regex(long, _NUMBER)):
            return None
    numbers = _cast(values, _FLOAT)
    if plain and longest <= _EXACT_DIGITS:
        return numbers
    doubtful = text.lengths > _EXACT_DIGITS
    if not plain:
        exponent = pc.match_substring(values, "e", ignore_case=True).fill_null(False)
        doubtful |= exponent.to_numpy(zero_copy_only=False)
    mask = pa.array(doubtful)
    return numbers if _are_exact(values.filter(mask), numbers.filter(mask)) else None


def _any_leading_zero(text: _Text) -> bool:
    """Return whether a digit follows a 0 that a value begins with, after its minus."""
    starts, lengths = text.starts, text.lengths
    first = text.bytes.take(starts, mode="clip")  # nulls may begin behind the last byte
    if (minus := first == _MINUS).any():
        starts, lengths = starts + minus, lengths - minus
        first = text.bytes.take(starts, mode="clip")
    zero = np.flatnonzero((first == _ZERO) & (lengths > 1))
    return bool((text.bytes.take(starts[zero] + 1) >= _ZERO).any())


def _are_exact(texts: pa.Array, numbers: pa.Array) -> bool:
    as_written = pc.equal(pc.cast(numbers, pa.string()), texts)
    return all(_is_exact(text) for text in texts.filter(pc.invert(as_written)).unique().to_pylist())


def _as_times(text: _Text, type_: pa.TimestampType) -> pa.Array | None:
    values, longest = text.values, text.lengths.max()
    if type_.tz is not None:
        if not _all(pc.match_substring_regex(values, _UTC_TIME)):
            return None
    elif longest >= len(_LOCAL_LENGTHS) or not _LOCAL_LENGTHS[text.lengths].all():
        return None
    if type_.unit == "ns" and longest > _LONGEST_IN_US:
        years = pc.min_max(values)  # checked here: pyarrow up to 22 does not notice an overflow
        fits = years["min"].as_py() >= _NS_FROM and years["max"].as_py() < _NS_UNTIL
        return _cast(values, type_) if fits else None
    times = _cast(values, pa.timestamp("us", type_.tz))
    extremes = pc.min_max(times.view(pa.int64()))
    first, last = NS_RANGE if type_.unit == "ns" else _US_RANGE
    fits = extremes["min"].as_py() >= first and extremes["max"].as_py() < last
    return _cast(times, type_) if fits else None


def _is_exact(text: str) -> bool:
    """Return whether the double nearest to a decimal, written with as many digits, is that decimal again."""
    number = float(text)
    if isinf(number):
        return False
    if text.lstrip("-").isdigit():
        return int(number) == int(text)
    if number == 0:
        return not text.lower().partition("e")[0].strip("-0.")
    exact = Decimal(text)
    digits = len(exact.as_tuple().digits)
    return exact in (Decimal(repr(number)), Decimal(f"{number:.{digits - 1}e}"))


def without_empty(values: pa.Array) -> pa.Array:
    """Return the text with nulls for ``''``. Not by if_else: pyarrow up to 23 garbles sliced text with it."""
    return pc.replace_with_mask(values, pc.equal(values, ""), pa.scalar(None, pa.string()))
