"""Delimited text files: cut into records, then columns of text, then columns of their types.

Two parsers give the same records. pyarrow's is fast and is used when a file is rectangular: its records all
have the same number of fields. Whatever it cannot do, or would do differently from v1, goes through Python's
csv module, record by record; see :func:`_parse`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO, TextIOWrapper
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from airflow_aml_data.core.formats import CODECS, DelimitedFormat
from airflow_aml_data.core.tabular.columns import column_type, converted, kept_positions, without_empty
from airflow_aml_data.errors import DataNotReadable


@dataclass(frozen=True, slots=True)
class _TextFile:
    """One parsed file: its rows as text columns named by position, its header apart (empty: none)."""

    header: list[str]
    rows: pa.Table


def read_delimited_files(
    files: Iterable[tuple[str, Path]],
    layout: DelimitedFormat,
    columns: Sequence[str] | None,
) -> list[pa.Table]:
    parsed = [_read_text_file(name, path, layout) for name, path in files]
    header = next((file.header for file in parsed if file.header), [])
    width = max([len(header), *(file.rows.num_columns for file in parsed)])
    names = column_names(header, width)
    rows = [_widened(file.rows, width) for file in parsed]
    kept = kept_positions(names, columns)
    schema = pa.schema([(names[i], column_type([table.column(i) for table in rows], layout)) for i in kept])
    return [
        pa.Table.from_arrays(
            [converted(table.column(i), column.type) for i, column in zip(kept, schema, strict=True)],
            schema=schema,
        )
        for table in rows
    ]


def _read_text_file(name: str, path: Path, layout: DelimitedFormat) -> _TextFile:
    table = _parse(name, _as_utf8(name, path.read_bytes(), layout.encoding), layout)
    if not layout.header:
        return _TextFile([], table)
    header = [column[0].as_py() or "" for column in table.columns] if table.num_rows else []
    rows = table.slice(1)
    return _TextFile(header, rows if rows.num_rows else pa.table({}))


def column_names(header: Sequence[str], width: int) -> list[str]:
    """Return ``width`` different names: the header's, trimmed; ``Column{position}`` for the ones it lacks.

    The second ``a`` becomes ``a_1``, or the next number that no other column has.

    Source: v1, semantics section 5.
    """
    given = [text.strip() for text in header] + [""] * (width - len(header))
    wished = [text or f"Column{position}" for position, text in enumerate(given, start=1)]
    taken, names = set(wished), dict[str, None]()
    for wish in wished:
        name, number = wish, 0
        while name in names or (number and name in taken):
            number += 1
            name = f"{wish}_{number}"
        names[name] = None
    return list(names)


def _widened(table: pa.Table, width: int) -> pa.Table:
    """Return the table with null columns added up to ``width``."""
    for position in range(table.num_columns, width):
        table = table.append_column(str(position), pa.nulls(table.num_rows, pa.string()))
    return table


def _as_utf8(name: str, data: bytes, encoding: str) -> bytes:
    """Return the text of a file as UTF-8 without byte order mark; every character is known to be valid."""
    codec = CODECS[encoding]
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        # not the data: utf-8-sig counts from behind the mark
        before = error.object[: error.start].decode(codec, errors="ignore")
        raise DataNotReadable(
            f"{name}, line {_line_after(before)}: the bytes {error.object[error.start : error.end]!r} "
            f"are not {encoding} text. Declare the encoding the file has: {', '.join(CODECS)}."
        ) from error
    if (position := text.find("\0")) >= 0:
        raise DataNotReadable(
            f"{name}, line {_line_after(text[:position])}: a NUL character. "
            f"The file is binary, or its encoding is not {encoding}."
        )
    return text.encode()


def _line_after(text: str) -> int:
    return len(re.findall(r"\r\n|\r|\n", text)) + 1


_END = "\0"  # a last record of our own: files that hold a NUL are refused, so none has it
_BLOCK_BYTES = 4 * 1024 * 1024  # a longer record goes the slow way
_LARGEST_BLOCK = 2**31 - 1  # pyarrow's limit
_ROWS_AT_ONCE = 16_384


def _parse(name: str, data: bytes, layout: DelimitedFormat) -> pa.Table:
    """Return every record, a header among them, as text columns named by position.

    Blank lines are skipped. What a short record lacks is null; an empty field too, unless
    ``empty_as_string``.
    """
    # the limit is one for the process; it is only ever raised, so nobody loses by it
    csv.field_size_limit(max(csv.field_size_limit(), len(data)))
    rectangular = _parse_rectangular(data, layout)
    return _parse_each_record(name, data, layout) if rectangular is None else rectangular


def _parse_rectangular(data: bytes, layout: DelimitedFormat) -> pa.Table | None:
    """Return what pyarrow parses, or None when it cannot or when v1 cuts the text differently.

    pyarrow takes a quote still open at the end of the file for closed, and it honours quoted line ends if
    asked not to. Both show in the last record, which is ours, and in the number of records. Where a quoted
    value lies across two of its blocks it may lose a line end or close the quote (observed with 26.0), so a
    file with quotes is one block.
    """
    if not layout.separator.isascii():  # pyarrow wants a separator of one byte
        return None
    first = next(csv.reader(_lines_with_text(data), delimiter=layout.separator), [])
    if not first:
        return pa.table({})
    end = "\n" + _END + layout.separator * (len(first) - 1)
    text = data + end.encode()
    quoted = b'"' in data
    if quoted and len(text) > _LARGEST_BLOCK:
        return None
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(text),
            read_options=pa.csv.ReadOptions(
                column_names=[str(i) for i in range(len(first))],
                block_size=len(text) if quoted else _BLOCK_BYTES,
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=layout.separator, newlines_in_values=quoted and layout.support_multi_line
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types={str(i): pa.string() for i in range(len(first))},
                null_values=[""],
                strings_can_be_null=not layout.empty_as_string,
                check_utf8=False,  # it has been decoded already
            ),
        )
    except pa.ArrowInvalid:  # ragged, empty, or a record larger than a block
        return None
    if table.column(0)[-1].as_py() != _END:
        return None
    if quoted and not layout.support_multi_line and table.num_rows != _count_lines(text):
        return None
    return table.slice(0, table.num_rows - 1)


def _lines_with_text(data: bytes) -> Iterator[str]:
    """Yield the lines that are not blank, decoding no more than is asked for."""
    lines = TextIOWrapper(BytesIO(data), encoding="utf-8", newline="")
    return (line for line in lines if line.strip("\r\n"))


def _count_lines(text: bytes) -> int:
    """Return how many lines are not blank."""
    characters = np.frombuffer(text, dtype=np.uint8)
    ends = (characters == ord("\n")) | (characters == ord("\r"))
    return int(np.count_nonzero(~ends[:-1] & ends[1:])) + int(not ends[-1])


def _parse_each_record(name: str, data: bytes, layout: DelimitedFormat) -> pa.Table:
    """Return what Python's csv module parses: the slow way, for everything pyarrow does not do."""
    lines = StringIO(data.decode(), newline="")
    split = _multi_line_records if layout.support_multi_line else _single_line_records
    records = split(name, lines, layout.separator)
    tables = []
    while batch := list(islice(records, _ROWS_AT_ONCE)):
        columns = [pa.array(values, pa.string()) for values in zip_longest(*batch)]
        if not layout.empty_as_string:
            columns = [without_empty(column) for column in columns]
        tables.append(pa.Table.from_arrays(columns, names=[str(i) for i in range(len(columns))]))
    width = max((table.num_columns for table in tables), default=0)
    return pa.concat_tables([_widened(table, width) for table in tables]) if tables else pa.table({})


def _single_line_records(name: str, lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """Yield one record per line. Source: v1 splits a quoted line end without support_multi_line."""
    for line in lines:
        if text := line.rstrip("\r\n"):
            yield next(csv.reader((text,), delimiter=separator)) if '"' in text else text.split(separator)


def _multi_line_records(name: str, lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """Yield records, each of as many lines as its quotes hold together."""

    def ended() -> Iterator[str]:
        yield from lines
        yield _END

    reader = csv.reader(ended(), delimiter=separator)
    start = 1
    for record in reader:
        if record == [_END] and reader.line_num == start:
            return
        if record and record[-1].endswith(_END):
            raise DataNotReadable(f"{name}, line {start}: a quote of this record is never closed.")
        if record:
            yield record
        start = reader.line_num + 1
