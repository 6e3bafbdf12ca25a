"""G60 to G64: partition formats and delimited files (semantics, sections 5 and 6)."""

from __future__ import annotations

import pandas as pd
import pytest

from airflow_aml_data import Dataset, Datastore, Workspace
from airflow_aml_data.errors import InvalidDeclaration

STORE = Datastore(Workspace(), "workspaceblobstore")


def test_g60_partition_columns_come_from_the_path_and_stand_first(put):
    put({"Accounts/2019/01/01/data.csv": "n\n1\n2\n", "Sales/2020/12/31/data.csv": "n\n3\n"})
    dataset = Dataset.Tabular.from_delimited_files(
        (STORE, "**/data.csv"), partition_format="/{Department}/{PartitionDate:yyyy/MM/dd}/data.csv"
    )

    frame = dataset.to_pandas_dataframe()

    assert [*frame.columns] == ["Department", "PartitionDate", "n"]
    assert [*frame["Department"]] == ["Accounts", "Accounts", "Sales"]
    assert [*frame["PartitionDate"]] == [pd.Timestamp(2019, 1, 1)] * 2 + [pd.Timestamp(2020, 12, 31)]
    assert [*frame["n"]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("partition_format", "said"),
    [
        ("abc", 'Invalid partition_format "abc". There must be at least one {column_name}'),
        ("{}", 'Invalid part "{}" in partition_format "{}". Column name is not specified.'),
        ("{a:}", 'Invalid part "{a:}" in partition_format "{a:}". Date format is not specified.'),
        ("{a:MM}", "Invalid partition_format \"{a:MM}\". Format 'yyyy' must be defined for datetime column."),
        (
            "{a:yyyy}{b:MM}",
            'Invalid part "{b:MM}" in partition_format "{a:yyyy}{b:MM}". There cannot be more than one date part.',
        ),
        ("{a}{", 'Invalid partition_format "{a}{". Brackets must is pair and cannot be nested'),
    ],
)
def test_g61_a_wrong_partition_format_is_refused_when_it_is_declared(partition_format, said, refusal):
    for make in (Dataset.Tabular.from_delimited_files, Dataset.Tabular.from_parquet_files, Dataset.File.from_files):
        with pytest.raises(InvalidDeclaration) as refused:
            make((STORE, "x"), partition_format=partition_format)
        assert str(refused.value).startswith(said)
    assert partition_format in refusal(f"Dataset.File.from_files((store, 'x'), partition_format={partition_format!r})")


def read(header, **options) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of ``a.csv`` and ``b.csv``; null is None."""
    frame = Dataset.Tabular.from_delimited_files([(STORE, "a.csv"), (STORE, "b.csv")], header=header, **options)
    frame = frame.to_pandas_dataframe()
    return [*frame.columns], frame.astype(object).where(frame.notna(), None).to_numpy().tolist()


@pytest.mark.parametrize(
    ("header", "columns", "rows"),
    [
        (True, ["x", "y"], [["1", "2"], ["3", "4"]]),
        ("ALL_FILES_HAVE_SAME_HEADERS", ["x", "y"], [["1", "2"], ["3", "4"]]),
        (False, ["Column1", "Column2"], [["x", "y"], ["1", "2"], ["y", "z"], ["3", "4"]]),
        ("NO_HEADERS", ["Column1", "Column2"], [["x", "y"], ["1", "2"], ["y", "z"], ["3", "4"]]),
        ("ONLY_FIRST_FILE_HAS_HEADERS", ["x", "y"], [["1", "2"], ["y", "z"], ["3", "4"]]),
        ("COMBINE_ALL_FILES_HEADERS", ["x", "y", "z"], [["1", "2", None], [None, "3", "4"]]),
    ],
    ids=str,
)
def test_g62_header_modes_of_two_files(header, columns, rows, put):
    put({"a.csv": "x,y\n1,2\n", "b.csv": "y,z\n3,4\n"})

    assert read(header, infer_column_types=False) == (columns, rows)


def test_g62_another_header_mode_is_refused_when_it_is_declared():
    with pytest.raises(InvalidDeclaration, match="Unsupported header provided"):
        Dataset.Tabular.from_delimited_files((STORE, "a.csv"), header="FIRST_FILE")


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize(
    ("content", "columns"),
    [("x,y\n", ["x", "y"]), ("x,y", ["x", "y"]), ("", [])],
    ids=["header", "header without line end", "empty"],
)
def test_g63_a_file_without_records_has_no_rows_with_validate_too_because_declaring_reads_nothing(
    content, columns, validate, put
):
    put({"a.csv": content})

    frame = Dataset.Tabular.from_delimited_files((STORE, "a.csv"), validate=validate).to_pandas_dataframe()

    assert len(frame) == 0
    assert [*frame.columns] == columns


def test_g64_an_empty_text_field_is_null_or_empty_text_as_asked(put):
    put({"a.csv": "x,y\na,1\n,2\n"})

    null, empty = (
        Dataset.Tabular.from_delimited_files((STORE, "a.csv"), empty_as_string=each).to_pandas_dataframe()
        for each in (False, True)
    )

    assert null["x"].isna().tolist() == [False, True]
    assert empty["x"].tolist() == ["a", ""]
    assert null["y"].tolist() == empty["y"].tolist() == [1, 2]
