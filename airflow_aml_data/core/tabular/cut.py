"""Rows of delimited files chosen by position, copied byte for byte: line ends, quotes and encodings stay as they are.

A record is never cut within a quoted value, whatever ``support_multi_line`` says. Blank lines are no records and are left
out. Values are not looked at, so types do not matter.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from airflow_aml_data.core.formats import DelimitedFormat
from airflow_aml_data.core.tabular.base import TableFile
from airflow_aml_data.core.tabular.blocks import mark_and_codec, read_blocks
from airflow_aml_data.core.tabular.passes import read_ahead
from airflow_aml_data.core.tabular.records import record_ends
from airflow_aml_data.core.tabular.rows import Positional, Positions, as_arrow
from airflow_aml_data.errors import InvalidDeclaration

_BLOCK_BYTES = 2 * 1024 * 1024  # in smaller ones the threads wait for each other more than they work


def cut_files(
    files: Sequence[TableFile],
    layout: DelimitedFormat,
    chains: Sequence[Sequence[Positional]],
    parts: Sequence[Sequence[Path]],
) -> None:
    """Write what each chain of operations keeps of each file to the part of the same places; files are read once.

    Every part begins with the first header of the files, and with ``Column1``, ``Column2``... where they have none: it is
    read with a header whichever way the files are.

    :param parts: For each chain, as many as there are files.
    :raises DataNotReadable: bytes of another encoding, a NUL character or a quote that is never closed, naming file and
        line.
    :raises DataChanged: a file was written to while it was cut.
    """
    layout = replace(layout, support_multi_line=True)
    header = first_header(files, layout)
    positions = Positions(*chains)
    for ordinal, (file, *of_file) in enumerate(zip(files, *parts, strict=True)):
        positions.start_file(ordinal)
        mark, codec = mark_and_codec(file, layout.encoding)
        names_next = layout.has_header(ordinal)
        with ExitStack() as opened:
            targets = [opened.enter_context(part.open("wb")) for part in of_file]
            for target in targets:
                target.write(mark + header.encode(codec))
            if all(positions.finished):
                continue
            for records in read_ahead(_records(file, layout)):
                if names_next and records.are_rows.any():
                    records.are_rows[np.argmax(records.are_rows)] = names_next = False
                for target, kept in zip(targets, positions.masks(records.rows), strict=True):
                    target.write(in_codec(records.kept(kept), codec))
                if all(positions.finished):
                    break


def in_codec(text: bytes | memoryview, codec: str) -> bytes | memoryview:
    """Return UTF-8 text in another encoding.

    :raises InvalidDeclaration: it has characters that the encoding has not.
    """
    try:
        return text if codec == "utf-8" else str(text, "utf-8").encode(codec)
    except UnicodeEncodeError as error:
        found = error.object[error.start : error.end]
        raise InvalidDeclaration(
            f"{found!r} cannot be written in the encoding of the files, {codec}. Choose another separator or column name."
        ) from error


def first_header(files: Sequence[TableFile], layout: DelimitedFormat) -> str:
    """Return the line that every part of delimited files begins with; empty when no file has a record."""
    for file in files:
        for records in _records(file, layout):
            if (record := records.first_row()) is None:
                continue
            content = record.rstrip("\r\n")
            if not layout.header:
                fields = next(csv.reader(StringIO(content, newline=""), delimiter=layout.separator))
                content = layout.separator.join(f"Column{place}" for place in range(1, len(fields) + 1))
            return content + (record[len(record.rstrip("\r\n")) :] or "\n")
    return ""


def _records(file: TableFile, layout: DelimitedFormat) -> Iterator[_Records]:
    """Yield the records of a file by blocks."""
    for block in read_blocks(file, layout, _BLOCK_BYTES):
        yield _Records(block.text, layout.separator)


class _Records:
    """The records of a text, and which of them are rows: not blank lines, and not a header."""

    def __init__(self, text: bytes | bytearray, separator: str) -> None:
        self._text = text
        self._offsets = np.concatenate([[0], record_ends(text, separator.encode(), last=True)])
        first = np.frombuffer(text, dtype=np.uint8)[self._offsets[:-1]]
        self.are_rows: NDArray[np.bool_] = (first != ord("\n")) & (first != ord("\r"))

    def first_row(self) -> str | None:
        if not self.are_rows.any():
            return None
        place = int(np.argmax(self.are_rows))
        return str(self._text[self._offsets[place] : self._offsets[place + 1]], "utf-8")

    @property
    def rows(self) -> int:
        return int(np.count_nonzero(self.are_rows))

    def kept(self, rows: NDArray[np.bool_]) -> memoryview:
        """Return the text of some of the rows.

        :param rows: True for each row to keep.
        """
        keep = rows
        if len(rows) < len(self.are_rows):
            keep = self.are_rows.copy()
            keep[keep] = rows
        records = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(keep), [None, pa.py_buffer(self._offsets), pa.py_buffer(self._text)]
        ).filter(as_arrow(keep))
        _, ends, text = records.buffers()
        return memoryview(text)[: np.frombuffer(ends, dtype=np.int64)[len(records)]]
