"""Delimited files read block by block: the same rows and messages whatever the size of a block."""

import csv
import os
import sys
from io import StringIO

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.formats import DataType, DelimitedFormat
from airflow_aml_data.core.tabular import blocks
from airflow_aml_data.core.tabular.base import Misfit, TableFile
from airflow_aml_data.core.tabular.delimited import DelimitedReader
from airflow_aml_data.core.tabular.records import OpenQuote, record_ends, whole_records
from airflow_aml_data.core.tabular.workers import in_order
from airflow_aml_data.errors import DataChanged, DataNotReadable, StorageError
from tests.core.delimited_files import files_of, read_files

any_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
quiet = pytest.mark.filterwarnings("ignore:.*a quote is open:UserWarning")
sizes = st.integers(1, 9)


@pytest.fixture
def read(tmp_path):
    return lambda *texts, **options: read_files(files_of(tmp_path, texts), **options)


def records_of(text, *, multi_line):
    """The records of a text by Python's csv module, padded with None; '' is None."""
    if multi_line:
        records = list(csv.reader(StringIO(text, newline="")))
    else:
        lines = [line.rstrip("\r\n") for line in StringIO(text, newline="")]
        records = [next(csv.reader([line])) for line in lines if line]
    records = [record for record in records if record]
    width = max(map(len, records), default=0)
    return [[field or None for field in record] + [None] * (width - len(record)) for record in records]


texts = st.text(st.sampled_from('ab,"\n\ré1'), max_size=40)


@quiet
@given(texts, sizes, st.booleans())
@example('a"b\n"c\n",d\n', 2, True)
@example('"a"\r\n"b"\r\n', 5, True)
@example('"a""\n""b"\n', 4, True)
@any_folder
def test_records_are_those_of_the_csv_module_whatever_the_block_size(read, text, size, multi_line):
    options = {"header": False, "infer_column_types": False, "support_multi_line": multi_line, "block_bytes": size}
    if multi_line and is_open(text):
        with pytest.raises(DataNotReadable, match="never closed"):
            read(text, **options)
        return

    table = read(text, **options)

    assert [list(row.values()) for row in table.to_pylist()] == records_of(text, multi_line=multi_line)


def is_open(text):
    """Whether the csv module is within quotes at the end of a text: then what follows belongs to its last field."""
    return list(csv.reader(StringIO(text + "\n!", newline="")))[-1] != ["!"]


@given(texts, st.booleans(), st.sampled_from([b",", b"a", "é".encode()]))
@example('"\n","\r","\n"', False, b",")
@settings(deadline=None, max_examples=200)
def test_where_whole_records_end_is_where_the_last_of_all_ends(text, last, separator):
    try:
        ends = record_ends(text.encode(), separator, last=last)
    except OpenQuote as error:
        with pytest.raises(OpenQuote) as found:
            whole_records(text.encode(), separator, last=last)
        assert found.value.start == error.start
    else:
        assert whole_records(text.encode(), separator, last=last) == max(ends, default=0)


@pytest.mark.parametrize("encoding", ["utf8", "utf16", "utf32", "latin1", "windows1252"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_characters_are_whole_whatever_the_block_size(read, encoding, size):
    codec = {"utf8": "utf-8-sig", "utf16": "utf-16", "utf32": "utf-32", "latin1": "latin1", "windows1252": "cp1252"}
    text = "name,é\nüü,1\n\nß,22\n"

    table = read(text.encode(codec[encoding]), encoding=encoding, block_bytes=size)

    assert table.to_pylist() == [{"name": "üü", "é": 1}, {"name": "ß", "é": 22}]


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"a\r\n1\r\n\r\n2\0\r\n", {}, "f0, line 4: a NUL character"),
        (b"a\n1\n\n\xc3\xa9\xe9\n", {}, "f0, line 4: the bytes"),
        (b"a\rb\r\xe9", {"encoding": "ascii"}, "f0, line 3: the bytes"),
        ("\ufeffa\n1\n".encode("utf-16-be")[:7], {"encoding": "utf16"}, "f0, line 2: the bytes"),
        (b'a\n"1\n",2\n3\n"x\n4\n', {"support_multi_line": True}, "f0, line 5: a quote of this record is never closed"),
        (b'a\nb"\n"1\n",2\n3\n"x\n4\n', {"support_multi_line": True}, "f0, line 6: a quote of this record"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line_whatever_the_block_size(read, data, options, message, size):
    with pytest.raises(DataNotReadable, match=message):
        read(data, block_bytes=size, **options)


@pytest.mark.parametrize("size", [8, 1000])
def test_a_value_that_is_not_of_its_type_is_named_with_its_line_whatever_the_block_size(read, size):
    text = 'a,b\r\n1,"x\n\ny"\r\n\r\n2,z\n3x,z\n'

    with pytest.raises(DataNotReadable, match=r"^f0, line 7: '3x' in column 'a' is no int64"):
        read(
            text,
            set_column_types={"a": DataType.to_long()},
            support_multi_line=True,
            on_error="fail",
            block_bytes=size,
        )


@pytest.mark.parametrize("size", [8, 1000])
def test_a_quote_that_ends_with_its_line_is_no_secret(read, size):
    """Section 5: without support_multi_line a quoted newline splits the record."""
    with pytest.warns(UserWarning, match=r"^f0, line 4: a quote is open.*support_multi_line=True") as warned:
        table = read('a,b\n1,2\n\n3,"x\ny"\n4,"z\n', block_bytes=size)

    assert len(warned) == 1
    assert table.column("a").to_pylist() == ["1", "3", 'y"', "4"]


@pytest.mark.parametrize("encoding", ["utf16", "utf32"])
def test_wide_characters_need_no_byte_order_mark(read, encoding):
    codec = f"utf-{encoding[3:]}-{'le' if sys.byteorder == 'little' else 'be'}"

    assert read("a\n1\n".encode(codec), encoding=encoding).to_pylist() == [{"a": 1}]


def test_a_record_too_long_to_be_one_is_named(read, monkeypatch):
    monkeypatch.setattr(blocks, "LONGEST_RECORD", 100)

    with pytest.raises(DataNotReadable, match=r"^f0, line 2: a record of over 0 MB. Is one of its quotes never closed"):
        read('a\n"' + "x\n" * 200, support_multi_line=True, block_bytes=16)


def test_ten_thousand_columns(read):
    names, values = (",".join(f"{kind}{i}" for i in range(10_000)) for kind in ("c", "v"))

    table = read(f"{names}\n{values}\n", infer_column_types=False)

    assert table.shape == (1, 10_000)
    assert table.column("c9999").to_pylist() == ["v9999"]


@quiet
@given(st.randoms(use_true_random=False), sizes)
@any_folder
def test_ragged_and_mixed_lines_are_the_same_whatever_the_block_size(read, random, size):
    ends = ["\n", "\r\n", "\r", "\n\n"]
    text = "".join(
        ",".join(random.choice(["1", "x", '"y,z"', ""]) for _ in range(random.randint(1, 4))) + random.choice(ends)
        for _ in range(random.randint(0, 8))
    )

    assert read(text, block_bytes=size * 4).equals(read(text))


def test_memory_stays_flat(tmp_path):
    """A file of 60 blocks: no more than a few are in memory."""
    path = tmp_path / "f"
    line = b"1234567,some text,1.5\n"
    path.write_bytes(b"a,b,c\n" + line * (60 * 65536 // len(line)))
    reader = DelimitedReader([TableFile("f", path)], DelimitedFormat(), block_bytes=65536)
    schema = reader.trial_schema
    before = pa.total_allocated_bytes()

    most = max(pa.total_allocated_bytes() - before for _ in reader.batches(0, schema))

    assert most < 20 * 65536


# --- files that change ---


@pytest.mark.parametrize("change", ["append", "touch"])
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path, change):
    files = files_of(tmp_path, ["a\n" + "1\n" * 100])
    reader = DelimitedReader(files, DelimitedFormat(), block_bytes=16)
    batches = reader.batches(0, reader.trial_schema)
    next(batches)
    if change == "append":
        with files[0].path.open("a") as stream:
            stream.write("2\n")
    else:
        os.utime(files[0].path, (1, 1))

    with pytest.raises(DataChanged, match=r"^f0 changed while it was read"):
        list(batches)


def test_a_file_that_changes_between_two_looks_is_named(tmp_path):
    files = files_of(tmp_path, ["a\n1\n"])
    reader = DelimitedReader(files, DelimitedFormat())
    schema = reader.schema
    files[0].path.write_text("a\nx\n")

    with pytest.raises(DataChanged, match=r"^f0 changed"):
        list(reader.batches(0, schema))


# --- work on threads ---


@given(st.lists(st.integers(), max_size=20))
@settings(deadline=None, max_examples=20)
def test_results_are_in_order(items):
    assert list(in_order(lambda item: item + 1, items)) == [item + 1 for item in items]


def test_an_error_comes_after_the_results_before_it():
    def items():
        yield from range(5)
        raise StorageError("gone")

    results = in_order(str, items())

    assert [next(results) for _ in range(5)] == list("01234")
    with pytest.raises(StorageError, match="gone"):
        next(results)


def test_a_misfit_is_the_first_ones():
    def refuse(item):
        if item >= 3:
            raise Misfit(str(item))
        return item

    results = in_order(refuse, range(10))

    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Misfit, match=r"^3$"):
        next(results)
