"""Types of delimited columns: found out, declared, or in conflict; header modes. Semantics section 5."""

import csv
import json
import re
import warnings
from datetime import datetime
from decimal import Decimal
from enum import Enum
from io import StringIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.formats import DataType, DelimitedFormat, PromoteHeadersBehavior
from airflow_aml_data.core.tabular.base import Misfit
from airflow_aml_data.core.tabular.columns import as_type
from airflow_aml_data.core.tabular.delimited import DelimitedReader
from airflow_aml_data.errors import DataNotReadable, InvalidDeclaration
from tests.core.delimited_files import files_of, read_files

any_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@pytest.fixture
def read(tmp_path):
    return lambda *texts, **options: read_files(files_of(tmp_path, texts), **options)


def column_of(values, *, name="a"):
    """A file of one column."""
    return f"{name}\n" + "\n".join(values) + "\n"


# --- types found out ---

number_texts = st.one_of(
    st.from_regex(r"\A-?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?\Z"),
    st.from_regex(r"\A[-+.0-9eEx/ ]{1,6}\Z"),
    st.integers(-(2**66), 2**66).map(str),
    st.floats(allow_nan=False).map(repr),
    st.sampled_from(["0x1F", "0x3B9ACA00", "-0", "-0.0", "00.5", "0.5", "-00", "inf", "nan", "0", ".", "-"]),
)
YEAR = r"\A(1677|1678|2020|2262|0000|9999)"
CLOCK = r"([T ][0-2][0-9](:[0-6][0-9](:[0-6][0-9](\.[0-9]{0,10})?)?)?)?"
time_texts = st.one_of(
    st.datetimes().map(str),
    st.dates().map(str),
    st.from_regex(YEAR + r"-0[1-9]-[0-3][0-9]" + CLOCK + r"(Z|\+00:00|\+02)?\Z"),
)

WHOLE = r"-?(0|[1-9][0-9]*)"
FLOAT = r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
LOCAL = r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?)?"


@given(st.lists(st.one_of(number_texts, st.none()), min_size=1, max_size=5))
@settings(deadline=None, max_examples=150)
def test_integers_are_what_python_writes(values):
    present = [value for value in values if value is not None]
    expected = all(re.fullmatch(WHOLE, v) and v != "-0" and -(2**63) <= int(v) < 2**63 for v in present)

    found = as_type(pa.array(values, pa.string()), pa.int64())

    assert (found is not None) == expected
    if found is not None:
        assert found.to_pylist() == [None if value is None else int(value) for value in values]


@given(st.lists(st.one_of(number_texts, st.none()), min_size=1, max_size=5))
@settings(deadline=None, max_examples=150)
def test_floats_come_back_digit_by_digit(values):
    found = as_type(pa.array(values, pa.string()), pa.float64())

    present = [value for value in values if value is not None]
    well_formed = all(re.fullmatch(FLOAT, value) for value in present)
    few_digits = all(len(re.sub(r"[eE].*|\D", "", value)) <= 15 and "e" not in value.lower() for value in present)
    assert found is None or well_formed
    assert found is not None or not (well_formed and few_digits)
    if found is not None:
        assert found.to_pylist() == [None if value is None else float(value) for value in values]
        for text in present:
            number, digits = float(text), len(re.sub(r"[eE].*|\D", "", text))
            written = {repr(number), f"{number:.{max(digits - 1, 0)}e}"}  # which differ for a tie
            assert Decimal(text) in map(Decimal, written)


@given(st.lists(st.one_of(time_texts, st.none()), min_size=1, max_size=5), st.sampled_from(["ns", "us"]))
@settings(deadline=None, max_examples=150)
def test_times_are_iso_8601_and_within_what_their_unit_counts(values, unit):
    def fits(text):
        if not re.fullmatch(LOCAL, text):
            return False
        day, _, fraction = text.partition(".")
        try:
            year = datetime.fromisoformat(day).year
        except ValueError:
            return False
        return 1678 <= year < 2262 if unit == "ns" else len(fraction) <= 6

    found = as_type(pa.array(values, pa.string()), pa.timestamp(unit))

    assert (found is not None) == all(fits(value) for value in values if value is not None)
    if found is not None:
        expected = [np.datetime64("NaT" if value is None else value, unit) for value in values]
        np.testing.assert_array_equal(found.to_numpy(zero_copy_only=False), np.array(expected))


cells = st.sampled_from(
    ["", "1", "0", "00123", "2.5", "1e3", "true", "False", "2020-01-01", "9999-01-01", "x", "9" * 19]
)
plain_tables = st.lists(st.lists(cells, min_size=1, max_size=3), max_size=7)


@given(
    plain_tables, plain_tables, st.booleans(), st.integers(1, 30), st.sampled_from([True, "COMBINE_ALL_FILES_HEADERS"])
)
@any_folder
def test_what_is_read_does_not_depend_on_how_types_were_found_out(tmp_path, one, two, empty, size, header):
    texts = []
    for names, table in ((["a", "b"], one), (["b", "a", "c"], two)):
        buffer = StringIO(newline="")
        csv.writer(buffer).writerows([names, *table])
        texts.append(buffer.getvalue())
    files = files_of(tmp_path, texts)

    tried = read_files(files, empty_as_string=empty, header=header, block_bytes=size)
    surveyed = read_files(files, empty_as_string=empty, header=header, surveyed=True)

    assert tried.equals(surveyed)
    assert tried.schema == surveyed.schema


SPELLINGS = """
    0 5 -0 007 -07 +5 0x1F 1e5 1_000 1,5 .5 5. . - -.5 0.50 00.5 0e0 1e400 nan NA inf true 2020-01-01
    9007199254740993 9223372036854775808 0.1234567890123456 0.12345678901234567
"""
spellings = st.one_of(
    st.sampled_from(["", " 5", "5 ", "\t5", "2020-01-01 00:00", *SPELLINGS.split()]),
    st.integers(10**14, 2**66).map(str),
    st.floats(allow_nan=False).map(repr),
)
# each next to a value that lets it be what it seems, or to another
columns = st.tuples(spellings, st.one_of(st.sampled_from(["", "7", "2.5"]), spellings), st.booleans())


def says_the_same(text, value):
    """Whether a value is the text, or what Python reads in it."""
    if value is None or isinstance(value, str):
        return (value or "") == text
    if isinstance(value, bool):
        return str(value).lower() == text
    if isinstance(value, int):
        return str(value) == text
    if isinstance(value, float):
        return bool(re.fullmatch(FLOAT, text)) and value == float(text)
    return value == datetime.fromisoformat(text)


@given(st.lists(columns, min_size=10, max_size=30), st.integers(1, 300))
@settings(any_folder, max_examples=25)
@pytest.mark.slow
def test_no_way_of_reading_changes_what_stands_in_the_file(tmp_path, table, size):
    rows = [[column[n] for column in table] for n in range(2)]
    lines = [
        ",".join(f'"{text}"' if quoted or "," in text else text for text, (*_, quoted) in zip(row, table, strict=True))
        for row in rows
    ]
    plain = "".join(f"{line},x\n" for line in lines)
    by_record = plain + "," * len(table) + 'x"y\n'  # a quote within a value
    files = files_of(tmp_path, [plain, by_record])

    fast, slow = (read_files([file], header=False) for file in files)
    surveyed = read_files(files[:1], header=False, surveyed=True, block_bytes=size)

    assert fast.equals(surveyed)
    assert fast.drop_columns(fast.column_names[-1]).equals(slow.slice(0, 2).drop_columns(slow.column_names[-1]))
    for row, found in zip(rows, fast.to_pylist(), strict=True):
        assert [t for t, v in zip(row, found.values(), strict=False) if not says_the_same(t, v)] == []


def test_a_misfit_behind_the_trial_widens_the_column(tmp_path):
    files = files_of(tmp_path, [column_of(["1"] * 100_000), column_of(["1"] * 100_000 + ["", "1.5"])])
    reader = DelimitedReader(files, DelimitedFormat(), block_bytes=1 << 16)

    assert str(reader.trial_schema.field("a").type) == "int64"
    with pytest.raises(Misfit):
        list(reader.batches(1, reader.trial_schema))
    assert str(reader.schema.field("a").type) == "double"


def test_only_the_columns_asked_for_are_read(tmp_path):
    files = files_of(tmp_path, ["a,b,c\n1,2,3\n"])
    reader = DelimitedReader(files, DelimitedFormat())
    wanted = pa.schema([reader.trial_schema.field(name) for name in ("c", "a")])

    assert [batch.to_pylist() for batch in reader.batches(0, wanted)] == [[{"c": 3, "a": 1}]]


# --- conflicts ---


@pytest.mark.parametrize("size", [16, 1 << 20])
def test_a_conflict_can_be_an_error_that_names_the_value(read, size):
    text = column_of(["1"] * 250 + ["", "2.5", "x"])

    with pytest.raises(
        DataNotReadable, match=r"^f0, line 253: '2\.5' in column 'a' is no int64.*set_column_types.*widen"
    ):
        read(text, type_conflict="raise", block_bytes=size)


def test_a_conflict_is_with_the_first_200_records(read):
    assert read(column_of(["1"] * 199 + ["x", "2.5"]), type_conflict="raise").column("a")[-1].as_py() == "2.5"
    with pytest.raises(DataNotReadable, match=r"line 202"):
        read(column_of(["1"] * 200 + ["x"]), type_conflict="raise")


def test_a_column_without_a_value_in_the_first_200_records_is_text(read):
    table = read("a,b\n" + "1,\n" * 200 + "1,2\n", type_conflict="raise")

    assert table.column("b").to_pylist()[-1] == "2"


def test_a_field_too_many_is_a_conflict_too(read):
    with pytest.raises(DataNotReadable, match=r"^f0, line 202: '2' in column 'Column2'"):
        read(column_of(["1"] * 200 + ["1,2"]), type_conflict="raise")


# --- declared types ---


@pytest.mark.parametrize(
    ("data_type", "values", "type_", "expected"),
    [
        (DataType.to_string(), ["00123", " x ", ""], "string", ["00123", " x ", None]),
        (DataType.to_stream(), ["a/b.jpg"], "string", ["a/b.jpg"]),
        (DataType.to_long(), ["00123", "+5", "-007", " 8 ", "", "-0"], "int64", [123, 5, -7, 8, None, 0]),
        (DataType.to_long(), [str(2**63 - 1), str(-(2**63)), "0" * 30 + "1"], "int64", [2**63 - 1, -(2**63), 1]),
        (DataType.to_float(), ["1", "+2.5", "1e3", " .5", "007.5", "inf"], "double", [1, 2.5, 1000, 0.5, 7.5, np.inf]),
        (DataType.to_float(","), ['"3,14"', '"-0,5e2"', "7"], "double", [3.14, -50, 7]),
        (DataType.to_float(), ["0.1234567890123456789"], "double", [0.12345678901234568]),
        (DataType.to_bool(), ["true", "FALSE", "1", " 0", ""], "bool", [True, False, True, False, None]),
        (DataType.to_datetime(), ["2020-01-31", "2020-01-31T10:20:30"], "timestamp[ns]", None),
        (DataType.to_datetime(), ["2020-01-31T10:20:30+02:00"], "timestamp[ns]", [datetime(2020, 1, 31, 8, 20, 30)]),
        (DataType.to_datetime(), ["9999-12-31", ""], "timestamp[us]", [datetime(9999, 12, 31), None]),
        (DataType.to_datetime("%d.%m.%y"), ["31.12.20"], "timestamp[ns]", [datetime(2020, 12, 31)]),
        (DataType.to_datetime(["%d.%m.%Y", "%Y"]), ["31.12.2020", "2021"], "timestamp[ns]", None),
    ],
)
@pytest.mark.parametrize("size", [4, 1000])
def test_declared_types_take_what_is_of_them(read, data_type, values, type_, expected, size):
    lines = ["a,n", *(f"{value},1" for value in values)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        column = read("\n".join(lines), set_column_types={"a": data_type}, block_bytes=size).column("a")

    assert str(column.type) == type_
    assert column.null_count == values.count("")
    assert expected is None or column.to_pylist() == expected


@pytest.mark.parametrize(
    ("data_type", "bad"),
    [
        (DataType.to_long(), ["1.0", "x", str(2**63), "1 2", "0x1F", "1_0"]),
        (DataType.to_float(), ["1,5", "x", "1e400", "--1", "1_0", "."]),
        (DataType.to_float(","), ["1.5", "1.000,5"]),
        (DataType.to_bool(), ["yes", "2"]),
        (DataType.to_datetime(), ["x", "2021-02-29", "13/13/2020"]),
        (DataType.to_datetime("%Y"), ["01/02/2020"]),
    ],
)
def test_a_value_of_another_type_becomes_null_but_not_in_silence_or_is_an_error(read, data_type, bad):
    """Section 15: late bad values null silently."""
    for value in bad:
        text = f'a,n\n,1\n\n"{value}",2\n"{value}",3\n'

        with pytest.warns(
            UserWarning, match=rf"^f0: 2 values of column 'a' .* first is {value!r} in line 4".replace("+", "\\+")
        ):
            table = read(text, set_column_types={"a": data_type})
        with pytest.raises(DataNotReadable, match=r"^f0, line 4: .* in column 'a' is no"):
            read(text, set_column_types={"a": data_type}, on_error="fail")

        assert table.column("a").null_count == 3


def test_month_stands_first_unless_a_value_tells(read):
    """Section 5: 01/02/2020 month-day plus a warning; 13/02/2020 makes the column day-month."""
    dates = {"set_column_types": {"a": DataType.to_datetime()}}

    with pytest.warns(UserWarning, match=r"column 'a' can be read as month/day or as day/month"):
        month_first = read(column_of(["01/02/2020"]), **dates)
    day_first = read(column_of(["01/02/2020"] * 500 + ["13/02/2020 10:20"]), block_bytes=100, **dates)

    assert month_first.column("a")[0].as_py() == datetime(2020, 1, 2)
    assert day_first.column("a")[0].as_py() == datetime(2020, 2, 1)
    assert day_first.column("a")[-1].as_py() == datetime(2020, 2, 13, 10, 20)


def test_a_column_that_tells_does_not_warn(read):
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        table = read(column_of(["01/02/2020", "01/13/2020"]), set_column_types={"a": DataType.to_datetime()})

    assert table.column("a")[0].as_py() == datetime(2020, 1, 2)


def test_other_columns_are_found_out_and_unknown_ones_ignored(read):
    table = read("a,b\n1,2\n", set_column_types={"a": DataType.to_string(), "zzz": DataType.to_bool()})

    assert table.to_pylist() == [{"a": "1", "b": 2}]


def test_declared_types_count_without_inference(read):
    table = read("a,b\n1,2\n", set_column_types={"a": DataType.to_long()}, infer_column_types=False)

    assert table.to_pylist() == [{"a": 1, "b": "2"}]


declared = {
    "i": DataType.to_long(),
    "f": DataType.to_float(),
    "b": DataType.to_bool(),
    "t": DataType.to_datetime(),
    "s": DataType.to_string(),
}


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.booleans(),
            st.none() | st.datetimes(datetime(1, 1, 1)),
            st.none() | st.text(st.sampled_from('ab ,"\né'), min_size=1),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 40),
)
@any_folder
def test_every_type_comes_back_as_pandas_wrote_it(tmp_path, rows, size):
    frame = pd.DataFrame(rows, columns=list(declared), dtype=object)
    buffer = StringIO(newline="")
    frame.to_csv(buffer, index=False)

    table = read_files(
        files_of(tmp_path, [buffer.getvalue()]), set_column_types=declared, support_multi_line=True, block_bytes=size
    )

    assert [tuple(row.values()) for row in table.to_pylist()] == rows
    assert [str(type_).partition("[")[0] for type_ in table.schema.types] == [
        "int64",
        "double",
        "bool",
        "timestamp",
        "string",
    ]


# --- header modes ---

FIRST, SECOND = "a,b\n1,x\n", "b,c\ny,2.5\n"


@pytest.mark.parametrize(
    ("header", "names", "rows"),
    [
        (True, ["a", "b"], [["1", "x"], ["y", "2.5"]]),
        ("ALL_FILES_HAVE_SAME_HEADERS", ["a", "b"], [["1", "x"], ["y", "2.5"]]),
        (False, ["Column1", "Column2"], [["a", "b"], ["1", "x"], ["b", "c"], ["y", "2.5"]]),
        (PromoteHeadersBehavior.NO_HEADERS, ["Column1", "Column2"], [["a", "b"], ["1", "x"], ["b", "c"], ["y", "2.5"]]),
        ("ONLY_FIRST_FILE_HAS_HEADERS", ["a", "b"], [["1", "x"], ["b", "c"], ["y", "2.5"]]),
        ("COMBINE_ALL_FILES_HEADERS", ["a", "b", "c"], [[1, "x", None], [None, "y", 2.5]]),
    ],
)
def test_g62_header_modes(read, header, names, rows):
    table = read(FIRST, SECOND, header=header)

    assert table.column_names == names
    assert [list(row.values()) for row in table.to_pylist()] == rows


def test_combined_headers_find_their_columns_in_any_order(read):
    table = read("a,b\n", "", "b,a\nx,1\n", "c\n2,3\n", header="COMBINE_ALL_FILES_HEADERS")

    assert table.to_pylist() == [
        {"a": 1, "b": "x", "c": None, "Column2": None},
        {"a": None, "b": None, "c": 2, "Column2": 3},
    ]


def test_an_enum_of_v1s_names_says_how_headers_are():
    class Behavior(Enum):
        COMBINE_ALL_FILES_HEADERS = 2

    combined = DelimitedFormat(header=Behavior.COMBINE_ALL_FILES_HEADERS)

    assert combined == DelimitedFormat(header=PromoteHeadersBehavior.COMBINE_ALL_FILES_HEADERS)
    assert DelimitedFormat(header="NO_HEADERS") == DelimitedFormat(header=False)


@pytest.mark.parametrize("header", ["all", 1, None, 3.5])
def test_other_headers_are_refused_as_in_v1(header):
    with pytest.raises(InvalidDeclaration, match=rf"^Unsupported header provided: {header!r}"):
        DelimitedFormat(header=header)


# --- declarations ---


@pytest.mark.parametrize("types", [["a"], "a", {"a": "long"}, {1: DataType.to_long()}, DataType.to_long()])
def test_what_is_no_dictionary_of_types_is_refused(types):
    with pytest.raises(InvalidDeclaration, match="set_column_types wants a dictionary"):
        DelimitedFormat(set_column_types=types)


@pytest.mark.parametrize("mark", ["", ",,", "1", "e", "-", None])
def test_a_decimal_mark_is_one_character(mark):
    with pytest.raises(InvalidDeclaration, match="decimal_mark"):
        DataType.to_float(mark)


@pytest.mark.parametrize("formats", ["yyyy-MM-dd", ["%Y", 1]])
def test_formats_are_those_of_strptime(formats):
    with pytest.raises(InvalidDeclaration, match="strptime"):
        DataType.to_datetime(formats)


def test_type_conflict_is_widen_or_raise():
    with pytest.raises(InvalidDeclaration, match="type_conflict"):
        DelimitedFormat(type_conflict="ignore")


def test_a_declaration_keeps_no_hold_of_the_authors_dictionary():
    types = {"b": DataType.to_long(), "a": DataType.to_datetime(["%d.%m.%Y"])}
    layout = DelimitedFormat(set_column_types=types, header="COMBINE_ALL_FILES_HEADERS", type_conflict="raise")
    types.clear()

    assert layout.declared_types == {"a": DataType.to_datetime("%d.%m.%Y"), "b": DataType.to_long()}
    assert DelimitedFormat.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert hash(layout) == hash(DelimitedFormat.from_json(layout.to_json()))
