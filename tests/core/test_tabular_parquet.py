"""Reading Parquet files: semantics section 5."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_aml_data.core.formats import DelimitedFormat, ParquetFormat
from airflow_aml_data.core.operations import KeepColumns
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.core.tabular import read_table
from airflow_aml_data.core.tabular.base import TableFile
from airflow_aml_data.errors import DataNotReadable


def operations(selections=(), columns=None):
    return [*selections, *([] if columns is None else [KeepColumns(tuple(columns))])]


@pytest.fixture
def read_parquet(tmp_path):
    def read_parquet(*tables, **options):
        files = []
        for number, table in enumerate(tables):
            path = tmp_path / f"{number}.parquet"
            path.write_bytes(table) if isinstance(table, bytes) else pq.write_table(table, path)
            files.append((f"f{number}", path))
        return read_table([TableFile(*each) for each in files], ParquetFormat(), operations(**options))

    return read_parquet


def test_parquet_types_are_those_of_the_file(read_parquet):
    table = pa.table({"a": pa.array([1, None], pa.int16()), "b": ["00123", "x"], "c": [[1], []]})

    assert read_parquet(table, table).equals(pa.concat_tables([table, table]))


def test_parquet_columns_may_stand_in_another_order(read_parquet):
    one, two = pa.table({"a": [1], "b": ["x"]}), pa.table({"b": ["y"], "a": [2]})

    assert read_parquet(one, two).to_pylist() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_parquet_files_agree_whatever_their_writers_note(read_parquet, tmp_path):
    strict = pa.table([[1]], schema=pa.schema([pa.field("a", pa.int64(), nullable=False)], {"by": "me"}))

    assert read_parquet(strict, pa.table({"a": [None, 2]})).column("a").to_pylist() == [1, None, 2]


@pytest.mark.parametrize(
    ("second", "text"),
    [
        ({"a": [1.5], "b": ["x"]}, r"file f1: column 'a' is double, but int64 in f0"),
        ({"a": [1]}, r"file f1: column 'b' is missing, but there in f0"),
        ({"a": [1], "b": ["x"], "c": [1]}, r"file f1: column 'c' is there, but missing in f0"),
    ],
)
def test_parquet_files_of_other_columns_are_named(read_parquet, second, text):
    with pytest.raises(DataNotReadable, match=text):
        read_parquet(pa.table({"a": [1], "b": ["x"]}), pa.table(second))


@pytest.mark.parametrize("data", [b"", b"a,b\n1,2\n", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_a_bad_parquet_file_is_named(read_parquet, data):
    with pytest.raises(DataNotReadable) as refused:
        read_parquet(pa.table({"a": [1]}), data)

    assert str(refused.value) == "Invalid Parquet file f1. Corrupt footer."


def test_parquet_with_damaged_data_is_named(read_parquet, tmp_path):
    pq.write_table(pa.table({"a": list(range(10_000))}), tmp_path / "whole", compression="zstd")
    data = bytearray((tmp_path / "whole").read_bytes())
    data[4:2000] = b"\xff" * 1996

    with pytest.raises(DataNotReadable, match=r"^Invalid Parquet file f0\. Corrupt data\.$"):
        read_parquet(bytes(data))


@pytest.mark.parametrize("layout", [DelimitedFormat(), ParquetFormat()])
def test_a_missing_file_is_the_storages_business(tmp_path, layout):
    with pytest.raises(FileNotFoundError):
        read_table([TableFile("f0", tmp_path / "none")], layout)


def test_parquet_selections_and_columns(read_parquet):
    table = pa.table({"a": range(100), "a.b": range(100), "c": range(100)})
    half = Selection(probability=0.5, seed=3)

    kept = read_parquet(table, table, selections=[half], columns=["a"])

    assert kept.column_names == ["a"]
    assert kept.num_rows == half.mask(100, stream=0).sum() + half.mask(100, stream=1).sum()
