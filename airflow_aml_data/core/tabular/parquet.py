"""Parquet files: types and columns are the files' own, and the same in all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from airflow_aml_data.core.tabular.columns import kept_positions
from airflow_aml_data.errors import DataNotReadable


def read_parquet_files(files: Iterable[tuple[str, Path]], columns: Sequence[str] | None) -> list[pa.Table]:
    tables: list[pa.Table] = []
    first: tuple[str, pa.Schema] | None = None
    for name, path in files:
        with path.open("rb") as stream:
            with _unreadable(f"Invalid Parquet file {name}. Corrupt footer."):
                file = pq.ParquetFile(stream)
            first = first or (name, file.schema_arrow)
            _check_same_columns(name, file.schema_arrow, *first)
            names = first[1].names
            wanted = [names[position] for position in kept_positions(names, columns)]
            with _unreadable(f"Invalid Parquet file {name}. Corrupt data."):
                table = file.read(columns=None if columns is None else wanted)
        tables.append(_plain(table if table.column_names == wanted else table.select(wanted)))
    return tables


def _plain(table: pa.Table) -> pa.Table:
    """Return the table without notes of its writer and with every column nullable, so that files agree."""
    return pa.Table.from_arrays(table.columns, schema=pa.schema([(f.name, f.type) for f in table.schema]))


@contextmanager
def _unreadable(message: str) -> Iterator[None]:
    """Turn what pyarrow raises about the content of a file into a message about the file."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the file
            raise
        raise DataNotReadable(message) from error


def _check_same_columns(name: str, schema: pa.Schema, first_name: str, first: pa.Schema) -> None:
    """Raise unless both files have the same columns of the same types, in whatever order."""
    for column in sorted({*schema.names, *first.names}):
        here, there = ([str(s.field(i).type) for i in s.get_all_field_indices(column)] for s in (schema, first))
        if here != there:
            raise DataNotReadable(
                f"Parquet file {name}: column {column!r} is {' and '.join(here) or 'missing'}, but "
                f"{' and '.join(there) or 'missing'} in {first_name}. "
                "The files of a dataset have the same columns."
            )
