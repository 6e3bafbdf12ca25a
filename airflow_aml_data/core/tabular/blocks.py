"""A text file as blocks of whole records in UTF-8, whatever its encoding, in memory that does not grow with it."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from airflow_aml_data.core.formats import CODECS, DelimitedFormat
from airflow_aml_data.core.tabular.base import TableFile
from airflow_aml_data.core.tabular.passes import unchanged
from airflow_aml_data.core.tabular.records import OpenQuote, whole_records
from airflow_aml_data.errors import DataNotReadable

BLOCK_BYTES = 2 * 1024 * 1024
LONGEST_RECORD = 256 * 1024 * 1024
_LF = ord("\n")
_NATIVE = f"{sys.byteorder[0]}e"
_MARKS = {
    "utf-8-sig": {codecs.BOM_UTF8: "utf-8", b"": "utf-8"},
    "utf-16": {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be", b"": f"utf-16-{_NATIVE}"},
    "utf-32": {codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be", b"": f"utf-32-{_NATIVE}"},
}
"""Byte order mark of a file to the codec of what follows it, where an encoding has one."""


class Block(NamedTuple):
    """Whole records, as UTF-8 without a NUL or a byte order mark.

    :param line: The number of its first line in the file.
    """

    text: bytes | bytearray
    line: int


def read_blocks(file: TableFile, layout: DelimitedFormat, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the records of a file in order.

    :param block_bytes: The size of a block, unless one record is longer.
    :raises DataNotReadable: bytes of another encoding, a NUL character, a quote that is never closed, or a record of
        over 256 MB, naming file and line.
    :raises DataChanged: the file was written to meanwhile.
    """
    with unchanged(file), file.path.open("rb", buffering=0) as stream:
        mark, codec = mark_and_codec(file, layout.encoding)
        left = os.fstat(stream.fileno()).st_size - stream.seek(len(mark))
        decoder = _Decoder(file.name, layout.encoding, codec)
        rest, line, last = b"", 1, False
        while not last:
            text = bytearray(len(rest) + max(block_bytes, len(rest)))  # a long record is looked through few times
            text[: len(rest)] = rest
            with memoryview(text) as whole_buffer, whole_buffer[len(rest) :] as behind:
                size = stream.readinto(behind)
            del text[len(rest) + size :]
            last = not size
            left -= size
            if left < 0:
                return  # somebody appends to it, perhaps faster than it is read
            text = decoder.decode(text, len(rest), line)
            whole = _whole_records(file.name, text, line, layout, last)
            if len(text) - whole > LONGEST_RECORD:
                raise DataNotReadable(
                    f"{file.name}, line {line + count_line_ends(text[:whole])}: a record of over "
                    f"{LONGEST_RECORD >> 20} MB. Is one of its quotes never closed?"
                )
            rest = bytes(memoryview(text)[whole:])
            if whole:
                del text[whole:]
                block = Block(text, line)
                line += count_line_ends(text)
                yield block


def mark_and_codec(file: TableFile, encoding: str) -> tuple[bytes, str]:
    """Return the byte order mark that a file begins with, and the codec of what follows it."""
    codec = CODECS[encoding]
    marks = _MARKS.get(codec, {b"": codec})
    with file.path.open("rb") as stream:
        start = stream.read(4)
    mark = next(each for each in marks if start.startswith(each))
    return mark, marks[mark]


class _Decoder:
    """Turn a file of any encoding into UTF-8, chunk by chunk."""

    def __init__(self, name: str, encoding: str, codec: str) -> None:
        self._name, self._encoding = name, encoding
        self._decoder = codecs.getincrementaldecoder(codec)()
        self._ascii_stays = not codec.startswith(("utf-16", "utf-32"))

    def decode(self, text: bytearray, start: int, line: int) -> bytearray:
        """Return the text with what begins at ``start`` decoded; every character is known to be valid.

        :param text: Decoded up to ``start``, and the next bytes of the file from there on; none at its end.
        :param line: The line that the text begins with.
        """
        state = self._decoder.getstate()
        if not (self._ascii_stays and not state[0] and text.isascii()):
            chunk = bytes(memoryview(text)[start:])
            del text[start:]
            try:
                text += self._decoder.decode(chunk, not chunk).encode()
            except UnicodeDecodeError as error:
                before = chunk[: max(0, len(chunk) - len(error.object) + error.start)]
                self._decoder.setstate(state)
                raise self._unreadable(
                    text + self._decoder.decode(before).encode(),
                    line,
                    f"the bytes {error.object[error.start : error.end]!r} are not {self._encoding} text. "
                    f"Declare the encoding the file has: {', '.join(CODECS)}.",
                ) from error
        if (position := text.find(b"\0", start)) >= 0:
            what = f"a NUL character. The file is binary, or its encoding is not {self._encoding}."
            raise self._unreadable(text[:position], line, what)
        return text

    def _unreadable(self, before: bytearray, line: int, what: str) -> DataNotReadable:
        return DataNotReadable(f"{self._name}, line {line + count_line_ends(before)}: {what}")


def count_line_ends(text: bytes | bytearray) -> int:
    """Return how many lines end in a text."""
    feeds = int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == _LF))  # bytes.count is four times slower
    return feeds if b"\r" not in text else feeds + text.count(b"\r") - text.count(b"\r\n")


def _whole_records(name: str, text: bytearray, line: int, layout: DelimitedFormat, last: bool) -> int:
    """Return how many bytes of the text are whole records."""
    if not layout.support_multi_line or b'"' not in text:
        if last:
            return len(text)
        return max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1  # a last \r may be half a line end
    try:
        return whole_records(text, layout.separator.encode(), last=last)
    except OpenQuote as error:
        start = line + count_line_ends(text[: error.start])
        raise DataNotReadable(f"{name}, line {start}: a quote of this record is never closed.") from error
