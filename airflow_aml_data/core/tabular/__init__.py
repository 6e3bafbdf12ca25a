"""Tables out of delimited and Parquet files: every value as it stands, every type decided over all rows.

A delimited file is read as text first. Its column types are then decided from what all rows of all files
allow, and only then are the rows of a sample or split picked, so both parts of a split have the same types.

Source: v1, semantics sections 5 and 15 (0/1 as bool, lost zeros and values silently null are not copied).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from airflow_aml_data.core.formats import DelimitedFormat, ParquetFormat
from airflow_aml_data.core.selection import Selection, StreamSelector
from airflow_aml_data.core.tabular.delimited import read_delimited_files
from airflow_aml_data.core.tabular.parquet import read_parquet_files


def read_table(
    files: Sequence[tuple[str, Path]],
    format: DelimitedFormat | ParquetFormat,  # noqa: A002
    selections: Sequence[Selection] = (),
    *,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Return the rows of all files as one table, in the order of the list.

    Neither the types nor the values of a column depend on which rows are selected or which columns are kept.

    :param files: (name for messages, local path).
    :param selections: Applied to each file by itself; the file's place in the list is its stream. Headers and
        blank lines are not records and are not counted.
    :param columns: Keep these, in the order of the files; unknown names are ignored. None: all.
    :raises DataNotReadable: a file that is not what ``format`` says, naming file and line or column.
    :raises InvalidDeclaration: none of ``columns`` exists.
    """
    tables = (
        read_parquet_files(files, columns)
        if isinstance(format, ParquetFormat)
        else read_delimited_files(files, format, columns)
    )
    parts = []
    for stream, table in enumerate(tables):
        kept = StreamSelector(selections, stream).mask(table.num_rows) if selections else None
        parts.append(table if kept is None else table.filter(pa.array(kept)))
    return pa.concat_tables(parts) if parts else pa.table({})


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


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Return the table as a DataFrame without losing a digit.

    Whole numbers are ``int64``, or pandas' nullable ``Int64`` in a column with nulls (as floats they would be
    rounded above 2**53). bool with nulls is object with True, False and None, as in v1.
    """
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    for position, column in enumerate(table.columns):
        if column.null_count and column.type in _NULLABLE:
            dtype: Any = pd.api.types.pandas_dtype(_NULLABLE[column.type])
            frame.isetitem(position, dtype.__from_arrow__(column))
    return frame
