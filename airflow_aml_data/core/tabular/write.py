"""A table as files, one for each of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from airflow_aml_data.core.expressions import fields_of
from airflow_aml_data.core.formats import (
    CsvFiles,
    DataType,
    DelimitedFormat,
    ParquetFiles,
    ParquetFormat,
    PromoteHeadersBehavior,
    TableFormat,
)
from airflow_aml_data.core.operations import Filter, Operation
from airflow_aml_data.core.tabular.base import TableFile
from airflow_aml_data.core.tabular.blocks import mark_and_codec
from airflow_aml_data.core.tabular.csv_text import header_text, rows_text
from airflow_aml_data.core.tabular.cut import cut_files, in_codec
from airflow_aml_data.core.tabular.parquet_files import Packing, with_dictionaries, write_parquet
from airflow_aml_data.core.tabular.passes import read_ahead
from airflow_aml_data.core.tabular.reading import TableRows, open_reader
from airflow_aml_data.core.tabular.rows import Positional, only_positions


def part_names(count: int, target: CsvFiles | ParquetFiles) -> list[str]:
    """Return the names of the files that a table of so many files is made into. Source: v1, ``part-N``, semantics section 5."""
    return [f"part-{number:05}" for number in range(count)]


def write_files(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    operations: Sequence[Operation],
    folder: Path,
    target: CsvFiles | ParquetFiles,
) -> list[Path]:
    """Write the rows that the operations leave of each file to a file of its own; return these in order.

    Memory does not grow with the files. Text files begin with the names of the columns and have the encoding of the
    delimited files they are made of, else UTF-8. Rows of delimited files that are chosen by position alone are copied byte
    for byte, values that no filter looks at as they are written; so are the parts of Parquet files packed the way these are.

    :raises DataNotReadable: a file that is not what ``format`` says, naming file and line or column.
    :raises DataChanged: a file was written to while it was read.
    :raises InvalidDeclaration: an operation asks for a column that is not there or compares it with another type, or a
        text file cannot hold a column.
    """
    parts = [folder / name for name in part_names(len(files), target)]
    if isinstance(target, ParquetFiles):
        _write_parquet_files(files, format, operations, parts)
    elif (positional := _cut_by(files, format, operations, target)) is not None and isinstance(format, DelimitedFormat):
        cut_files(files, format, positional, parts)
    else:
        _write_text_files(files, format, operations, parts, target)
    return parts


def _cut_by(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    operations: Sequence[Operation],
    target: CsvFiles,
) -> list[Positional] | None:
    """Return by which operations the files can be cut; None when their rows have to be written anew."""
    if not isinstance(format, DelimitedFormat) or target.separator != format.separator:
        return None
    one_header = len(files) == 1 or format.header != PromoteHeadersBehavior.COMBINE_ALL_FILES_HEADERS.name
    return only_positions(operations) if one_header and not any(file.columns for file in files) else None


def _write_text_files(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    operations: Sequence[Operation],
    parts: Sequence[Path],
    target: CsvFiles,
) -> None:
    if isinstance(format, DelimitedFormat):
        format = _as_written(files, format, operations)  # noqa: A001
    reader = open_reader(files, format)
    rows = TableRows(reader, reader.schema, operations)
    for ordinal, (file, part) in enumerate(zip(files, parts, strict=True)):
        mark, codec = mark_and_codec(file, format.encoding) if isinstance(format, DelimitedFormat) else (b"", "utf-8")
        with part.open("wb") as stream:
            stream.write(mark + in_codec(header_text(rows.schema.names, target.separator), codec))
            for batch in read_ahead(rows.of_file(ordinal)):
                stream.write(in_codec(rows_text(batch, target.separator), codec))


def _as_written(
    files: Sequence[TableFile], layout: DelimitedFormat, operations: Sequence[Operation]
) -> DelimitedFormat:
    """Return how to read the files so that values no filter looks at stay text."""
    filters = [each for each in operations if isinstance(each, Filter)]
    looked_at = {name for each in filters for name, _ in fields_of(each.expression)}
    if not looked_at:
        return replace(layout, infer_column_types=False, set_column_types=None)
    names = set(open_reader(files, layout).trial_schema.names)
    as_text = dict.fromkeys(names - looked_at, DataType.to_string())
    return replace(layout, set_column_types=layout.declared_types | as_text)


def _write_parquet_files(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    operations: Sequence[Operation],
    parts: Sequence[Path],
) -> None:
    reader = open_reader(files, format)
    schema = reader.schema
    packings = [Packing()] * len(files)
    if isinstance(format, ParquetFormat):
        packings = [Packing.of(file) for file in files]
        everywhere = [set(each.dictionaries or ()) for each in packings]
        common = set.intersection(*everywhere) if everywhere else set()
        schema = with_dictionaries(schema, common - format.declared_types.keys())
    rows = TableRows(reader, schema, operations)
    for ordinal, part in enumerate(parts):
        write_parquet(part, rows.schema, rows.of_file(ordinal), packings[ordinal])
