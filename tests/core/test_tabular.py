"""Reading tables: semantics section 5 in its order, then section 15, then pandas."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from io import StringIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.formats import DelimitedFormat, ParquetFormat
from airflow_aml_data.core.operations import KeepColumns
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.core.tabular import parse, read_table, to_pandas
from airflow_aml_data.core.tabular.base import TableFile
from airflow_aml_data.core.tabular.blocks import Block
from airflow_aml_data.core.tabular.columns import ColumnEvidence
from airflow_aml_data.core.tabular.plan import column_names
from airflow_aml_data.errors import DataNotReadable, InvalidDeclaration

quiet = pytest.mark.filterwarnings("ignore:.*a quote is open:UserWarning")
per_example_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def operations(selections=(), columns=None):
    return [*selections, *([] if columns is None else [KeepColumns(tuple(columns))])]


@pytest.fixture
def read(tmp_path):
    """Read texts (or bytes) as the files of a dataset: ``f0``, ``f1``..."""

    def read(*texts, selections=(), columns=None, **options):
        files = []
        for number, text in enumerate(texts):
            path = tmp_path / f"{number}.csv"
            path.write_bytes(text.encode() if isinstance(text, str) else text)
            files.append(TableFile(f"f{number}", path))
        return read_table(files, DelimitedFormat(**options), operations(selections, columns))

    return read


def rows(table):
    return [list(row.values()) for row in table.to_pylist()]


def type_of(table, column="a"):
    return str(table.schema.field(column).type)


# --- types ---


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (["1", "-2", "0"], "int64", [1, -2, 0]),
        (["0", "1", "1"], "int64", [0, 1, 1]),  # v1: bool
        (["00123", "1"], "string", ["00123", "1"]),  # v1: 123
        (["+5", "1"], "string", ["+5", "1"]),
        (["0x1F"], "string", ["0x1F"]),
        (["1_000"], "string", ["1_000"]),
        ([" 1", "2"], "string", [" 1", "2"]),
        (["9223372036854775807", "-9223372036854775808"], "int64", [2**63 - 1, -(2**63)]),
        (["9223372036854775808", "1"], "string", ["9223372036854775808", "1"]),
        (["1", "2.5", "-1e-3"], "double", [1.0, 2.5, -0.001]),
        ([".5", "5.", "1E+2"], "double", [0.5, 5.0, 100.0]),
        (["007.5", "1.5"], "string", ["007.5", "1.5"]),
        (["1.5", "9007199254740992"], "double", [1.5, 2.0**53]),
        (["1.5", "9007199254740993"], "string", ["1.5", "9007199254740993"]),
        (["0.1234567890123456789", "1.5"], "string", ["0.1234567890123456789", "1.5"]),
        (["1.000000000000000056e-01"], "double", [0.1]),  # what numpy.savetxt writes for 0.1
        (["5.684341886080802e-14"], "double", [2.0**-44]),
        (["1e400"], "string", ["1e400"]),
        (["1e-400", "1.5"], "string", ["1e-400", "1.5"]),
        (["0.0000000000000000000", "-0"], "double", [0.0, 0.0]),
        (["1.5", "NaN"], "string", ["1.5", "NaN"]),
        (["1", "NA", "null"], "string", ["1", "NA", "null"]),
        (["inf", "1.5"], "string", ["inf", "1.5"]),
        (["true", "False", "TRUE"], "bool", [True, False, True]),
        (["true", "1"], "string", ["true", "1"]),
        (["yes", "no"], "string", ["yes", "no"]),
        (["2020-01-31", "1999-12-01"], "timestamp[ns]", [datetime(2020, 1, 31), datetime(1999, 12, 1)]),
        (["2020-01-31T10:20", "2020-01-31 10:20:30.25"], "timestamp[ns]", None),
        (["2020-01-31T10:20:30.123456789"], "timestamp[ns]", None),
        (["9999-12-31", "0001-01-01"], "timestamp[us]", [datetime(9999, 12, 31), datetime(1, 1, 1)]),
        (["2261-12-31", "1678-01-01"], "timestamp[ns]", [datetime(2261, 12, 31), datetime(1678, 1, 1)]),
        (["2262-01-01", "2020-01-01"], "timestamp[us]", [datetime(2262, 1, 1), datetime(2020, 1, 1)]),
        (["9999-12-31T00:00:00.123456789"], "string", ["9999-12-31T00:00:00.123456789"]),
        (["2020-01-31T10:20:30Z", "2020-01-31 10:20:30+00:00"], "timestamp[ns, tz=UTC]", None),
        (["2020-01-31T10:20:30+02:00"], "string", ["2020-01-31T10:20:30+02:00"]),
        (["2020-01-31", "2020-01-31T10:20:30Z"], "string", ["2020-01-31", "2020-01-31T10:20:30Z"]),
        (["01/02/2020"], "string", ["01/02/2020"]),  # v1: month-day, with a warning
        (["2021-02-29", "2020-02-29"], "string", ["2021-02-29", "2020-02-29"]),
        (["0000-01-01"], "string", ["0000-01-01"]),
        (["20200101"], "int64", [20200101]),
    ],
)
def test_a_type_loses_nothing_of_any_value(read, values, type_, expected):
    table = read("a\n" + "\n".join(values))

    assert type_of(table) == type_
    assert expected is None or table.column("a").to_pylist() == expected


def test_a_late_value_decides_the_type_of_the_whole_column(read):
    """Section 15: v1 looks at 200 rows and makes a later value null."""
    table = read("a\n" + "1\n" * 50_000, "a\n" + "1\n" * 50_000 + "1.5x\n")

    assert type_of(table) == "string"
    assert table.column("a")[-1].as_py() == "1.5x"


def test_without_inference_all_columns_are_text(read):
    table = read("a,b,c\n1,true,2020-01-01\n", infer_column_types=False)

    assert rows(table) == [["1", "true", "2020-01-01"]]


@pytest.mark.parametrize("text", ["NA", "NaN", "null", "None", "n/a"])
def test_words_for_nothing_stay_text(read, text):
    assert rows(read(f"a,b\n{text},x\n")) == [[text, "x"]]


def test_g64_an_empty_field_is_null(read):
    """Section 5."""
    assert rows(read('a,b,c\n1,,true\n,x,\n"","",""\n')) == [[1, None, True], [None, "x", None], [None] * 3]


def test_g64_an_empty_field_of_a_text_column_is_empty_text_on_demand(read):
    """Text only, and what a short record lacks stays null."""
    table = read("a,b,c\n1,,\n,x,\n2\n", empty_as_string=True)

    assert rows(table) == [[1, "", ""], [None, "x", ""], [2, None, None]]


def test_a_column_of_nulls_is_text(read):
    table = read("a,b\n,1\n,2\n")

    assert type_of(table) == "string"
    assert table.column("a").to_pylist() == [None, None]


# --- headers and records ---


def test_g62_without_header_columns_are_numbered(read):
    table = read("1,x\n", "2,y\n", header=False)

    assert table.to_pylist() == [{"Column1": 1, "Column2": "x"}, {"Column1": 2, "Column2": "y"}]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (["a", "a", "a"], ["a", "a_1", "a_2"]),
        (["a", "", "  "], ["a", "Column2", "Column3"]),
        ([" a ", "\tb"], ["a", "b"]),
        (["a", "a", "a_1"], ["a", "a_2", "a_1"]),
        (["Column2", ""], ["Column2", "Column2_1"]),
        ([], ["Column1", "Column2", "Column3"]),
        (["a"], ["a", "Column2", "Column3"]),
    ],
)
def test_names_are_trimmed_completed_and_made_different(header, names):
    assert column_names(header, len(names)) == names


@given(st.lists(st.sampled_from(["a", "a_1", "a_2", "", "Column2", "Column2_1", " a"]), max_size=9))
def test_names_are_always_different(header):
    names = column_names(header, len(header) + 1)

    assert len(set(names)) == len(header) + 1


def test_values_are_not_trimmed(read):
    assert rows(read(" a ,b\n x ,\ty\n")) == [[" x ", "\ty"]]


def test_short_records_end_in_nulls_and_long_ones_get_columns(read):
    table = read("a,b\n1\n2,3,4\n5,6\n", "a,b\n7,8,9,10\n")

    assert table.column_names == ["a", "b", "Column3", "Column4"]
    assert rows(table) == [[1, None, None, None], [2, 3, 4, None], [5, 6, None, None], [7, 8, 9, 10]]


def test_blank_lines_are_skipped(read):
    assert rows(read("\n\r\na,b\n\n1,2\n\n\n3,4\n\n")) == [[1, 2], [3, 4]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_any_line_end_will_do(read, end, last):
    assert rows(read(end.join(["a,b", "1,x", "2,y"]) + end * last)) == [[1, "x"], [2, "y"]]


@pytest.mark.parametrize("text", ["", "\n\n", "a,b\n", "a,b", b"\xef\xbb\xbf"])
def test_g63_a_file_without_records_has_no_rows(read, text):
    assert read(text).num_rows == 0


def test_a_file_without_records_among_others_changes_nothing(read):
    table = read("", "a,b\n", "a,b\n1,2\n", "x,y,z\n")

    assert table.to_pylist() == [{"a": 1, "b": 2}]


def test_no_files_are_an_empty_table():
    assert read_table([], DelimitedFormat()).shape == (0, 0)


# --- separators and quotes ---


@pytest.mark.parametrize("separator", [";", "\t", "|", " ", "§"])
def test_the_separator_is_one_character(read, separator):
    assert rows(read(f'a{separator}b\n1{separator}"x{separator}y"\n', separator=separator)) == [[1, f"x{separator}y"]]


@pytest.mark.parametrize("separator", ["", ",,", None, 1, b","])
def test_other_separators_are_refused_as_in_v1(separator):
    with pytest.raises(InvalidDeclaration) as refused:
        DelimitedFormat(separator=separator)

    assert str(refused.value) == "Only single character is supported for argument: separator"


@pytest.mark.parametrize("separator", ['"', "\n", "\r", "\0"])
def test_a_separator_that_means_something_else_is_refused(separator):
    with pytest.raises(InvalidDeclaration, match="another meaning"):
        DelimitedFormat(separator=separator)


def test_quotes_hold_separators_and_doubled_quotes(read):
    assert rows(read('a,b\n"x,1","say ""hi"""\ny"z,"w"v\n')) == [["x,1", 'say "hi"'], ['y"z', "wv"]]


QUOTED_LINE_END = 'a,b\n1,"x\r\n\ny"\n2,z\n'


def test_a_quoted_line_end_is_kept_on_demand(read):
    assert rows(read(QUOTED_LINE_END, support_multi_line=True)) == [[1, "x\r\n\ny"], [2, "z"]]


@quiet
def test_a_quoted_line_end_splits_the_record_otherwise(read):
    assert rows(read(QUOTED_LINE_END)) == [["1", "x"], ['y"', None], ["2", "z"]]


@pytest.mark.parametrize("tail", ['3,"x', '3,"x\n4,y\n', '"', '"\n', '3,"x""'])
def test_a_quote_that_is_never_closed_is_named_with_its_line(read, tail):
    with pytest.raises(DataNotReadable, match=r"^f1, line 4: a quote"):
        read("a,b\n1,2\n", 'a,b\n"1\n",2\n' + tail, support_multi_line=True)


@quiet
def test_a_quote_closes_with_its_line_without_multi_line(read):
    assert rows(read('a,b\n1,"x\n2,"y\n3,"z"\n')) == [[1, "x"], [2, "y"], [3, "z"]]


def test_values_may_be_longer_than_any_block_or_limit_of_a_parser(read):
    long = "x" * (5 * 1024 * 1024)

    assert rows(read(f"a,b\n1,{long}\n2,y\n")) == [[1, long], [2, "y"]]
    assert rows(read(f"{long}\n1,2\n", header=False)) == [[long, None], ["1", 2]]


fields = st.text(st.sampled_from('ab,"\n\ré '), max_size=6)
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(fields, min_size=width, max_size=width), min_size=1, max_size=8)
)


@given(st.text(st.sampled_from('ab,"\n\ré'), max_size=30), st.booleans(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_both_parsers_give_the_same_records(text, multi_line, empty_as_string):
    layout = DelimitedFormat(support_multi_line=multi_line, empty_as_string=empty_as_string)

    fast = parse._parse_rectangular(text.encode(), layout)

    if fast is not None:
        assert fast == parse._parse_each_record(Block(text.encode(), 1), layout).columns


@given(tables, st.booleans())
@per_example_folder
def test_text_comes_back_as_it_was_written(read, table, quote_all):
    buffer = StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL).writerows(table)

    back = read(
        buffer.getvalue(),
        header=False,
        support_multi_line=True,
        empty_as_string=True,
        infer_column_types=False,
    )

    assert rows(back) == table


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
            st.datetimes(),
            st.none() | st.integers(-(2**63), 2**63 - 1),
        ),
        min_size=1,
        max_size=6,
    )
)
@per_example_folder
def test_typed_values_come_back_as_they_were_written(read, table):
    lines = (",".join("" if v is None else str(v) for v in row) for row in table)

    back = read("\n".join(["i,f,b,t,n", *lines]))

    assert [tuple(row) for row in rows(back)] == table
    assert [str(type_)[:6] for type_ in back.schema.types[:3]] == ["int64", "double", "bool"]
    assert [None if pd.isna(n) else n for n in to_pandas(back)["n"]] == [row[4] for row in table]


number_texts = st.from_regex(r"\A-?[0-9]{0,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?\Z").filter(bool)
column_texts = st.one_of(
    number_texts,
    st.integers().map(str),
    st.sampled_from(["9007199254740993", "576460752303423600", "1.5", "true", "2020-01-01", "9999-12-31"]),
)


@given(st.lists(column_texts, min_size=1, max_size=12), st.randoms())
@settings(deadline=None)
def test_types_do_not_depend_on_order_or_batches(values, random):
    whole, shuffled = ColumnEvidence(), ColumnEvidence()
    whole.add(pa.array(values))
    random.shuffle(values)
    while values:
        size = random.randint(1, len(values))
        shuffled.add(pa.array(values[:size]))
        values = values[size:]

    assert shuffled.type == whole.type


# --- encodings ---


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [
        ("utf8", "utf-8"),
        ("utf8", "utf-8-sig"),
        ("UTF8BOM", "utf-8-sig"),
        ("iso88591", "latin-1"),
        ("Latin1", "latin-1"),
        ("utf16", "utf-16"),
        ("utf32", "utf-32"),
        ("windows1252", "cp1252"),
    ],
)
def test_encodings_of_v1(read, encoding, codec):
    assert read("é,b\n1,ü\n".encode(codec), encoding=encoding).to_pylist() == [{"é": 1, "b": "ü"}]


def test_other_encodings_are_refused_as_in_v1():
    with pytest.raises(InvalidDeclaration) as refused:
        DelimitedFormat(encoding="cp1252")

    assert str(refused.value) == (
        "Invalid encoding 'cp1252'. The supported encodings are "
        "utf8, iso88591, latin1, ascii, utf16, utf32, utf8bom, windows1252."
    )


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("utf8", b"a\r\nb\n\xe9\n"),
        ("utf8", b"\xef\xbb\xbfa\nb\n\xe9\n"),
        ("ascii", "a\nb\né\n".encode()),
        ("windows1252", b"a\nb\n\x81\n"),
        ("utf16", "a\nb\n".encode("utf-16") + b"\x00\xd8\x00\x00"),
    ],
)
def test_bytes_of_another_encoding_are_named_with_file_and_line(read, encoding, data):
    with pytest.raises(DataNotReadable, match=rf"^f0, line 3: the bytes .* are not {encoding} text"):
        read(data, encoding=encoding)


def test_a_nul_is_named_with_file_and_line(read):
    with pytest.raises(DataNotReadable, match=r"^f1, line 2: a NUL character"):
        read("a\n1\n", b"a\n1\0\n")


# --- selections and columns ---


def test_each_file_is_a_stream_and_headers_and_blank_lines_do_not_count(read):
    """Section 7: each file has its own stream; position counts among records."""
    numbers = "\n".join(map(str, range(100)))
    half = Selection(probability=0.5, seed=42)

    table = read(f"\na\n\n{numbers}", f"a\n{numbers}", selections=[half])

    expected = [*np.flatnonzero(half.mask(100, stream=0)), *np.flatnonzero(half.mask(100, stream=1))]
    assert table.column("a").to_pylist() == expected


def test_both_parts_of_a_split_have_the_types_of_the_whole(read):
    text = "a\n" + "1\n" * 40 + "x\n"

    parts = [read(text, selections=[Selection(probability=0.5, seed=1, complement=c)]) for c in (False, True)]

    assert [type_of(part) for part in parts] == ["string", "string"]
    assert sum(part.num_rows for part in parts) == 41


def test_columns_are_kept_in_the_order_of_the_file(read):
    """Section 6, keep_columns: source order, unknown ignored."""
    table = read("a,b,c\n1,2,3\n", columns=["c", "zzz", "a"])

    assert table.to_pylist() == [{"a": 1, "c": 3}]


def test_no_column_left_is_an_error(read):
    with pytest.raises(InvalidDeclaration, match=r"\['zzz'\].*a, b"):
        read("a,b\n1,2\n", columns=["zzz"])


# --- declarations ---


@pytest.mark.parametrize(
    "layout",
    [
        DelimitedFormat(),
        DelimitedFormat(
            separator="\t",
            header=False,
            encoding="UTF16",
            support_multi_line=True,
            empty_as_string=True,
            infer_column_types=False,
        ),
        ParquetFormat(),
    ],
)
def test_a_format_goes_through_json(layout):
    assert type(layout).from_json(json.loads(json.dumps(layout.to_json()))) == layout


def test_json_says_its_kind_and_what_it_lacks_has_its_default():
    assert DelimitedFormat().to_json()["kind"] == "delimited"
    assert ParquetFormat().to_json() == {"kind": "parquet", "set_column_types": {}}
    assert DelimitedFormat.from_json({"kind": "delimited"}) == DelimitedFormat()


@pytest.mark.parametrize("data", [{"kind": "parquet"}, {}, {"kind": "delimited", "quote": "'"}])
def test_json_of_something_else_is_refused(data):
    with pytest.raises(InvalidDeclaration, match=r"parquet|None|quote"):
        DelimitedFormat.from_json(data)


@pytest.mark.parametrize("option", ["header", "support_multi_line", "empty_as_string", "infer_column_types"])
def test_options_are_true_or_false(option):
    with pytest.raises(InvalidDeclaration, match="'maybe'"):
        DelimitedFormat(**{option: "maybe"})


# --- pandas ---


def test_whole_numbers_with_nulls_keep_every_digit():
    """Section 5 and the rule that nothing is lost: as float64, 2**53 + 1 would become 2**53."""
    table = pa.table({"n": [2**53 + 1, None], "i": [1, 2], "u": pa.array([2**64 - 1, None], pa.uint64())})

    frame = to_pandas(table)

    assert list(map(str, frame.dtypes)) == ["Int64", "int64", "UInt64"]
    assert frame["n"].tolist() == [2**53 + 1, pd.NA]
    assert frame["u"][0] == 2**64 - 1


def test_types_in_pandas(read):
    frame = to_pandas(read("i,f,b,t,s,m\n1,1.5,true,2020-01-01,x,true\n2,,false,,,\n"))

    assert frame["i"].dtype == "int64"
    assert frame["f"].dtype == "float64"
    assert frame["b"].dtype == "bool"
    assert frame["t"].dtype == "datetime64[ns]"
    assert pd.api.types.is_string_dtype(frame["s"])
    assert frame["m"].tolist() == [True, None]
    assert frame.isna().iloc[1].tolist() == [False, True, False, True, True, True]
