"""``partition_format``: what the paths of files say about them, such as ``/{region}/{day:yyyy/MM/dd}/data.csv``.

Source: v1, semantics section 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from airflow_aml_data.errors import InvalidDeclaration

PartitionValue = str | datetime | None

_DATE_PARTS = {"yyyy": "year", "MM": "month", "dd": "day", "HH": "hour", "mm": "minute", "ss": "second"}
_DATE_PART = re.compile("|".join(_DATE_PARTS))
_TEXT = r"[^./\\]+"
_RESERVED = "_sys_"


class PartitionFormat:
    """A partition format, checked; made once and asked for each path.

    >>> PartitionFormat("/{region}/{day:yyyy/MM}/data.csv").values("/sales/north/2019/01/data.csv")
    {'region': 'north', 'day': datetime.datetime(2019, 1, 1, 0, 0)}

    ``{name}`` takes text without ``.``, ``/`` and ``\\``; ``{name:yyyy/MM/dd/HH/mm/ss}``, with ``yyyy`` at least, a time of
    fixed digits; ``*`` anything; ``{{`` and ``}}`` are braces. The format covers the end of a path; what stands before it
    is free. A name that comes again must match again, and its first value counts.

    :ivar keys: The columns it makes, the time last.
    :raises InvalidDeclaration: with v1's words.

    Source: v1, semantics section 6.
    """

    # No dataclass: a step renders the templates in those, and this ``{{`` is none.
    __slots__ = ("_pattern", "_time", "keys", "text")

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise InvalidDeclaration(f"partition_format must be text, found {text!r}.")
        self.text = text
        expression, names, time = "", list[str](), None
        for part, is_key in _parts(self.text):
            if not is_key:
                expression += ".*?" if part == "*" else re.escape(part)
                continue
            name, is_time, date = part.partition(":")
            self._check_key(part, date if is_time else None, first_time=time is None)
            if is_time:
                time = name
                expression += _date_expression(date)
            elif name in names:
                expression += _TEXT
            else:
                expression += f"(?P<c{len(names)}>{_TEXT})"
                names.append(name)
        if time in names:
            raise self._wrong_part(time, "The column name is used twice, as text and as a date.")
        if not names and time is None:
            raise self._wrong("There must be at least one {column_name}")
        self.keys = (*names, time) if time is not None else tuple(names)
        self._pattern = re.compile(expression + r"\Z", re.DOTALL | re.ASCII)
        self._time = time

    def __repr__(self) -> str:
        return f"PartitionFormat({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PartitionFormat) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def values(self, path: str) -> dict[str, PartitionValue]:
        """What a path says; all None when the format does not fit it, a time that no calendar has is None.

        :param path: From the root of the datastore, with a leading ``/``.
        """
        found = self._pattern.search(path)
        if found is None:
            return dict.fromkeys(self.keys)
        texts = found.groupdict()
        values: dict[str, PartitionValue] = {
            name: texts[f"c{place}"] for place, name in enumerate(self.keys) if name != self._time
        }
        if self._time is not None:
            values[self._time] = _moment(texts)
        return values

    def _check_key(self, part: str, date: str | None, *, first_time: bool) -> None:
        name = part.partition(":")[0]
        if not name:
            raise self._wrong_part(part, "Column name is not specified.")
        if name.startswith(_RESERVED):
            raise self._wrong_part(part, f"The specified column name is reserved: names do not begin with {_RESERVED}.")
        if date == "":
            raise self._wrong_part(part, "Date format is not specified.")
        if date and not first_time:
            raise self._wrong_part(part, "There cannot be more than one date part.")
        if date and "yyyy" not in date:
            raise self._wrong("Format 'yyyy' must be defined for datetime column.")

    def _wrong(self, why: str) -> InvalidDeclaration:
        return InvalidDeclaration(f'Invalid partition_format "{self.text}". {why}')

    def _wrong_part(self, part: str, why: str) -> InvalidDeclaration:
        return InvalidDeclaration(f'Invalid part "{{{part}}}" in partition_format "{self.text}". {why}')


def as_partition_format(value: str | PartitionFormat | None) -> PartitionFormat | None:
    """A partition format as it may be given, checked.

    :raises InvalidDeclaration: for a bad one.
    """
    return value if value is None or isinstance(value, PartitionFormat) else PartitionFormat(value)


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """A format cut into single characters, and the insides of its braces, which are told apart by True."""
    unpaired = InvalidDeclaration(f'Invalid partition_format "{text}". Brackets must is pair and cannot be nested')
    position = 0
    while position < len(text):
        char = text[position]
        if text[position : position + 2] in ("{{", "}}"):
            yield char, False
            position += 2
        elif char == "{":
            end = text.find("}", position)
            inner = text[position + 1 : end]
            if end < 0 or "{" in inner:
                raise unpaired
            yield inner, True
            position = end + 1
        elif char == "}":
            raise unpaired
        else:
            yield char, False
            position += 1


def _date_expression(date: str) -> str:
    expression, position, seen = "", 0, set[str]()
    for found in _DATE_PART.finditer(date):
        code = found[0]
        expression += re.escape(date[position : found.start()])
        digits = rf"\d{{{len(code)}}}"
        expression += digits if code in seen else f"(?P<{_DATE_PARTS[code]}>{digits})"
        seen.add(code)
        position = found.end()
    return expression + re.escape(date[position:])


def _moment(texts: dict[str, str]) -> datetime | None:
    numbers = {part: int(texts[part]) for part in _DATE_PARTS.values() if part in texts}
    try:
        return datetime(**{"month": 1, "day": 1} | numbers)  # type: ignore[arg-type]
    except ValueError:
        return None
