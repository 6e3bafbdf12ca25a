"""JSON lines: one object is one row, and no digit is lost. Semantics section 5."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.formats import CsvFiles, DataType, JsonLinesFormat, ParquetFiles, format_from_json
from airflow_aml_data.core.operations import KeepColumns, Skip
from airflow_aml_data.core.tabular import json_lines, read_table, write_files
from airflow_aml_data.errors import DataNotReadable, InvalidDeclaration
from tests.core.delimited_files import files_of

per_example_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def read(tmp_path):
    def read(*texts, operations=(), on_error="null", **options):
        return read_table(files_of(tmp_path, texts), JsonLinesFormat(**options), operations, on_error=on_error)

    return read


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (["1", "-2", "null"], "int64", [1, -2, None]),
        (["9007199254740993", "1"], "int64", [2**53 + 1, 1]),
        (["9223372036854775808", "1"], "string", ["9223372036854775808", "1"]),
        (["1", "2.5", "1e3"], "double", [1.0, 2.5, 1000.0]),
        (["0.12345678901234567890123"], "string", ["0.12345678901234567890123"]),
        (["true", "false"], "bool", [True, False]),
        (["true", "1"], "string", ["true", "1"]),
        (['"1"', '"007"'], "string", ["1", "007"]),
        (['"2020-01-31"'], "string", ["2020-01-31"]),
        (['""', "null"], "string", ["", None]),
        (['{"b": [1.50, "é"]}', "[]"], "string", ['{"b": [1.50, "é"]}', "[]"]),
        (["null", "null"], "string", [None, None]),
    ],
)
def test_a_column_has_the_type_that_loses_nothing(read, values, type_, expected):
    table = read("\n".join(f'{{"a": {value}}}' for value in values))

    assert str(table.schema.field("a").type) == type_
    assert table.column("a").to_pylist() == expected


def test_a_key_that_a_line_has_not_is_null(read):
    """Section 5."""
    assert read('{"a": 1}\r\n\n{"b": "x", "a": 2}\n', "{}\n").to_pylist() == [
        {"a": 1, "b": None},
        {"a": 2, "b": "x"},
        {"a": None, "b": None},
    ]


def test_a_late_value_decides_the_type_of_the_whole_column(read):
    table = read('{"a": 1}\n', '{"a": "x", "b": 1}\n')

    assert table.to_pylist() == [{"a": "1", "b": None}, {"a": "x", "b": 1}]


@pytest.mark.parametrize("line", ["{", "[1]", "1", '"x"', "null", '{"a": NaN}', "{'a': 1}", '{"a": 1} x'])
def test_a_line_that_is_no_object_is_named(read, line):
    with pytest.raises(DataNotReadable, match=r"^f1, line 3 is no JSON object: .*invalid_lines='drop'"):
        read('{"a": 1}\n', f'{{"a": 1}}\n\n{line}\n')


def test_lines_that_are_no_objects_are_left_out_on_demand_with_a_warning(read):
    with pytest.warns(UserWarning, match=r"^2 lines of f0 were left out; the first: f0, line 1 is no JSON object"):
        table = read('x\n{"a": 1}\ny\n', invalid_lines="drop")

    assert table.to_pylist() == [{"a": 1}]


def test_other_values_of_invalid_lines_are_refused_as_in_v1():
    with pytest.raises(InvalidDeclaration) as refused:
        JsonLinesFormat(invalid_lines="skip")

    assert str(refused.value) == "Expected 'error' or 'drop' as value for invalid_lines, found skip"


def test_types_can_be_set(read):
    types = {"n": DataType.to_string(), "d": DataType.to_datetime(), "no": DataType.to_long()}

    table = read('{"n": 1.50, "d": "2020-01-31"}\n{"n": 2, "d": null}', set_column_types=types)

    assert table.to_pylist() == [{"n": "1.50", "d": datetime(2020, 1, 31)}, {"n": "2", "d": None}]


def test_what_is_not_of_a_set_type_becomes_null_with_a_warning_or_fails(read):
    text, types = '{"a": "x"}\n{"a": "7"}\n{"a": "y"}\n', {"a": DataType.to_long()}

    with pytest.warns(
        UserWarning, match=r"^f0: 2 values of column 'a' became null, being no int64; the first is 'x' in line 1"
    ):
        assert read(text, set_column_types=types).column("a").to_pylist() == [None, 7, None]
    with pytest.raises(DataNotReadable, match=r"^f0, line 1: 'x' in column 'a' is no int64"):
        read(text, set_column_types=types, on_error="fail")


def test_operations_and_files(tmp_path):
    files = files_of(tmp_path, ['{"a": 1, "b": "x"}\n{"a": 2, "b": "y,"}\n'])

    [text] = write_files(files, JsonLinesFormat(), [Skip(1)], tmp_path, CsvFiles())
    assert text.read_text() == 'a,b\n2,"y,"\n'
    [packed] = write_files(files, JsonLinesFormat(), [KeepColumns(("b",))], tmp_path, ParquetFiles())
    assert packed.stat().st_size > 0


def test_a_format_goes_through_json():
    layout = JsonLinesFormat(invalid_lines="drop", encoding="UTF16", set_column_types={"a": DataType.to_float(",")})

    assert format_from_json(json.loads(json.dumps(layout.to_json()))) == layout


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3)
)
records = st.lists(st.dictionaries(st.sampled_from("abc"), scalars, max_size=3), max_size=6)


@given(st.lists(records, min_size=1, max_size=3), st.integers(1, 60))
@per_example_folder
def test_rows_do_not_depend_on_blocks_and_every_value_is_there(tmp_path, monkeypatch, contents, block_bytes):
    texts = ["".join(json.dumps(each) + "\n" for each in rows) for rows in contents]
    files = files_of(tmp_path, texts)
    whole = read_table(files, JsonLinesFormat())
    monkeypatch.setattr(json_lines, "_BLOCK_BYTES", block_bytes)

    assert read_table(files, JsonLinesFormat()).to_pylist() == whole.to_pylist()
    written = [row for rows in contents for row in rows]
    if not any(written):  # rows of no columns are no rows
        written = []
    for row, back in zip(written, whole.to_pylist(), strict=True):
        for name, value in row.items():
            text = value if isinstance(value, str) else json.dumps(value)
            assert back[name] == value or back[name] == text
