"""JSON lines: one object is one row. No digit of a number is lost: numbers are text until the type of their column is known.

As with delimited files a schema is tried that the first rows suggest; what does not fit it leads to a look at all rows.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from airflow_aml_data.core.formats import DelimitedFormat, JsonLinesFormat
from airflow_aml_data.core.tabular.base import Misfit, TableFile, constant_fields, with_constants
from airflow_aml_data.core.tabular.blocks import read_blocks
from airflow_aml_data.core.tabular.columns import ColumnEvidence
from airflow_aml_data.core.tabular.declared import DeclaredColumn
from airflow_aml_data.core.tabular.lost import LostValues
from airflow_aml_data.errors import DataChanged, DataNotReadable

_BLOCK_BYTES = 1024 * 1024


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


class _Row(NamedTuple):
    line: int
    values: dict[str, Any]


@dataclass(slots=True)
class _Column:
    """The type that all values of a column fit: bool, a number, or text.

    :param kinds: The Python types of its values; ``_Number`` for numbers.
    """

    kinds: set[type] = field(default_factory=set)
    numbers: ColumnEvidence = field(default_factory=ColumnEvidence)

    def add(self, values: Sequence[Any], text: pa.Array) -> None:
        self.kinds |= {type(each) for each in values if each is not None}
        if self.kinds == {_Number}:
            self.numbers.add(text)

    @property
    def type(self) -> pa.DataType:
        if self.kinds == {bool}:
            return pa.bool_()
        return self.numbers.type if self.kinds == {_Number} else pa.string()

    def convert(self, values: Sequence[Any], text: pa.Array) -> pa.Array | None:
        """Return the values as :attr:`type`, or None when one of them would change the type."""
        if self.kinds - {_Number} and self.kinds != {bool}:
            return text
        if {type(each) for each in values if each is not None} - self.kinds:
            return None
        return pc.equal(text, "true") if self.kinds == {bool} else self.numbers.convert(text)


@dataclass(slots=True)
class _Dropped:
    """The lines of a file that are no JSON objects."""

    count: int = 0
    first: str = ""

    def add(self, why: DataNotReadable) -> None:
        self.first = self.first or str(why)
        self.count += 1


class JsonLinesReader:
    """The JSON lines files of one dataset, as tables of one schema; see :class:`.TableReader`.

    :param on_error: As for :class:`.DelimitedReader`.

    Source: v1, ``from_json_lines_files``, semantics section 5.
    """

    def __init__(self, files: Sequence[TableFile], layout: JsonLinesFormat, *, on_error: str = "null") -> None:
        self._files, self._layout, self._on_error = files, layout, on_error
        self._surveyed = False

    @property
    def trial_schema(self) -> pa.Schema:
        """The schema that the beginning of the first file suggests."""
        return self._schema_of(self._trial)

    @property
    def schema(self) -> pa.Schema:
        """The schema that every row of every file fits."""
        schema = self._schema_of(self._complete)
        self._surveyed = True
        return schema

    @cached_property
    def _trial(self) -> dict[str, _Column | DeclaredColumn]:
        return self._learn(block for file in self._files[:1] for block in islice(self._blocks(file), 1))

    @cached_property
    def _complete(self) -> dict[str, _Column | DeclaredColumn]:
        return self._learn(block for file in self._files for block in self._blocks(file))

    def batches(self, ordinal: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one file, in order.

        :param schema: :attr:`trial_schema`, or :attr:`schema` once that was a misfit; or some fields of them.
        :raises Misfit: a value does not fit, and ``schema`` is the trial one.
        :raises DataNotReadable: a line that is no JSON object, naming file and line.
        """
        file = self._files[ordinal]
        lost, dropped = LostValues(file, self._on_error), _Dropped()
        for rows in self._blocks(file, dropped):
            if rows:
                yield self._batch(file, rows, schema, lost)
        lost.warn()
        if dropped.count:
            warnings.warn(
                f"{dropped.count} line{'s' * (dropped.count > 1)} of {file.name} were left out; the first: {dropped.first}",
                stacklevel=2,
            )

    def _batch(self, file: TableFile, rows: Sequence[_Row], schema: pa.Schema, lost: LostValues) -> pa.RecordBatch:
        columns = self._complete if self._surveyed else self._trial
        arrays = {name: pa.nulls(len(rows), each.type) for name, each in columns.items() if name in schema.names}
        for name, values in _by_column(rows).items():
            if name not in columns:
                raise self._misfit(file, name)
            if name not in arrays:
                continue
            column, text = columns[name], _texts(values)
            found = column.convert(text) if isinstance(column, DeclaredColumn) else column.convert(values, text)
            if found is None:
                raise self._misfit(file, name)
            if isinstance(column, DeclaredColumn):
                lost.note(name, column, text, found, lambda row: f"line {rows[row].line}")
            arrays[name] = found
        return with_constants(file, schema, arrays, len(rows))

    def _misfit(self, file: TableFile, name: str) -> Exception:
        if self._surveyed:
            return DataChanged(
                f"{file.name} changed since its types were found out. Run this again when nothing writes it."
            )
        return Misfit(f"{file.name}, column {name!r}")

    def _blocks(self, file: TableFile, dropped: _Dropped | None = None) -> Iterator[list[_Row]]:
        """Yield the rows of a file, as many at a time as a block of it holds."""
        for block in read_blocks(file, DelimitedFormat(encoding=self._layout.encoding), _BLOCK_BYTES):
            rows = []
            for line, text in enumerate(bytes(block.text).splitlines(), start=block.line):
                try:
                    if text.strip():
                        rows.append(_Row(line, _object(text)))
                except ValueError as error:
                    why = DataNotReadable(
                        f"{file.name}, line {line} is no JSON object: {error}. invalid_lines='drop' leaves such lines out."
                    )
                    if self._layout.invalid_lines == "error":
                        raise why from error
                    if dropped:
                        dropped.add(why)
            yield rows

    def _learn(self, blocks: Iterator[list[_Row]]) -> dict[str, _Column | DeclaredColumn]:
        columns: dict[str, _Column | DeclaredColumn] = {}
        declared = self._layout.declared_types
        for rows in blocks:
            for name, values in _by_column(rows).items():
                column = columns.get(name) or (DeclaredColumn(declared[name]) if name in declared else _Column())
                columns[name] = column
                text = _texts(values)
                column.add(text) if isinstance(column, DeclaredColumn) else column.add(values, text)
        return columns

    def _schema_of(self, columns: Mapping[str, _Column | DeclaredColumn]) -> pa.Schema:
        constants = constant_fields(self._files, columns)
        return pa.schema([*constants, *((name, each.type) for name, each in columns.items())])


def _object(text: bytes) -> dict[str, Any]:
    """Return what a line holds. Objects and lists in it are JSON again, for a column is of one type.

    :raises ValueError: it holds no object.
    """
    found = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_no_json)
    if not isinstance(found, dict):
        raise ValueError(f"it is a {type(found).__name__.strip('_').lower()}")
    return found


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _by_column(rows: Sequence[_Row]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for place, row in enumerate(rows):
        for name, value in row.values.items():
            if name not in columns:
                columns[name] = [None] * len(rows)
            columns[name][place] = value
    return columns


def _texts(values: Sequence[Any]) -> pa.Array:
    return pa.array([each if each is None or isinstance(each, str) else _json(each) for each in values], pa.string())


def _json(value: Any) -> str:
    """Return a value as JSON, numbers as they were written."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {_json(each)}" for name, each in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
