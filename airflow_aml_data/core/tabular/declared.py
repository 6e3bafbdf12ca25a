"""Columns whose type ``set_column_types`` says: what is of the type, and null for what is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_aml_data.core.formats import DataType
from airflow_aml_data.core.tabular.columns import NS_RANGE, without_empty

if TYPE_CHECKING:
    import pandas as pd

_NS_FIRST, _NS_END = (np.datetime64(value, "us").item() for value in NS_RANGE)
_SPECIAL = r"^[+-]?(?:nan|inf|infinity)$"
_ISO = ("ISO8601",)
_SLASHED = r"^(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>\d{4})(?: .*)?$"
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_MONTH_FIRST, _DAY_FIRST = (tuple(f"{day}/%Y{clock}" for clock in _CLOCKS) for day in ("%m/%d", "%d/%m"))


@dataclass(slots=True)
class DeclaredColumn:
    """A column of a declared type, with what has to be known of all values of a date to read any of them.

    :param day_first: Whether a value can only be day and month, so that ``01/02/2020`` is the first of February.
    :param month_first: Whether a value can only be month and day.
    :param either: Whether a value can be read in both ways.
    :param wide: Whether a date lies outside the years that nanoseconds can count.
    """

    data_type: DataType
    day_first: bool = False
    month_first: bool = False
    either: bool = False
    wide: bool = False

    @property
    def type(self) -> pa.DataType:
        """The column's type, so far."""
        match self.data_type.kind:
            case "long":
                return pa.int64()
            case "float":
                return pa.float64()
            case "bool":
                return pa.bool_()
            case "datetime":
                return pa.timestamp("us" if self.wide else "ns")
        return pa.string()

    @property
    def ambiguous(self) -> bool:
        """Whether no value of the column tells if days or months stand first."""
        return self.either and not self.day_first and not self.month_first

    def add(self, values: pa.Array) -> None:
        """Take in more values of the column."""
        if self.data_type.kind != "datetime":
            return
        present = _trimmed(values).drop_null()
        formats = self.data_type.formats
        if not formats:
            self._look_at_slashes(present)
        times = _as_times(present, formats or _ISO)
        self.wide |= bool(((times < _NS_FIRST) | (times >= _NS_END)).any())

    def merge(self, other: DeclaredColumn) -> None:
        """Take in what other values of the column showed."""
        self.day_first |= other.day_first
        self.month_first |= other.month_first
        self.either |= other.either
        self.wide |= other.wide

    def _look_at_slashes(self, present: pa.Array) -> None:
        parts = pc.extract_regex(present, _SLASHED).drop_null()
        if not len(parts):
            return
        first, second, year = (pc.cast(parts.field(n), pa.int64()).to_numpy() for n in ("first", "second", "year"))
        self.day_first |= bool(np.any((first > 12) & (second <= 12)))
        self.month_first |= bool(np.any((second > 12) & (first <= 12)))
        self.either |= bool(np.any((first != second) & (first <= 12) & (second <= 12)))
        self.wide |= bool(np.any((year < _NS_FIRST.year) | (year >= _NS_END.year)))

    def convert(self, values: pa.Array) -> pa.Array | None:
        """Return text as values of :attr:`type`, null for what is not of it; None when these would change the type."""
        match self.data_type.kind:
            case "long":
                return _as_integers(_trimmed(values))
            case "float":
                return _as_floats(_trimmed(values), self.data_type.decimal_mark)
            case "bool":
                return _as_booleans(_trimmed(values))
            case "datetime":
                return self._convert_times(values)
        return values

    def _convert_times(self, values: pa.Array) -> pa.Array | None:
        told = replace(self)
        told.add(values)
        if (told.day_first, told.wide) != (self.day_first, self.wide):
            return None
        self.merge(told)
        texts = _trimmed(values)
        if self.wide:  # microseconds would cut these off
            texts = _only(texts, r"^[^.]*(?:\.\d{0,6}(?:\D.*)?)?$")
        slashed = _DAY_FIRST if self.day_first else _MONTH_FIRST
        times = _as_times(texts, self.data_type.formats or (*_ISO, *slashed))
        return pa.array(times.to_numpy(f"datetime64[{self.type.unit}]"), self.type, from_pandas=True)

    def has_value(self, values: pa.Array) -> pa.Array:
        """Return whether a text is more than spaces."""
        return _trimmed(values).is_valid()


def _as_times(texts: pa.Array, formats: Sequence[str]) -> pd.Series:
    """Return dates and times in UTC but without a zone, NaT for texts of none of the formats."""
    import pandas as pd

    series = pd.Series(texts.to_pylist(), dtype="str")
    times = pd.Series(pd.NaT, index=series.index, dtype="datetime64[us]")
    for form in formats:
        missing = times.isna() & series.notna()
        if not missing.any():
            break
        parsed = pd.to_datetime(series[missing], format=form, errors="coerce", utc=True).dt.tz_localize(None)
        if missing.all():
            times = parsed
        elif parsed.notna().any():
            times = pd.concat([times[~missing], parsed]).sort_index()
    return times


def _trimmed(values: pa.Array) -> pa.Array:
    """Return the text without spaces around it, null where nothing is left."""
    return without_empty(pc.utf8_trim_whitespace(values))


def _as_integers(texts: pa.Array) -> pa.Array:
    texts = _only(texts, r"^[+-]?\d+$")
    plain = pc.replace_substring_regex(texts, r"^(-?)\+?0*(\d)", r"\1\2")  # no zeros or plus before it
    longest = 10**18
    sure = pc.less_equal(pc.binary_length(plain), len(str(longest)) - 1)
    if pc.all(sure).as_py() is not False:
        return pc.cast(plain, pa.int64())
    numbers = (None if text is None else int(text) for text in plain.to_pylist())
    return pa.array([n if n is not None and -(2**63) <= n < 2**63 else None for n in numbers], pa.int64())


def _as_floats(texts: pa.Array, mark: str) -> pa.Array:
    point = re.escape(mark)
    number = rf"^[+-]?(?:\d+(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?$"
    special = pc.match_substring_regex(texts, _SPECIAL, ignore_case=True)
    plain = _only(texts, f"(?i){number}|{_SPECIAL}")
    plain = pc.replace_substring_regex(pc.replace_substring(plain, mark, "."), r"^\+", "")
    try:
        numbers = pc.cast(plain, pa.float64())
    except pa.ArrowInvalid:  # pyarrow up to 23, for what no double can hold; later ones give inf
        numbers = pa.array([None if text is None else float(text) for text in plain.to_pylist()], pa.float64())
    overflown = pc.and_(pc.is_inf(numbers), pc.invert(special))
    return pc.replace_with_mask(numbers, overflown.fill_null(False), pa.scalar(None, pa.float64()))


def _as_booleans(texts: pa.Array) -> pa.Array:
    lower = _only(pc.ascii_lower(texts), "^(?:true|false|1|0)$")
    return pc.or_(pc.equal(lower, "true"), pc.equal(lower, "1"))


def _only(texts: pa.Array, pattern: str) -> pa.Array:
    """Return the texts that match, null for the others."""
    other = pc.invert(pc.match_substring_regex(texts, pattern)).fill_null(False)
    return pc.replace_with_mask(texts, other, pa.scalar(None, pa.string()))
