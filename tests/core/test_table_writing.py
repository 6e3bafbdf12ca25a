"""Tables written as files: what is read back is what was there, in memory that does not grow."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.expressions import RecordField
from airflow_aml_data.core.formats import CsvFiles, DataType, DelimitedFormat, ParquetFiles, ParquetFormat
from airflow_aml_data.core.operations import DropColumns, Filter, KeepColumns, Skip, Take
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.core.tabular import (
    TableFile,
    parquet,
    parquet_files,
    part_names,
    read_batches,
    read_table,
    write_files,
    write_parts,
)
from airflow_aml_data.errors import DataChanged, DataNotReadable, InvalidDeclaration

per_example_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
HALF = Selection(probability=0.5, seed=2)


def text_files(folder, *texts):
    files = []
    for number, text in enumerate(texts):
        (folder / f"{number}.csv").write_text(text, newline="")
        files.append(TableFile(f"f{number}", folder / f"{number}.csv"))
    return files


def parquet_dataset(folder, *tables, **options):
    files = []
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet", **options)
        files.append(TableFile(f"f{number}", folder / f"{number}.parquet"))
    return files


def as_files(parts):
    return [TableFile(part.name, part) for part in parts]


def test_parts_are_numbered_in_the_order_of_the_files(tmp_path):
    parts = write_files(text_files(tmp_path, "a\n1\n", "a\n2\n"), DelimitedFormat(), [], tmp_path, ParquetFiles())

    assert [part.name for part in parts] == part_names(2, ParquetFiles()) == ["part-00000", "part-00001"]
    assert [pq.read_table(part).to_pylist() for part in parts] == [[{"a": 1}], [{"a": 2}]]


# --- text ---


def written(folder, text, operations, target=None, **options):
    [part] = write_files(text_files(folder, text), DelimitedFormat(**options), operations, folder, target or CsvFiles())
    return part.read_text()


def test_values_that_no_filter_looks_at_stay_as_they_are_written(tmp_path):
    text = "n,v,b\n1,1.50,TRUE\n2,007,true\n3,1e2,False\n"

    assert written(tmp_path, text, [KeepColumns(("v", "b"))]) == "v,b\n1.50,TRUE\n007,true\n1e2,False\n"
    assert written(tmp_path, text, [Filter(RecordField("n") >= 2)]) == "n,v,b\n2,007,true\n3,1e2,False\n"


def test_another_separator_quotes_what_it_must(tmp_path):
    text = 'a;b,"c""d",e f,"x\n"\n"1;2",",",,4\n'

    assert written(tmp_path, text, [], CsvFiles(separator=";"), support_multi_line=True) == (
        '"a;b";"c""d";e f;x\n"1;2";,;;4\n'
    )


def test_a_row_of_nothing_stays_a_row(tmp_path):
    assert written(tmp_path, "a,b\n,1\nx,2\n", [DropColumns(("b",))]) == 'a\n""\nx\n'


def test_columns_of_the_path_come_first(tmp_path):
    [file] = text_files(tmp_path, "a\n1\n")
    file = file._replace(columns=(("Path", "/0.csv"), ("day", datetime(2020, 1, 1))))

    [part] = write_files([file], DelimitedFormat(), [], tmp_path, CsvFiles())

    assert part.read_text() == "Path,day,a\n/0.csv,2020-01-01 00:00:00.000000000,1\n"


def test_files_without_rows_are_parts_without_rows(tmp_path):
    parts = write_files(text_files(tmp_path, "", "a\n"), DelimitedFormat(), [DropColumns(("b",))], tmp_path, CsvFiles())

    assert [part.read_text() for part in parts] == ["a\n", "a\n"]


values = st.fixed_dictionaries(
    {
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "b": st.none() | st.booleans(),
        "t": st.none() | st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
        "s": st.none() | st.text('ab,;"\n é', min_size=1).filter(lambda text: not text.strip("0123456789.-")),
    }
)
SCHEMA = pa.schema(
    [("i", pa.int64()), ("f", pa.float64()), ("b", pa.bool_()), ("t", pa.timestamp("ns")), ("s", pa.string())]
)


@given(st.lists(values, min_size=1, max_size=5), st.sampled_from([",", ";", "§"]))
@per_example_folder
def test_values_of_every_type_come_back_from_text(tmp_path, records, separator):
    table = pa.Table.from_pylist(records, SCHEMA)

    parts = write_files(parquet_dataset(tmp_path, table), ParquetFormat(), [], tmp_path, CsvFiles(separator=separator))
    back = read_table(as_files(parts), DelimitedFormat(separator=separator, support_multi_line=True))

    seen = [name for name in SCHEMA.names if table.column(name).null_count < table.num_rows]
    assert back.select(seen).to_pylist() == table.select(seen).to_pylist()
    assert [back.schema.field(name).type for name in seen if name != "s"] == [
        SCHEMA.field(name).type for name in seen if name != "s"
    ]


def test_other_types_are_written_as_they_are_read_elsewhere(tmp_path):
    table = pa.table(
        {
            "d": [Decimal("1.50"), None],
            "day": [date(2020, 1, 1), None],
            "z": pa.array([datetime(2020, 1, 1, tzinfo=UTC), None], pa.timestamp("s", tz="UTC")),
            "f": [math.nan, math.inf],
            "c": pa.array(["x", "y"]).dictionary_encode(),
        }
    )

    [part] = write_files(parquet_dataset(tmp_path, table), ParquetFormat(), [], tmp_path, CsvFiles())

    assert part.read_text() == "d,day,z,f,c\n1.50,2020-01-01,2020-01-01 00:00:00.000Z,,x\n,,,inf,y\n"


def test_a_list_in_a_text_file_is_refused_with_its_column(tmp_path):
    with pytest.raises(InvalidDeclaration, match=r"^Column 'l' is list<.*to_parquet_files"):
        write_files(parquet_dataset(tmp_path, pa.table({"l": [[1]]})), ParquetFormat(), [], tmp_path, CsvFiles())


# --- Parquet ---


def test_parquet_parts_have_the_types_and_the_packing_of_their_files(tmp_path):
    schema = pa.schema(
        [
            ("s", pa.string()),
            ("l", pa.large_string()),
            ("n", pa.int64()),
            ("x", pa.list_(pa.string())),
            ("t", pa.timestamp("ns")),
        ]
    )
    rows = [{"s": f"v{i % 3}", "l": f"w{i}", "n": i, "x": ["a", None], "t": datetime(2020, 1, 1)} for i in range(5000)]
    table = pa.Table.from_pylist(rows, schema)
    files = parquet_dataset(tmp_path, table, compression={"s": "zstd"}, use_dictionary=["s"], row_group_size=999)

    [part] = write_files(files, ParquetFormat(), [HALF, Filter(RecordField("s") != "v1")], tmp_path, ParquetFiles())

    wanted = table.filter(pa.array(HALF.mask(5000, stream=0)))
    assert pq.read_table(part).equals(wanted.filter([each != "v1" for each in wanted.column("s").to_pylist()]))
    columns = {each.path_in_schema: each for each in map(pq.read_metadata(part).row_group(0).column, range(5))}
    assert columns["s"].compression == "ZSTD"
    assert "RLE_DICTIONARY" in columns["s"].encodings
    assert "RLE_DICTIONARY" not in columns["l"].encodings
    assert columns["l"].compression == "UNCOMPRESSED"


def test_a_parquet_part_without_rows_has_the_columns(tmp_path):
    files = parquet_dataset(tmp_path, pa.table({"a": [1], "b": ["x"]}))

    [part] = write_files(files, ParquetFormat(), [Take(0)], tmp_path, ParquetFiles())

    assert pq.read_table(part).schema.equals(pa.schema([("a", pa.int64()), ("b", pa.string())]))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=3), st.integers(1, 7), st.integers(1, 20))
@per_example_folder
def test_parquet_rows_do_not_depend_on_batches_or_row_groups(tmp_path, monkeypatch, counts, batch_rows, group_rows):
    tables = [pa.table({"n": range(count), "s": [str(n % 2) for n in range(count)]}) for count in counts]
    operations = [HALF, Skip(2), Filter(RecordField("n") < 25), Take(20)]
    files = parquet_dataset(tmp_path, *tables, row_group_size=7)
    whole = read_table(files, ParquetFormat(), operations)
    monkeypatch.setattr(parquet, "_ROWS_AT_ONCE", batch_rows)
    monkeypatch.setattr(parquet_files, "_GROUP_ROWS", group_rows)

    parts = write_files(files, ParquetFormat(), operations, tmp_path, ParquetFiles())

    assert read_table(as_files(parts), ParquetFormat()).equals(whole)
    assert pa.Table.from_batches(read_batches(files, ParquetFormat(), operations), whole.schema).equals(whole)


SPLIT = [Selection(probability=0.8, seed=3, complement=each) for each in (False, True)]
SMALL = Filter(RecordField("n") < 12)
CHAINS = [
    [HALF, SPLIT[0]],
    [HALF, SPLIT[1]],
    [SMALL, SPLIT[0], DropColumns(("s",))],
    [SMALL, SPLIT[1], Take(3)],
    [KeepColumns(("s",)), Skip(2)],
    [Take(0)],
]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=2), st.permutations(CHAINS), st.integers(2, 6))
@settings(per_example_folder, max_examples=8)
@pytest.mark.parametrize("target", [ParquetFiles(), CsvFiles(separator=";")])
@pytest.mark.parametrize("format_", [ParquetFormat(), DelimitedFormat()])
def test_parts_written_in_one_pass_are_those_written_one_by_one(tmp_path, format_, target, counts, chains, number):
    chains = chains[:number]
    tables = [pa.table({"n": range(count), "s": [f"0{n % 2}" for n in range(count)]}) for count in counts]
    if isinstance(format_, ParquetFormat):
        files = parquet_dataset(tmp_path, *tables, row_group_size=7)
    else:
        rows = ["".join(f"{row['n']},{row['s']}\n" for row in table.to_pylist()) for table in tables]
        files = text_files(tmp_path, *(f"n,s\n{each}" for each in rows))
    folders = [tmp_path / str(place) for place in range(number)]
    for each in folders:
        each.mkdir(exist_ok=True)

    together = write_parts(files, format_, list(zip(chains, folders, strict=True)), target)

    for operations, parts in zip(chains, together, strict=True):
        alone = write_files(files, format_, operations, tmp_path, target)
        assert [part.read_bytes() for part in parts] == [part.read_bytes() for part in alone]


PEAK = """
import re, sys
from pathlib import Path
from airflow_aml_data.core.formats import CsvFiles, DelimitedFormat, ParquetFiles, ParquetFormat
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.core.tabular import TableFile, write_parts

path = Path(sys.argv[1])
split = [[Selection(probability=0.8, seed=1, complement=each)] for each in (False, True)]
folders = [path.parent / "train", path.parent / "test"]
for each in folders:
    each.mkdir(exist_ok=True)
format_, target = (DelimitedFormat(), CsvFiles()) if path.suffix == ".csv" else (ParquetFormat(), ParquetFiles())
write_parts([TableFile("f", path)], format_, list(zip(split, folders)), target)
assert "pandas" not in sys.modules, "it takes a second and 40 MB"
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    """Four times the rows, 60 MB of text instead of 15, in little more memory."""
    peaks = []
    for rows in (500_000, 2_000_000):
        table = pa.table({"n": range(rows), "m": range(5, rows + 5), "s": ["setosa", "a longer name"] * (rows // 2)})
        path = tmp_path / f"rows.{kind}"
        if kind == "csv":
            pa.csv.write_csv(table, path)
        else:
            pq.write_table(table, path, row_group_size=100_000)
        printed = subprocess.run([sys.executable, "-c", PEAK, path], check=True, stdout=subprocess.PIPE, text=True)
        peaks.append(int(printed.stdout) // 1024)

    assert peaks[1] < peaks[0] + 24


def test_only_the_columns_that_are_needed_are_read(tmp_path):
    """Reading a column that is not asked for would fail: its data is damaged."""
    files = parquet_dataset(tmp_path, pa.table({"bad": range(10_000), "good": range(10_000)}), compression="zstd")
    data = bytearray(files[0].path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    files[0].path.write_bytes(data)

    assert read_table(files, ParquetFormat(), [KeepColumns(("good",)), Take(1)]).to_pylist() == [{"good": 0}]
    with pytest.raises(DataNotReadable, match=r"^Invalid Parquet file f0\. Corrupt data\.$"):
        read_table(files, ParquetFormat())


def test_a_column_of_the_path_that_the_data_has_too_is_refused(tmp_path):
    [file] = parquet_dataset(tmp_path, pa.table({"Path": [1]}))

    with pytest.raises(InvalidDeclaration, match="column 'Path' already"):
        read_table([file._replace(columns=(("Path", "/x"),))], ParquetFormat())


def test_columns_of_the_path_are_the_first_of_a_parquet_file(tmp_path):
    [file] = parquet_dataset(tmp_path, pa.table({"a": [1, 2]}))
    file = file._replace(columns=(("Path", "/x"), ("day", None)))

    assert read_table([file], ParquetFormat(), [Skip(1)]).to_pylist() == [{"Path": "/x", "day": None, "a": 2}]


def test_a_parquet_file_that_changes_while_it_is_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS_AT_ONCE", 10)
    files = parquet_dataset(tmp_path, pa.table({"a": range(100)}))
    batches = read_batches(files, ParquetFormat())
    next(batches)

    with files[0].path.open("ab") as stream:
        stream.write(b"more")

    with pytest.raises(DataChanged, match=r"^f0 changed while it was read"):
        list(batches)


def test_take_stops_reading(tmp_path):
    files = text_files(tmp_path, "a\n1\n2\n", "a\n3\n")
    missing = TableFile("gone", tmp_path / "gone.parquet")
    parquet_files_ = [*parquet_dataset(tmp_path, pa.table({"a": [1, 2]}))]

    assert read_table(files, DelimitedFormat(), [Take(3)]).column("a").to_pylist() == [1, 2, 3]
    rows = read_batches(parquet_files_, ParquetFormat(), [Take(1)])
    assert sum(batch.num_rows for batch in rows) == 1
    with pytest.raises(FileNotFoundError):
        read_table([missing], ParquetFormat(), [Take(0)])


@pytest.mark.parametrize("format_", [DelimitedFormat(), ParquetFormat()])
def test_on_error_is_null_or_fail(format_):
    with pytest.raises(InvalidDeclaration, match="'null' or 'fail', found 'ignore'"):
        read_table([], format_, on_error="ignore")


def test_a_parquet_column_without_values_has_the_type_of_the_other_files(tmp_path):
    files = parquet_dataset(
        tmp_path, pa.table({"a": pa.nulls(1)}), pa.table({"a": ["x"]}), pa.table({"a": pa.nulls(1)})
    )

    assert read_table(files, ParquetFormat()).equals(pa.table({"a": [None, "x", None]}))


def test_types_of_parquet_columns_can_be_set(tmp_path):
    table = pa.table(
        {"n": ["07", "x", None], "t": ["31/01/2020", "01/02/2020", None], "i": [1, 0, 2], "d": [date(2020, 1, 1)] * 3}
    )
    layout = ParquetFormat(
        set_column_types={
            "n": DataType.to_long(),
            "t": DataType.to_datetime(),
            "i": DataType.to_string(),
            "d": DataType.to_datetime(),
            "zzz": DataType.to_bool(),
        }
    )
    files = parquet_dataset(tmp_path, table)

    with pytest.warns(
        UserWarning, match=r"^f0: 1 value of column 'n' became null, being no int64; the first is 'x' in row 2"
    ):
        back = read_table(files, layout)

    assert back.column("n").to_pylist() == [7, None, None]
    assert back.column("t").to_pylist() == [datetime(2020, 1, 31), datetime(2020, 2, 1), None]
    assert back.column("i").to_pylist() == ["1", "0", "2"]
    assert back.schema.field("d").type == pa.timestamp("ns")
    with pytest.raises(DataNotReadable, match=r"^f0, row 2: 'x' in column 'n' is no int64"):
        read_table(files, layout, on_error="fail")
    with pytest.warns(UserWarning, match="'n'"):
        [part] = write_files(files, layout, [], tmp_path, ParquetFiles())
    assert pq.read_table(part).equals(back)
