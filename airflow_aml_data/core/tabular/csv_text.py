"""Rows as delimited text, so that reading it gives the same values and types again."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from airflow_aml_data.errors import InvalidDeclaration

_TEXT = pa.large_string()


def header_text(names: Sequence[str], separator: str) -> bytes:
    """Return the line of the column names; nothing where there are no columns."""
    return rows_text(pa.record_batch([[name] for name in names], [str(i) for i in range(len(names))]), separator)


def rows_text(batch: pa.RecordBatch, separator: str) -> bytes:
    """Return one line of UTF-8 for each row: values that need no quotes without, nulls as nothing.

    :raises InvalidDeclaration: for a column that cannot be one value of text, such as a list.
    """
    if not batch.num_columns or not batch.num_rows:
        return b""
    special = "[" + re.escape(separator) + r'"\r\n]'
    columns = [
        _quoted(_text(name, column), special) for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    if len(columns) == 1:  # an empty line would be no row
        columns = [pc.if_else(pc.equal(pc.fill_null(columns[0], ""), ""), '""', columns[0])]
    join = {"null_handling": "replace", "null_replacement": ""}
    lines = pc.binary_join_element_wise(*columns, pa.scalar(separator, _TEXT), **join)
    ended = pc.binary_join_element_wise(lines, pa.scalar("", _TEXT), pa.scalar("\n", _TEXT))
    text: bytes = ended.buffers()[2].to_pybytes()
    return text


def _text(name: str, column: pa.Array) -> pa.LargeStringArray:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        text = pc.cast(column, _TEXT)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidDeclaration(
            f"Column {name!r} is {column.type}, which a text file cannot hold. Leave it out with drop_columns, or use to_parquet_files."
        ) from error
    if pa.types.is_floating(column.type):
        text = pc.replace_substring_regex(text, r"^(-?\d+)$", r"\1.0")  # it would come back as an integer
        text = pc.if_else(pc.is_nan(column), pa.scalar(None, _TEXT), text)
    return text


def _quoted(text: pa.LargeStringArray, special: str) -> pa.LargeStringArray:
    needs = pc.fill_null(pc.match_substring_regex(text, special), False)
    if not pc.any(needs).as_py():
        return text
    doubled = pc.replace_substring(text, '"', '""')
    quote = pa.scalar('"', _TEXT)
    return pc.if_else(needs, pc.binary_join_element_wise(quote, doubled, quote, pa.scalar("", _TEXT)), text)
