"""Tables out of delimited and Parquet files: every value as it stands, every type decided over all rows.

A delimited file is read as text first. Its column types are then decided from what all rows of all files
allow, and only then are the rows of a sample or split picked, so both parts of a split have the same types.

Source: v1, semantics sections 5 and 15 (0/1 as bool, lost zeros and values silently null are not copied).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from airflow_aml_data.core.formats import CsvFiles, DelimitedFormat, ParquetFiles, ParquetFormat, TableFormat
from airflow_aml_data.core.operations import DropColumns, KeepColumns, Operation, Skip, Take, kept_columns
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.core.tabular.base import Misfit, TableFile
from airflow_aml_data.core.tabular.delimited import DelimitedReader
from airflow_aml_data.core.tabular.parquet import read_parquet_files
from airflow_aml_data.errors import InvalidDeclaration


def read_table(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    operations: Sequence[Operation] = (),
    *,
    on_error: str = "null",
) -> pa.Table:
    """Return the rows of all files as one table, in the order of the list.

    Neither the types nor the values of a column depend on which rows are selected or which columns are kept.

    :param operations: In this order. Samples apply to each file by itself; its place in the list is its stream. Headers
        and blank lines are not records and are not counted.
    :raises DataNotReadable: a file that is not what ``format`` says, naming file and line or column.
    :raises InvalidDeclaration: when ``keep_columns`` finds none of its columns.
    """
    parts = _parts(files, format, operations)
    return pa.concat_tables(parts) if parts else pa.table({})


def part_names(count: int, target: CsvFiles | ParquetFiles) -> list[str]:
    """The names of the files that a table of so many files is made into."""
    return [f"part-{number:05}" for number in range(count)]


def write_files(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    operations: Sequence[Operation],
    folder: Path,
    target: CsvFiles | ParquetFiles,
) -> list[Path]:
    """Write a table as files, one for each of its own; returns them in order."""
    made = []
    for name, table in zip(part_names(len(files), target), _parts(files, format, operations), strict=True):
        if isinstance(target, CsvFiles):
            pa.csv.write_csv(table, folder / name, pa.csv.WriteOptions(delimiter=target.separator))
        else:
            pa.parquet.write_table(table, folder / name)
        made.append(folder / name)
    return made


def _delimited(files: Sequence[TableFile], form: DelimitedFormat) -> list[pa.Table]:
    reader = DelimitedReader(files, form)
    try:
        return _tables(reader, reader.trial_schema, len(files))
    except Misfit:
        return _tables(reader, reader.schema, len(files))


def _tables(reader: DelimitedReader, schema: pa.Schema, count: int) -> list[pa.Table]:
    return [pa.Table.from_batches(reader.batches(ordinal, schema), schema) for ordinal in range(count)]


def _parts(files: Sequence[TableFile], form: TableFormat, operations: Sequence[Operation]) -> list[pa.Table]:
    named = [(each.name, each.path) for each in files]
    parts = read_parquet_files(named, None) if isinstance(form, ParquetFormat) else _delimited(files, form)
    for each in operations:
        match each:
            case Selection():
                parts = [t.filter(pa.array(each.mask(t.num_rows, stream=n))) for n, t in enumerate(parts)]
            case Take(count):
                starts = accumulate((t.num_rows for t in parts), initial=0)
                parts = [t.slice(0, max(0, int(count) - start)) for t, start in zip(parts, starts, strict=False)]
            case Skip(count):
                starts = accumulate((t.num_rows for t in parts), initial=0)
                parts = [t.slice(max(0, int(count) - start)) for t, start in zip(parts, starts, strict=False)]
            case KeepColumns() | DropColumns():
                parts = [t.select(kept_columns(t.column_names, [each])) for t in parts]
            case _:
                raise InvalidDeclaration(f"{each!r} is not offered yet.")
    return parts


_NULLABLE = {
    pa.int8(): "Int8",
    pa.int16(): "Int16",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.uint8(): "UInt8",
    pa.uint16(): "UInt16",
    pa.uint32(): "UInt32",
    pa.uint64(): "UInt64",
}


def to_pandas(table: pa.Table, *, index: str | None = None) -> pd.DataFrame:
    """Return the table as a DataFrame without losing a digit.

    :param index: The column that becomes the index too, when it is there.

    Whole numbers are ``int64``, or pandas' nullable ``Int64`` in a column with nulls (as floats they would be
    rounded above 2**53). bool with nulls is object with True, False and None, as in v1.
    """
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    for position, column in enumerate(table.columns):
        if column.null_count and column.type in _NULLABLE:
            dtype: Any = pd.api.types.pandas_dtype(_NULLABLE[column.type])
            frame.isetitem(position, dtype.__from_arrow__(column))
    if index in table.column_names:
        frame = frame.set_index(index, drop=False).rename_axis(None)
    return frame
