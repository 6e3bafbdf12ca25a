"""Tables out of files: batch by batch, or whole, with the operations applied while they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from airflow_aml_data.core.formats import JsonLinesFormat, ParquetFormat, TableFormat
from airflow_aml_data.core.operations import Operation
from airflow_aml_data.core.tabular.base import Misfit, TableFile, TableReader
from airflow_aml_data.core.tabular.delimited import DelimitedReader
from airflow_aml_data.core.tabular.json_lines import JsonLinesReader
from airflow_aml_data.core.tabular.parquet import ParquetReader
from airflow_aml_data.core.tabular.rows import Chain, columns_to_read
from airflow_aml_data.errors import InvalidDeclaration


def open_reader(files: Sequence[TableFile], format: TableFormat, *, on_error: str = "null") -> TableReader:  # noqa: A002
    """Return what reads the files; nothing is read yet.

    :param on_error: What becomes of a value that cannot be what ``set_column_types`` asks for: ``"null"``, or with
        ``"fail"`` an error.
    """
    if on_error not in ("null", "fail"):
        raise InvalidDeclaration(f"on_error is 'null' or 'fail', found {on_error!r}.")
    if isinstance(format, ParquetFormat):
        return ParquetReader(files, format, on_error=on_error)
    if isinstance(format, JsonLinesFormat):
        return JsonLinesReader(files, format, on_error=on_error)
    return DelimitedReader(files, format, on_error="fail" if on_error == "fail" else "null")


def read_batches(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    operations: Sequence[Operation] = (),
    *,
    on_error: str = "null",
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that the operations leave, in order and in memory that does not grow with the files.

    All batches have the same columns and types; where these are inferred, all values are looked at first.

    :raises DataNotReadable: a file that is not what ``format`` says, naming file and line or column.
    :raises DataChanged: a file was written to while it was read.
    :raises InvalidDeclaration: an operation asks for a column that is not there, or compares it with another type.
    """
    reader = open_reader(files, format, on_error=on_error)
    rows = TableRows(reader, reader.schema, operations)
    for ordinal in range(len(files)):
        yield from rows.of_file(ordinal)


def read_table(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    operations: Sequence[Operation] = (),
    *,
    on_error: str = "null",
) -> pa.Table:
    """Return the rows that the operations leave of all files, as one table.

    Where types are inferred, they fit every value of the columns that are read, whether its row is kept or not. With
    ``take`` reading stops at the last row wanted, and what stands behind it decides nothing.

    :raises DataNotReadable, DataChanged, InvalidDeclaration: as :func:`read_batches`.
    """
    reader = open_reader(files, format, on_error=on_error)
    try:
        return _table(reader, len(files), reader.trial_schema, operations)
    except Misfit:
        return _table(reader, len(files), reader.schema, operations)


def _table(reader: TableReader, count: int, schema: pa.Schema, operations: Sequence[Operation]) -> pa.Table:
    rows = TableRows(reader, schema, operations)
    batches = [batch for ordinal in range(count) for batch in rows.of_file(ordinal)]
    return pa.Table.from_batches(batches, rows.schema)


class TableRows:
    """The rows that operations leave of a dataset's files, each file read once and in order.

    :param read_schema: With which the files are read.
    """

    def __init__(self, reader: TableReader, read_schema: pa.Schema, operations: Sequence[Operation]) -> None:
        if not read_schema.names:  # no file holds anything
            operations = ()
        self._reader = reader
        self._read_schema = pa.schema(
            [read_schema.field(name) for name in columns_to_read(read_schema.names, operations)]
        )
        self._chain = Chain(operations)
        self._chain.start_file(0)
        nothing = pa.RecordBatch.from_pylist([], self._read_schema)
        self.schema: pa.Schema = self._chain.apply(nothing).schema
        """The columns that are left."""

    def of_file(self, ordinal: int) -> Iterator[pa.RecordBatch]:
        """Yield what is left of one file; files are asked for in their order."""
        self._chain.start_file(ordinal)
        if self._chain.finished:
            return
        for batch in self._reader.batches(ordinal, self._read_schema):
            if (left := self._chain.apply(batch)).num_rows:
                yield left
            if self._chain.finished:
                return
