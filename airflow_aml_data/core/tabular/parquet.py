"""Parquet files: types and columns are the files' own, and the same in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_aml_data.core.formats import ParquetFormat
from airflow_aml_data.core.tabular.base import TableFile, constant_fields, with_constants
from airflow_aml_data.core.tabular.declared import DeclaredColumn
from airflow_aml_data.core.tabular.lost import LostValues
from airflow_aml_data.core.tabular.passes import read_ahead, unchanged
from airflow_aml_data.errors import DataChanged, DataNotReadable

_ROWS_AT_ONCE = 65_536


class ParquetReader:
    """The files of a Parquet dataset. See :class:`.TableReader`.

    Batches hold a column as a dictionary where the schema asked for does: its values are then as the file holds them.
    """

    def __init__(
        self,
        files: Sequence[TableFile],
        format: ParquetFormat,  # noqa: A002
        *,
        on_error: str = "null",
        threads: bool = True,
    ) -> None:
        self._files, self._on_error, self._threads = files, on_error, threads
        self._declared = format.declared_types

    @property
    def schema(self) -> pa.Schema:
        """The columns of the first file, those of one value for a file before them.

        A column without any value in some files (of Parquet's type null) has the type that it has in the others.

        :raises DataNotReadable: another file has other columns, or types.
        """
        declared = {name: each.type for name, each in self._columns.items()}
        # without notes of the writers and with every column nullable, so that files agree
        return pa.schema([*constant_fields(self._files, self._types), *(self._types | declared).items()])

    @property
    def trial_schema(self) -> pa.Schema:
        """The schema: nothing is inferred."""
        return self.schema

    @cached_property
    def _types(self) -> dict[str, pa.DataType]:
        types: dict[str, tuple[pa.DataType, str]] = {}
        for number, file in enumerate(self._files):
            with open_parquet(file) as opened:
                found = opened.schema_arrow
            if number and found.names != list(types):
                _check_names(file.name, found.names, self._files[0].name, list(types))
            for each in found:
                type_, first = types.get(each.name, (each.type, file.name))
                if pa.types.is_null(type_):
                    type_, first = each.type, file.name
                if each.type != type_ and not pa.types.is_null(each.type):
                    raise DataNotReadable(
                        f"Parquet file {file.name}: column {each.name!r} is {each.type}, but {type_} in {first}. "
                        "The files of a dataset have the same columns."
                    )
                types[each.name] = type_, first
        return {name: type_ for name, (type_, _) in types.items()}

    @cached_property
    def _columns(self) -> dict[str, DeclaredColumn]:
        """The columns of declared types; of text that is to be dates all values are looked at."""
        columns = {name: DeclaredColumn(type_) for name, type_ in self._declared.items() if name in self._types}
        dates = [name for name, each in columns.items() if each.data_type.kind == "datetime"]
        dates = [name for name in dates if not pa.types.is_temporal(self._types[name])]
        for file in self._files if dates else ():
            for batch in self._read(file, dates):
                for name in dates:
                    columns[name].add(pc.cast(batch.column(name), pa.string()))
        return columns

    def batches(self, ordinal: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows of one file. See :meth:`.TableReader.batches`."""
        file = self._files[ordinal]
        names = [each.name for each in schema if each.name in self._types]
        dictionaries = [each.name for each in schema if pa.types.is_dictionary(each.type)]
        lost, row = LostValues(file, self._on_error), 0
        for batch in self._read(file, names, dictionaries):
            columns = {
                name: self._converted(name, column, schema.field(name).type, lost, row)
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            yield with_constants(file, schema, columns, batch.num_rows)
            row += batch.num_rows
        lost.warn()

    def _read(
        self, file: TableFile, names: Sequence[str], dictionaries: Sequence[str] = ()
    ) -> Iterator[pa.RecordBatch]:
        data = _readable(f"Invalid Parquet file {file.name}. Corrupt data.")
        with unchanged(file), open_parquet(file, dictionaries) as opened, data:
            batches = opened.iter_batches(_ROWS_AT_ONCE, columns=list(names), use_threads=self._threads)
            yield from read_ahead(batches)

    def _converted(self, name: str, column: pa.Array, type_: pa.DataType, lost: LostValues, row: int) -> pa.Array:
        """Return a column as the schema wants it.

        :param row: How many rows of the file are before it.
        """
        if column.type == type_ or pa.types.is_dictionary(type_):
            return column
        if pa.types.is_null(column.type):
            return pa.nulls(len(column), type_)
        if pa.types.is_temporal(column.type) and pa.types.is_temporal(type_):
            return pc.cast(column, type_)
        text = pc.cast(column, pa.string())
        if (found := self._columns[name].convert(text)) is None:
            raise DataChanged(f"Column {name!r} changed since its dates were looked at. Run this again.")
        lost.note(name, self._columns[name], text, found, lambda place: f"row {row + place + 1}")
        return found


@contextmanager
def open_parquet(file: TableFile, dictionaries: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """Open a file, so that it takes no more memory than a batch needs.

    :param dictionaries: Columns of text to be read as dictionaries.
    :raises DataNotReadable: it is no Parquet file.
    """
    with file.path.open("rb") as stream:
        with _readable(f"Invalid Parquet file {file.name}. Corrupt footer."):
            opened = pq.ParquetFile(stream, read_dictionary=list(dictionaries), pre_buffer=False, buffer_size=1 << 16)
        yield opened


@contextmanager
def _readable(message: str) -> Iterator[None]:
    """Turn what pyarrow raises about the content of a file into a message about the file."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the file
            raise
        raise DataNotReadable(message) from error


def _check_names(name: str, found: Sequence[str], first_name: str, first: Sequence[str]) -> None:
    """Raise unless both files have the same columns, in whatever order."""
    for column in sorted({*found, *first}):
        if column not in found or column not in first:
            here, there = ("there" if column in names else "missing" for names in (found, first))
            raise DataNotReadable(
                f"Parquet file {name}: column {column!r} is {here}, but {there} in {first_name}. "
                "The files of a dataset have the same columns."
            )
