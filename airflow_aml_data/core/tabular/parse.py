"""Records of delimited text as columns of text.

Two parsers give the same columns. pyarrow's is fast and is used where it does what Python's csv module does: for records
that all have the same number of fields and quote none or whole fields. The csv module does the rest, record by record.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from itertools import islice, zip_longest
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from airflow_aml_data.core.formats import DelimitedFormat
from airflow_aml_data.core.tabular.blocks import Block, count_line_ends
from airflow_aml_data.core.tabular.columns import POOL, without_empty

_ROWS_AT_ONCE = 16_384
_WITH_TEXT = re.compile(rb"[^\r\n]+")
_LF, _CR, _QUOTE = b'\n\r"'


class Texts(NamedTuple):
    """The columns of a block, all of one length: text, with nulls for what short records lack.

    :param open_quote: The first line that ends within quotes, where that ends the record too.
    """

    columns: list[pa.Array]
    open_quote: int | None = None

    @property
    def rows(self) -> int:
        return len(self.columns[0]) if self.columns else 0


def parse(block: Block, layout: DelimitedFormat) -> Texts:
    """Return every record of a block. Blank lines are none; an empty field is null, unless ``empty_as_string``."""
    # the limit is one for the process; it is only ever raised, so nobody loses by it
    csv.field_size_limit(max(csv.field_size_limit(), len(block.text)))
    columns = _parse_rectangular(block.text, layout)
    return _parse_each_record(block, layout) if columns is None else Texts(columns)


def first_record(block: Block, layout: DelimitedFormat) -> tuple[list[str], Block] | None:
    """Return the fields of the first record, and the block behind it; None when all lines are blank."""
    csv.field_size_limit(max(csv.field_size_limit(), len(block.text)))
    for record in _records(block.text, layout):
        text = block.text[record.end :]
        return record.fields, Block(text, block.line + count_line_ends(block.text[: record.end]))
    return None


def first_records(block: Block, layout: DelimitedFormat, count: int) -> Block:
    """Return the beginning of a block with at most so many records."""
    end = 0
    for record in islice(_records(block.text, layout), count):
        end = record.end
    return Block(block.text[:end], block.line)


def line_of_row(block: Block, layout: DelimitedFormat, row: int) -> int:
    """Return the line of the file in which a row of the block begins."""
    record = next(islice(_records(block.text, layout), row, None))
    return block.line + count_line_ends(block.text[: record.start])


def _parse_rectangular(text: bytes | bytearray, layout: DelimitedFormat) -> list[pa.Array] | None:
    """Return what pyarrow parses, or None when it cannot or when the csv module cuts the text differently."""
    if not layout.separator.isascii():  # pyarrow wants a separator of one byte
        return None
    if (line := _WITH_TEXT.search(text)) is None:
        return []
    quoted = b'"' in text
    if not quoted:
        width = line.group().count(layout.separator.encode()) + 1
    elif _quotes_whole_fields(text, layout):
        width = len(next(_records(text, layout)).fields)
    else:
        return None
    names = [str(position) for position in range(width)]
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(text),
            # one block: pyarrow may lose a line end where a quoted value lies across two (observed with 26.0)
            read_options=pa.csv.ReadOptions(column_names=names, block_size=len(text), use_threads=False),
            parse_options=pa.csv.ParseOptions(
                delimiter=layout.separator,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted and layout.support_multi_line,
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=not layout.empty_as_string,
                check_utf8=False,  # it has been decoded already
            ),
            memory_pool=POOL,
        )
    except pa.ArrowInvalid:  # ragged
        return None
    return [column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in table.columns]


def _quotes_whole_fields(text: bytes | bytearray, layout: DelimitedFormat) -> bool:
    """Return whether every quote opens or closes a field, or is one of two; no line end among them without multi-line."""
    characters = np.frombuffer(text, dtype=np.uint8)
    quotes = np.flatnonzero(characters == _QUOTE)
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    around = np.array([_LF, _CR, _QUOTE, ord(layout.separator)], dtype=np.uint8)
    before, after = characters[opening[opening > 0] - 1], characters[closing[closing + 1 < len(text)] + 1]
    if not (np.isin(before, around).all() and np.isin(after, around).all()):
        return False
    if layout.support_multi_line:
        return True
    ends = np.flatnonzero((characters == _LF) | (characters == _CR))
    return bool(np.array_equal(np.searchsorted(ends, opening), np.searchsorted(ends, closing)))


def _parse_each_record(block: Block, layout: DelimitedFormat) -> Texts:
    """Return what Python's csv module parses: the slow way, for everything pyarrow does not do."""
    records = _records(block.text, layout)
    parts: list[list[pa.Array]] = []
    open_quote: int | None = None
    while batch := list(islice(records, _ROWS_AT_ONCE)):
        columns = [pa.array(values, pa.string()) for values in zip_longest(*(record.fields for record in batch))]
        parts.append(columns if layout.empty_as_string else [without_empty(column) for column in columns])
        if open_quote is None and (left := next((record for record in batch if record.open_quote), None)):
            open_quote = block.line + count_line_ends(block.text[: left.start])
    width = max(map(len, parts), default=0)
    parts = [part + [pa.nulls(len(part[0]), pa.string())] * (width - len(part)) for part in parts]
    return Texts([pa.concat_arrays(column) for column in zip(*parts, strict=True)], open_quote)


class _Record(NamedTuple):
    """Fields, where the record begins and ends in the text, and whether it ends within quotes."""

    fields: list[str]
    start: int
    end: int
    open_quote: bool = False


def _records(text: bytes | bytearray, layout: DelimitedFormat) -> Iterator[_Record]:
    """Yield what the csv module makes of a text; lines without a character are no records."""
    lines = TextIOWrapper(BytesIO(text), encoding="utf-8", newline="")
    return (_multi_line_records if layout.support_multi_line else _single_line_records)(lines, layout.separator)


def _single_line_records(lines: Iterator[str], separator: str) -> Iterator[_Record]:
    """Yield one record per line. Source: v1 splits a quoted line end without support_multi_line."""
    end = 0
    for line in lines:
        start, end = end, end + len(line.encode())
        if not (text := line.rstrip("\r\n")):
            continue
        if '"' not in text:
            yield _Record(text.split(separator), start, end)
            continue
        fields = next(csv.reader((text + "\n",), delimiter=separator))
        open_quote = fields[-1].endswith("\n")
        fields[-1] = fields[-1].removesuffix("\n")
        yield _Record(fields, start, end, open_quote)


def _multi_line_records(lines: Iterator[str], separator: str) -> Iterator[_Record]:
    """Yield records, each of as many lines as its quotes hold together."""
    start = end = 0

    def counted() -> Iterator[str]:
        nonlocal end
        for line in lines:
            end += len(line.encode())
            yield line

    for fields in csv.reader(counted(), delimiter=separator):
        if fields:
            yield _Record(fields, start, end)
        start = end
