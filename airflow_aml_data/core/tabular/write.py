"""A table as files, one for each of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
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
from airflow_aml_data.core.tabular.parquet_files import Packing, little_memory, open_part, with_dictionaries
from airflow_aml_data.core.tabular.passes import read_ahead
from airflow_aml_data.core.tabular.reading import TableRows, open_reader
from airflow_aml_data.core.tabular.rows import only_positions


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
    """Write one table, as :func:`write_parts` writes several, and return its files."""
    [parts] = write_parts(files, format, [(operations, folder)], target)
    return parts


def write_parts(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    tables: Sequence[tuple[Sequence[Operation], Path]],
    target: CsvFiles | ParquetFiles,
) -> list[list[Path]]:
    """Write the rows that operations leave of each file to a file of its own; return these in order, for each table.

    Files are read once for all tables that can be made of them in one pass, such as both parts of a split; memory does not
    grow with them. Text files begin with the names of the columns and have the encoding of the delimited files they are
    made of, else UTF-8. Rows of delimited files that are chosen by position alone are copied byte for byte, values that no
    filter looks at as they are written; so are the parts of Parquet files packed the way these are.

    :param tables: The operations of each, and the folder for its files.
    :raises DataNotReadable: a file that is not what ``format`` says, naming file and line or column.
    :raises DataChanged: a file was written to while it was read.
    :raises InvalidDeclaration: an operation asks for a column that is not there or compares it with another type, or a
        text file cannot hold a column.
    """
    parts = [[folder / name for name in part_names(len(files), target)] for _, folder in tables]
    passes: dict[object, tuple[_Pass, list[int]]] = {}
    for place, (operations, _) in enumerate(tables):
        kind, write = _pass(files, format, operations, target)
        passes.setdefault(kind, (write, []))[1].append(place)
    for write, places in passes.values():
        write([tables[place][0] for place in places], [parts[place] for place in places])
    return parts


_Pass = Callable[[Sequence[Sequence[Operation]], Sequence[Sequence[Path]]], None]
"""Writes the parts of some tables, given the operations of each."""


def _pass(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    operations: Sequence[Operation],
    target: CsvFiles | ParquetFiles,
) -> tuple[object, _Pass]:
    """Return how a table is written, after something that is equal for tables that can be written in one pass."""
    if isinstance(target, ParquetFiles):
        return "Parquet", lambda chains, parts: _write_parquet_files(files, format, chains, parts)
    if not isinstance(format, DelimitedFormat):
        return "text", lambda chains, parts: _write_text_files(files, format, chains, parts, target)
    if _can_cut(files, format, operations, target):
        return "cut", lambda chains, parts: cut_files(files, format, [only_positions(each) for each in chains], parts)
    looked_at = _looked_at(operations)
    return looked_at, lambda chains, parts: _write_text_files(
        files, _as_written(files, format, looked_at), chains, parts, target
    )


def _can_cut(
    files: Sequence[TableFile], layout: DelimitedFormat, operations: Sequence[Operation], target: CsvFiles
) -> bool:
    """Return whether rows can be copied; they have to be written anew otherwise."""
    one_header = len(files) == 1 or layout.header != PromoteHeadersBehavior.COMBINE_ALL_FILES_HEADERS.name
    return (
        one_header
        and target.separator == layout.separator
        and len(only_positions(operations)) == len(operations)
        and not any(file.columns for file in files)
    )


def _write_text_files(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    chains: Sequence[Sequence[Operation]],
    parts: Sequence[Sequence[Path]],
    target: CsvFiles,
) -> None:
    reader = open_reader(files, format)
    rows = TableRows(reader, reader.schema, *chains)
    for ordinal, (file, *of_file) in enumerate(zip(files, *parts, strict=True)):
        mark, codec = mark_and_codec(file, format.encoding) if isinstance(format, DelimitedFormat) else (b"", "utf-8")
        with ExitStack() as opened:
            streams = [opened.enter_context(part.open("wb")) for part in of_file]
            for stream, schema in zip(streams, rows.schemas, strict=True):
                stream.write(mark)
                stream.write(in_codec(header_text(schema.names, target.separator), codec))
            for batches in read_ahead(rows.of_file(ordinal)):
                for stream, batch in zip(streams, batches, strict=True):
                    stream.write(in_codec(rows_text(batch, target.separator), codec))


def _looked_at(operations: Sequence[Operation]) -> frozenset[str]:
    filters = [each for each in operations if isinstance(each, Filter)]
    return frozenset(name for each in filters for name, _ in fields_of(each.expression))


def _as_written(files: Sequence[TableFile], layout: DelimitedFormat, looked_at: frozenset[str]) -> DelimitedFormat:
    """Return how to read the files so that values no filter looks at stay text."""
    if not looked_at:
        return replace(layout, infer_column_types=False, set_column_types=None)
    names = set(open_reader(files, layout).trial_schema.names)
    as_text = dict.fromkeys(names - looked_at, DataType.to_string())
    return replace(layout, set_column_types=layout.declared_types | as_text)


def _write_parquet_files(
    files: Sequence[TableFile],
    format: TableFormat,  # noqa: A002
    chains: Sequence[Sequence[Operation]],
    parts: Sequence[Sequence[Path]],
) -> None:
    reader = open_reader(files, format, threads=False)
    schema = reader.schema
    packings = [Packing()] * len(files)
    if isinstance(format, ParquetFormat):
        packings = [Packing.of(file) for file in files]
        everywhere = [set(each.dictionaries or ()) for each in packings]
        common = set.intersection(*everywhere) if everywhere else set()
        schema = with_dictionaries(schema, common - format.declared_types.keys())
    rows = TableRows(reader, schema, *chains)
    for ordinal, of_file in enumerate(zip(*parts, strict=True)):
        with ExitStack() as opened:
            opened.enter_context(little_memory())
            writers = [
                opened.enter_context(open_part(part, schema, packings[ordinal]))
                for part, schema in zip(of_file, rows.schemas, strict=True)
            ]
            for batches in rows.of_file(ordinal):
                for write, batch in zip(writers, batches, strict=True):
                    write(batch)
