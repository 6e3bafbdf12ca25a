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
from airflow_aml_data.core.tabular.rows import Chains, columns_to_read
from airflow_aml_data.errors import InvalidDeclaration


def open_reader(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    *,
    on_error: str = "null",
    threads: bool = True,
) -> TableReader:
    """Return what reads the files; nothing is read yet.

    :param on_error: What becomes of a value that cannot be what ``set_column_types`` asks for: ``"null"``, or with
        ``"fail"`` an error.
    :param threads: False: the columns of Parquet files are read one after another, which takes less memory.
    """
    if on_error not in ("null", "fail"):
        raise InvalidDeclaration(f"on_error is 'null' or 'fail', found {on_error!r}.")
    if isinstance(format, ParquetFormat):
        return ParquetReader(files, format, on_error=on_error, threads=threads)
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
        for [batch] in rows.of_file(ordinal):
            yield batch


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
    batches = [batch for ordinal in range(count) for [batch] in rows.of_file(ordinal)]
    return pa.Table.from_batches(batches, rows.schemas[0])


class TableRows:
    """The rows that chains of operations leave of a dataset's files, each file read once for all chains and in order.

    :param read_schema: With which the files are read.
    """

    def __init__(self, reader: TableReader, read_schema: pa.Schema, *chains: Sequence[Operation]) -> None:
        if not read_schema.names:  # no file holds anything
            chains = ((),) * len(chains)
        wanted = {name for each in chains for name in columns_to_read(read_schema.names, each)}
        self._reader = reader
        self._read_schema = pa.schema([each for each in read_schema if each.name in wanted])
        self._chains = Chains(chains)
        self._chains.start_file(0)
        nothing = pa.record_batch([pa.nulls(0, each.type) for each in self._read_schema], schema=self._read_schema)
        self.schemas: list[pa.Schema] = [each.schema for each in self._chains.apply(nothing)]
        """The columns that each chain leaves."""

    def of_file(self, ordinal: int) -> Iterator[list[pa.RecordBatch]]:
        """Yield what is left of one file by batches of which something is, each once for every chain.

        Files are asked for in their order.
        """
        self._chains.start_file(ordinal)
        if self._chains.finished:
            return
        for batch in self._reader.batches(ordinal, self._read_schema):
            left = self._chains.apply(batch)
            if any(each.num_rows for each in left):
                yield left
            if self._chains.finished:
                return
