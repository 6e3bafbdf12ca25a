"""Columns: which are kept, and which type all of a column's values fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import isinf

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from airflow_aml_data.core.formats import DelimitedFormat
from airflow_aml_data.errors import InvalidDeclaration

_ROWS_AT_ONCE = 16_384


def kept_positions(names: Sequence[str], columns: Sequence[str] | None) -> list[int]:
    """Return where the wanted columns are. Source: v1, ``keep_columns``, semantics section 6."""
    if columns is None:
        return list(range(len(names)))
    wanted = set(columns)
    kept = [position for position, name in enumerate(names) if name in wanted]
    if names and not kept:
        raise InvalidDeclaration(f"None of the columns {sorted(wanted)} is in the data. There are: {', '.join(names)}.")
    return kept


_YEAR = r"(?:[1-9]\d{3}|0[1-9]\d{2}|00[1-9]\d|000[1-9])"  # pandas and Python know no year 0
_DATE = _YEAR + r"-\d{2}-\d{2}"
_CLOCK = r"[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?"
_LOCAL_TIME = f"^{_DATE}(?:{_CLOCK})?$"
_UTC_TIME = f"^{_DATE}{_CLOCK}(?:Z|\\+00:00)$"
_WHOLE = r"(?:0|[1-9]\d*)"
_EXPONENT = r"(?:[eE][+-]?\d+)"
# whole numbers of 19 digits and more are identifiers or would lose digits; they are no floats
_NUMBER = rf"^-?(?:0|[1-9]\d{{0,17}}|{_WHOLE}\.\d*{_EXPONENT}?|\.\d+{_EXPONENT}?|{_WHOLE}{_EXPONENT})$"
_WHOLE_LIMIT = 10**18
_NS_FROM, _NS_UNTIL = "1678", "2262"  # the full years int64 can count in ns
_EXACT_DIGITS = 15  # every decimal of 15 digits comes back from a double unchanged

_BOOL, _INT, _FLOAT = pa.bool_(), pa.int64(), pa.float64()
_LOCAL_NS, _LOCAL_US = pa.timestamp("ns"), pa.timestamp("us")
_UTC_NS, _UTC_US = pa.timestamp("ns", tz="UTC"), pa.timestamp("us", tz="UTC")
_TYPES = (_BOOL, _INT, _FLOAT, _LOCAL_NS, _LOCAL_US, _UTC_NS, _UTC_US)


@dataclass(slots=True)
class ColumnEvidence:
    """Which types the values of a column allow; fed in any number of parts, in any order.

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
        """Take in more values of the column; nulls say nothing."""
        present = values.drop_null() if values.null_count else values
        if len(present) and self.possible:
            self.seen = True
            allowed = _types_of(present, self.possible)
            self.possible = tuple(type_ for type_ in self.possible if type_ in allowed)

    @property
    def type(self) -> pa.DataType:
        """The column's type, so far; text for a column of nulls."""
        return self.possible[0] if self.seen and self.possible else pa.string()


def _types_of(values: pa.Array, possible: Sequence[pa.DataType]) -> list[pa.DataType]:
    """Return the types every one of the values fits; no nulls among them."""
    if _BOOL in possible and _all(pc.is_in(pc.ascii_lower(values), value_set=pa.array(["true", "false"]))):
        return [_BOOL]
    if _INT in possible and (integers := _integers(values)) is not None:
        return [_INT, _FLOAT] if _fit_floats(integers) else [_INT]
    if _FLOAT in possible and _are_floats(values):
        return [_FLOAT]
    for pattern, types in ((_LOCAL_TIME, (_LOCAL_NS, _LOCAL_US)), (_UTC_TIME, (_UTC_NS, _UTC_US))):
        if set(types) & set(possible) and _all(pc.match_substring_regex(values, pattern)):
            return [type_ for type_ in types if _are_timestamps(values, type_)]
    return []


def _all(answers: pa.Array) -> bool:
    return bool(pc.all(answers).as_py())


def _are_timestamps(values: pa.Array, type_: pa.TimestampType) -> bool:
    """Return whether ISO 8601 texts are days and times that exist and fit the type."""
    if type_.unit == "ns":  # checked here: pyarrow up to 22 does not notice an overflow
        years = pc.min_max(values)
        if years["min"].as_py() < _NS_FROM or years["max"].as_py() >= _NS_UNTIL:
            return False
    try:
        pc.cast(values, type_)
    except pa.ArrowInvalid:
        return False
    return True


def _integers(values: pa.Array) -> pa.Array | None:
    """Return the values as int64, or None unless each of them is written as Python writes an int."""
    try:
        numbers = pc.cast(values, _INT)
    except pa.ArrowInvalid:
        return None
    same = _all(pc.equal(pc.cast(numbers, pa.string()), values))  # refuses 007, -0 and 0x1F
    return numbers if same else None


def _fit_floats(integers: pa.Array) -> bool:
    """Return whether the texts of these would pass :func:`_are_floats`; that would take much longer."""
    numbers = integers.to_numpy(zero_copy_only=False)
    if np.any((numbers <= -_WHOLE_LIMIT) | (numbers >= _WHOLE_LIMIT)):
        return False
    return bool(np.all(numbers.astype(np.float64).astype(np.int64) == numbers))


def _are_floats(values: pa.Array) -> bool:
    if not _all(pc.match_substring_regex(values, _NUMBER)):
        return False
    exponent = pc.match_substring(values, "e", ignore_case=True)
    doubtful = values.filter(pc.or_(exponent, pc.greater(pc.binary_length(values), _EXACT_DIGITS)))
    try:
        numbers = pc.cast(doubtful, _FLOAT)
    except pa.ArrowInvalid:  # pyarrow up to 23, for what no double can hold; later ones give inf
        return False
    as_written = pc.equal(pc.cast(numbers, pa.string()), doubtful)
    return all(_is_exact(text) for text in doubtful.filter(pc.invert(as_written)).unique().to_pylist())


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


def column_type(parts: Iterable[pa.ChunkedArray], layout: DelimitedFormat) -> pa.DataType:
    evidence = ColumnEvidence()
    if layout.infer_column_types:
        for part in parts:
            for batch in _batches(part):
                evidence.add(without_empty(batch) if layout.empty_as_string else batch)
    return evidence.type


def _batches(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    """Yield the column in parts so small that most types are ruled out cheaply."""
    for chunk in column.chunks:
        yield from (chunk.slice(start, _ROWS_AT_ONCE) for start in range(0, len(chunk), _ROWS_AT_ONCE))


def without_empty(values: pa.Array) -> pa.Array:
    """Return the text with nulls for ``''``. Not by if_else: pyarrow up to 23 garbles sliced text with it."""
    return pc.replace_with_mask(values, pc.equal(values, ""), pa.scalar(None, pa.string()))


def converted(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """Return text as a type that :class:`ColumnEvidence` found to fit."""
    if type_ == pa.string():
        return column
    texts = map(without_empty, column.chunks)
    return pa.chunked_array(
        [pc.equal(pc.ascii_lower(text), "true") if type_ == _BOOL else pc.cast(text, type_) for text in texts],
        type=type_,
    )
