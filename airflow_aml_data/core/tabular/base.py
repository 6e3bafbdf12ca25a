"""What every format of table files offers: one schema, and the rows of each file in batches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from airflow_aml_data.errors import InvalidDeclaration


class TableFile(NamedTuple):
    """One file of a tabular dataset.

    :param name: Its path in the store, for messages.
    :param path: Where it can be read on this machine.
    :param columns: Columns of one value for the whole file, which come first: ``Path``, and what ``partition_format``
        finds in the path. None is null.
    """

    name: str
    path: Path
    columns: tuple[tuple[str, str | datetime | None], ...] = ()


class Misfit(Exception):
    """A value does not fit the schema that its file was being read with."""


class TableReader(Protocol):
    """The files of one dataset, as tables of one schema."""

    @property
    def trial_schema(self) -> pa.Schema:
        """A schema that is cheap to have and probably right; where no types are inferred, it is :attr:`schema`."""

    @property
    def schema(self) -> pa.Schema:
        """The schema that every row of every file fits; finding it may take reading them all."""

    def batches(self, ordinal: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows of one file, in order and in memory that does not grow with the file.

        :param ordinal: The file's place in the list.
        :raises Misfit: when a value does not fit ``schema``, and ``schema`` is only the trial one.
        :raises DataNotReadable: a file that is not what its format says, naming file and line or column.
        """


_NS, _US = pa.timestamp("ns"), pa.timestamp("us")
_NS_YEARS = range(1678, 2262)  # the full years that 64 bits count in ns


def constant_fields(files: Sequence[TableFile], names: Collection[str]) -> list[pa.Field]:
    """Return the columns of one value for a whole file.

    :param names: The columns in the data.
    :raises InvalidDeclaration: for one of that name.
    """
    types: dict[str, pa.DataType] = {}
    for file in files:
        for name, value in file.columns:
            if name in names:
                raise InvalidDeclaration(
                    f"The data has a column {name!r} already, so include_path or partition_format cannot add one. "
                    "Choose another name in partition_format, or leave include_path out."
                )
            if isinstance(value, datetime):
                counted = value.year in _NS_YEARS and types.get(name) != _US
                types[name] = _NS if counted else _US
            else:
                types.setdefault(name, pa.string())
    return [pa.field(name, type_) for name, type_ in types.items()]


def with_constants(file: TableFile, schema: pa.Schema, columns: Mapping[str, pa.Array], rows: int) -> pa.RecordBatch:
    """Return a batch of the columns of a schema: those given, and those of one value for the whole file."""
    constants = dict(file.columns)
    return pa.record_batch(
        [
            columns[each.name] if each.name in columns else pa.repeat(pa.scalar(constants[each.name], each.type), rows)
            for each in schema
        ],
        schema=schema,
    )
