"""Delimited text files: one schema for all, and the rows of each in batches.

A schema is tried that the first records suggest. It is the right one if every later value fits it; if one does not,
:attr:`DelimitedReader.schema` looks at all values of all files, so a type never depends on where a value stands.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from airflow_aml_data.core.formats import DelimitedFormat
from airflow_aml_data.core.tabular.base import Misfit, TableFile, constant_fields, with_constants
from airflow_aml_data.core.tabular.blocks import BLOCK_BYTES, Block
from airflow_aml_data.core.tabular.declared import DeclaredColumn
from airflow_aml_data.core.tabular.parse import line_of_row, parse
from airflow_aml_data.core.tabular.plan import (
    TRIAL_RECORDS,
    Column,
    Plan,
    complete_plan,
    open_file,
    trial_plan,
)
from airflow_aml_data.core.tabular.workers import in_order
from airflow_aml_data.errors import DataChanged, DataNotReadable

_COLUMNS = 500  # more make a block larger, up to some times: each costs some time in each block
_MOST_TIMES = 8
_STACK_LEVEL = 2  # generators: the frame that asks for the next batch


@dataclass(frozen=True, slots=True)
class _Nulled:
    """How many values became null since they are not of their declared type, and the first of them."""

    count: int
    line: int
    value: str


class _Part(NamedTuple):
    """What became of a block."""

    batch: pa.RecordBatch | None
    nulled: dict[str, _Nulled]
    open_quote: int | None


class DelimitedReader:
    """The delimited text files of one dataset, as tables of one schema; see :class:`.TableReader`.

    A file is read in blocks of some megabytes, on several threads where it has more than one.

    Warnings tell what is not as it stands: for each file values that became null because they are not of their declared
    type, counted, and the first quote that is open at the end of its record; dates that can be read in two ways.

    :param on_error: What becomes of a value that is not of the type ``set_column_types`` gives its column: ``"null"``, or
        ``"fail"``: :exc:`.DataNotReadable`.
    :param block_bytes: How much is read at once.

    Source: v1, ``from_delimited_files``, semantics section 5.
    """

    def __init__(
        self,
        files: Sequence[TableFile],
        layout: DelimitedFormat,
        *,
        on_error: Literal["null", "fail"] = "null",
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._files, self._layout = tuple(files), layout
        self._on_error, self._block_bytes = on_error, block_bytes
        self._surveyed = False

    @property
    def trial_schema(self) -> pa.Schema:
        """The schema that the first records suggest.

        :raises DataNotReadable: a file that is not what its format says.
        """
        return self._schema_of(self._trial)

    @property
    def schema(self) -> pa.Schema:
        """The schema that every row of every file fits; with ``type_conflict="raise"`` the one of the first records.

        :raises DataNotReadable: a file that is not what its format says.
        """
        if self._layout.type_conflict == "raise":
            return self.trial_schema
        schema = self._schema_of(self._complete)
        self._surveyed = True
        return schema

    @cached_property
    def _trial(self) -> Plan:
        return trial_plan(self._files, self._layout, self._block_bytes)

    @cached_property
    def _complete(self) -> Plan:
        return complete_plan(self._files, self._layout, self._sized_block)

    @property
    def _sized_block(self) -> int:
        return self._block_bytes * min(_MOST_TIMES, 1 + len(self._trial.columns) // _COLUMNS)

    def _schema_of(self, plan: Plan) -> pa.Schema:
        constants = constant_fields(self._files, plan.columns)
        return pa.schema([*constants, *((name, each.type) for name, each in plan.columns.items())])

    def batches(self, ordinal: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one file, in order.

        :param schema: :attr:`trial_schema`, or :attr:`schema` once that was a misfit; or some fields of them.
        :raises Misfit: a value does not fit, and ``schema`` is the trial one.
        :raises DataNotReadable: a file that is not what its format says, or with ``type_conflict="raise"`` a misfit.
        """
        file, plan = self._files[ordinal], self._complete if self._surveyed else self._trial
        has_header = self._layout.has_header(ordinal)
        header, blocks = open_file(file, self._layout, self._sized_block, has_header=has_header)
        nulled: dict[str, _Nulled] = {}
        open_quote = None

        def convert(block: Block) -> _Part:
            return self._convert(file, block, header, plan, schema)

        try:
            for part in in_order(convert, blocks):
                if open_quote is None and part.open_quote is not None:
                    open_quote = part.open_quote
                    _warn_of_open_quote(file, open_quote)
                for name, new in part.nulled.items():
                    old = nulled.get(name, _Nulled(0, new.line, new.value))
                    nulled[name] = replace(old, count=old.count + new.count)
                if part.batch is not None:
                    yield part.batch
            _warn_of_dates(file, plan)
        finally:
            _warn_of_nulls(file, plan, nulled)

    def _convert(self, file: TableFile, block: Block, header: Sequence[str], plan: Plan, schema: pa.Schema) -> _Part:
        texts = parse(block, self._layout)
        if not texts.rows:
            return _Part(None, {}, None)
        by_name = dict(zip(plan.names(header, len(texts.columns)), texts.columns, strict=False))
        for name in by_name.keys() - plan.columns.keys():
            raise self._misfit(file, block, plan, name, by_name[name])
        nulled: dict[str, _Nulled] = {}
        arrays = {}
        for name in plan.columns.keys() & set(schema.names):
            column, text = plan.columns[name], by_name.get(name)
            if text is None:
                arrays[name] = pa.nulls(texts.rows, column.type)
            elif (array := column.convert(text)) is None:
                raise self._misfit(file, block, plan, name, text)
            else:
                arrays[name] = array
                if isinstance(column, DeclaredColumn) and array.null_count > text.null_count:
                    self._note_nulls(file, block, name, column, text, array, nulled)
        return _Part(with_constants(file, schema, arrays, texts.rows), nulled, texts.open_quote)

    def _note_nulls(
        self,
        file: TableFile,
        block: Block,
        name: str,
        column: DeclaredColumn,
        text: pa.Array,
        array: pa.Array,
        nulled: dict[str, _Nulled],
    ) -> None:
        lost = pc.and_(array.is_null(), column.has_value(text)).fill_null(False)
        if not (count := pc.sum(lost).as_py()):
            return
        row = lost.index(True).as_py()
        first = _Nulled(count, line_of_row(block, self._layout, row), text[row].as_py())
        if self._on_error == "fail":
            raise DataNotReadable(
                f"{file.name}, line {first.line}: {first.value!r} in column {name!r} is no {column.type}, which "
                "set_column_types says. on_error='null' makes such values null."
            )
        nulled[name] = first

    def _misfit(self, file: TableFile, block: Block, plan: Plan, name: str, text: pa.Array) -> Exception:
        """Return the error for a column with a value that the plan did not expect."""
        if plan.complete:
            return DataChanged(
                f"{file.name} changed since its types were found out. Run this again when nothing writes it."
            )
        if self._layout.type_conflict == "widen":
            return Misfit(f"{file.name}, column {name!r}")
        known = plan.columns.get(name)
        row = _first_misfit(known, text) if known else pc.index(text.is_valid(), True).as_py()
        what = f"no {known.type}, the type that" if known else "in a column that none of"
        return DataNotReadable(
            f"{file.name}, line {line_of_row(block, self._layout, row)}: {text[row].as_py()!r} in column {name!r} is {what} "
            f"the first {TRIAL_RECORDS} records have. Give the column a type with set_column_types, or read the files "
            "with type_conflict='widen'."
        )


def _first_misfit(column: Column, text: pa.Array) -> int:
    """Return the first row that keeps the rows up to it from being of the column's type."""
    fits, fails = 0, len(text)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if column.convert(text.slice(0, middle)) is None:
            fails = middle
        else:
            fits = middle
    return fits


def _warn_of_open_quote(file: TableFile, line: int) -> None:
    warnings.warn(
        f"{file.name}, line {line}: a quote is open at the end of the line, where the record ends too. If quoted values "
        "hold line ends, read the files with support_multi_line=True.",
        stacklevel=_STACK_LEVEL + 1,
    )


def _warn_of_dates(file: TableFile, plan: Plan) -> None:
    for name, column in plan.columns.items():
        if isinstance(column, DeclaredColumn) and column.ambiguous:
            warnings.warn(
                f"{file.name}: dates in column {name!r} can be read as month/day or as day/month; they were read as "
                "month/day. Tell with set_column_types: DataType.to_datetime('%d/%m/%Y').",
                stacklevel=_STACK_LEVEL + 1,
            )


def _warn_of_nulls(file: TableFile, plan: Plan, nulled: dict[str, _Nulled]) -> None:
    for name, each in nulled.items():
        warnings.warn(
            f"{file.name}: {each.count} value{'s' * (each.count > 1)} of column {name!r} became null, being no "
            f"{plan.columns[name].type}; the first is {each.value!r} in line {each.line}. on_error='fail' makes this an error.",
            stacklevel=_STACK_LEVEL + 1,
        )
