"""Parts of delimited files cut as bytes: along records, byte for byte, and what the reader would have kept."""

from __future__ import annotations

import csv
from io import StringIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.formats import CsvFiles, DelimitedFormat, PromoteHeadersBehavior
from airflow_aml_data.core.operations import DropColumns, Skip, Take
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.core.tabular import TableFile, cut, read_table, write_files, write_parts
from airflow_aml_data.errors import DataChanged, DataNotReadable, InvalidDeclaration
from tests.core.delimited_files import files_of

per_example_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
EVERY = Selection(probability=1.0, seed=1)
HALF = Selection(probability=0.5, seed=2)


@pytest.fixture
def cut_texts(tmp_path):
    """Cut texts (or bytes) as the files of a dataset: ``f0``, ``f1``...; give the bytes of the parts."""

    def cut_texts(*texts, operations=(EVERY,), target=None, **options):
        files = files_of(tmp_path, texts)
        layout = DelimitedFormat(**options)
        parts = write_files(files, layout, operations, tmp_path, target or CsvFiles(separator=layout.separator))
        return [part.read_bytes() for part in parts]

    return cut_texts


def test_rows_stay_as_they_are(cut_texts):
    text = b'a,b\r\n"1",\xc3\xa9\r\n 2 ,"x\r\n""y"""\n3,4,5\r6\n'

    assert cut_texts(text) == [text]


def test_an_end_of_file_without_line_end_stays(cut_texts):
    assert cut_texts("a,b\n1,2\n3,4", operations=[Skip(1)]) == [b"a,b\n3,4"]
    assert cut_texts("a,b", "a,b\n1,2") == [b"a,b\n", b"a,b\n1,2"]


def test_blank_lines_are_no_rows_and_left_out(cut_texts):
    assert cut_texts("\n\na\r\n\r\n1\n\n2\n\n", operations=[Take(1)]) == [b"a\r\n1\n"]


def test_each_part_begins_with_the_first_header(cut_texts):
    """Section 5, ALL_FILES_HAVE_SAME_HEADERS: the names of later files do not count."""
    assert cut_texts("", "a,b\n1,2\n", "x,y\n3,4\n") == [b"a,b\n", b"a,b\n1,2\n", b"a,b\n3,4\n"]


def test_a_header_of_the_first_file_is_given_to_the_others(cut_texts):
    only_first = PromoteHeadersBehavior.ONLY_FIRST_FILE_HAS_HEADERS

    assert cut_texts("a,b\n1,2\n", "3,4\n", header=only_first) == [b"a,b\n1,2\n", b"a,b\n3,4\n"]


def test_columns_without_a_header_get_the_names_they_are_read_with(cut_texts):
    assert cut_texts("1;2;3\r\n", header=False, separator=";") == [b"Column1;Column2;Column3\r\n1;2;3\r\n"]


def test_parts_of_files_with_different_headers_have_the_columns_of_all(cut_texts):
    combine = PromoteHeadersBehavior.COMBINE_ALL_FILES_HEADERS

    assert cut_texts("a,b\n01,2\n", "c,a\n3,4\n", header=combine) == [b"a,b,c\n01,2,\n", b"a,b,c\n4,,3\n"]


@pytest.mark.parametrize(
    ("encoding", "codec", "mark"),
    [
        ("utf8", "utf-8", b""),
        ("utf8", "utf-8", b"\xef\xbb\xbf"),
        ("utf16", "utf-16-le", b"\xff\xfe"),
        ("utf16", "utf-16-be", b"\xfe\xff"),
        ("utf32", "utf-32-le", b"\xff\xfe\0\0"),
        ("latin1", "latin-1", b""),
        ("windows1252", "cp1252", b""),
    ],
)
def test_encodings_stay(cut_texts, encoding, codec, mark):
    text = 'é,b\n1,"ü\n"\n2,x\n'

    parts = cut_texts(mark + text.encode(codec), encoding=encoding, operations=[Take(1)])

    assert parts == [mark + 'é,b\n1,"ü\n"\n'.encode(codec)]


nasty = st.text('ab,"\n\ré', max_size=40)


def is_closed(text):
    return next(reversed(list(csv.reader(StringIO(text + "\nend", newline=""))))) == ["end"]


@given(st.lists(nasty.filter(is_closed), min_size=1, max_size=3), st.booleans(), st.integers(1, 9))
@per_example_folder
def test_a_cut_part_holds_the_rows_that_are_read(tmp_path, monkeypatch, texts, header, block_bytes):
    monkeypatch.setattr(cut, "_BLOCK_BYTES", block_bytes)
    files = files_of(tmp_path, texts)
    operations = [HALF, Skip(1), Selection(probability=0.9, seed=2), Take(7)]
    layout = DelimitedFormat(header=header, support_multi_line=True, infer_column_types=False)

    parts = write_files(files, layout, operations, tmp_path, CsvFiles())

    read = read_table(files, layout, operations)
    again = read_table(
        [TableFile(part.name, part) for part in parts],
        DelimitedFormat(support_multi_line=True, infer_column_types=False),
    )
    width = max((len(row) for row in map(trimmed, rows(read))), default=0)
    assert [trimmed(row) for row in rows(again)] == [trimmed(row) for row in rows(read)]
    assert again.num_rows == 0 or again.column_names[:width] == read.column_names[:width]


def rows(table):
    return [list(row.values()) for row in table.to_pylist()]


def trimmed(row):
    """A row without the nulls at its end: a wider row of another part may not be there."""
    while row and row[-1] is None:
        row = row[:-1]
    return row


SPLIT = [Selection(probability=0.8, seed=3, complement=each) for each in (False, True)]
chains = st.lists(
    st.sampled_from([[], [HALF], [HALF, SPLIT[0]], [HALF, SPLIT[1]], [Skip(1), SPLIT[1]], [Take(2)], [Take(0)]]),
    min_size=1,
    max_size=4,
)


@given(st.lists(nasty.filter(is_closed), min_size=1, max_size=3), chains, st.sampled_from(["utf8", "utf16", "latin1"]))
@per_example_folder
def test_parts_cut_in_one_pass_are_those_cut_one_by_one(tmp_path, monkeypatch, texts, chains, encoding):
    monkeypatch.setattr(cut, "_BLOCK_BYTES", 5)
    files = files_of(tmp_path, (each.encode({"utf16": "utf-16"}.get(encoding, encoding)) for each in texts))
    layout = DelimitedFormat(encoding=encoding)
    folders = [tmp_path / str(number) for number in range(len(chains))]
    for each in folders:
        each.mkdir(exist_ok=True)

    together = write_parts(files, layout, list(zip(chains, folders, strict=True)), CsvFiles())

    found = [[part.read_bytes() for part in parts] for parts in together]
    for operations, parts in zip(chains, found, strict=True):
        alone = write_files(files, layout, operations, tmp_path, CsvFiles())
        assert parts == [part.read_bytes() for part in alone]


@given(st.lists(st.sampled_from(["a,b", 'a"', '"a\n\nb",', '"""",é', ","]), max_size=9), st.integers(0, 5))
@per_example_folder
def test_both_parts_together_hold_every_record(tmp_path, records, seed):
    files = files_of(tmp_path, ["\n".join(["h", *records, ""])])
    halves = [Selection(probability=0.5, seed=seed, complement=each) for each in (False, True)]

    cut_rows = [
        write_files(files, DelimitedFormat(), [half], tmp_path, CsvFiles())[0].read_text().removeprefix("h\n")
        for half in halves
    ]

    assert sorted("".join(cut_rows)) == sorted("".join(each + "\n" for each in records))
    kept = [each for each, keep in zip(records, halves[0].mask(len(records), stream=0), strict=True) if keep]
    assert cut_rows[0] == "".join(each + "\n" for each in kept)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b'a,b\n1,"x\n2,y\n', r"^f1, line 2: a quote of this record is never closed"),
        (b"a\n1\n\0\n", r"^f1, line 3: a NUL character"),
        (b"a\n\xe9\n", r"^f1, line 2: the bytes b'\\xe9' are not utf8 text"),
    ],
)
def test_what_cannot_be_cut_is_named_with_its_line(cut_texts, text, named):
    with pytest.raises(DataNotReadable, match=named):
        cut_texts("a\n1\n", text)


def test_a_separator_that_the_encoding_has_not_is_refused(cut_texts):
    with pytest.raises(InvalidDeclaration, match="encoding of the files, iso8859-1"):
        cut_texts("a,b\n1,2\n", encoding="latin1", target=CsvFiles(separator="→"))


def test_a_record_may_be_longer_than_any_block(cut_texts):
    long = "x" * (5 * 1024 * 1024)
    text = f'a,b\n1,"{long}\n{long}"\n2,y\n'

    assert cut_texts(text) == [text.encode()]


def test_a_file_that_is_written_to_while_it_is_cut_is_named(tmp_path, monkeypatch):
    [file] = files_of(tmp_path, ["a\n" + "1\n" * 10_000])
    real = cut.record_ends

    def write_and_find(*arguments, **options):
        with file.path.open("ab") as stream:
            stream.write(b"2\n")
        return real(*arguments, **options)

    monkeypatch.setattr(cut, "_BLOCK_BYTES", 1024)
    monkeypatch.setattr(cut, "record_ends", write_and_find)

    with pytest.raises(DataChanged, match=r"^f0 changed while it was read"):
        write_files([file], DelimitedFormat(), [Skip(1)], tmp_path, CsvFiles())


@pytest.mark.slow
def test_a_line_of_100_megabytes_is_a_row_like_others(cut_texts):
    """The issue's list of bad input."""
    long = b"x" * (100 * 1024 * 1024)

    assert cut_texts(b"a,b\n1," + long + b"\n2,y\n", operations=[Skip(1)]) == [b"a,b\n2,y\n"]
    assert cut_texts(b'a,b\n1,"' + long + b'\n"\n2,y\n', operations=[Take(1)]) == [b'a,b\n1,"' + long + b'\n"\n']


@pytest.mark.slow
def test_rows_may_have_ten_thousand_columns(cut_texts):
    header = ",".join(f"c{number}" for number in range(10_000))
    rows = "".join(",".join(map(str, range(start, start + 10_000))) + "\n" for start in range(3))

    [part] = cut_texts(f"{header}\n{rows}", operations=[Skip(1)])
    assert part.decode().splitlines() == [header, *rows.splitlines()[1:]]
    [part] = cut_texts(f"{header}\n{rows}", operations=[Skip(1), DropColumns(("c0",))])
    assert [line.split(",", 1)[1] for line in [header, *rows.splitlines()[1:]]] == part.decode().splitlines()
