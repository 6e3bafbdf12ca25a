"""Operations on records: conditions, counts, times; on files here, on tables in the tests of tables."""

from __future__ import annotations

import json
import operator
import os
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data import Dataset, Datastore, Workspace
from airflow_aml_data.core.expressions import (
    FILE_METADATA,
    RecordField,
    expression_from_json,
    expression_to_json,
    holds,
)
from airflow_aml_data.core.operations import (
    DropColumns,
    Filter,
    KeepColumns,
    Skip,
    Take,
    kept_columns,
    operation_from_json,
    operation_to_json,
)
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.errors import DatasetTimestampMissingError, InvalidDeclaration

NOWHERE = Datastore(Workspace("no_such_connection"), "store")
FILES = Dataset.File.from_files((NOWHERE, "data"))
TABLE = Dataset.Tabular.from_delimited_files((NOWHERE, "data.csv"))
MOMENT = datetime(2024, 5, 6, 7, 8, 9)

values = st.one_of(st.text(max_size=5), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
fields = st.sampled_from(["a", "b"]).map(RecordField)
comparisons = st.one_of(
    st.builds(lambda f, v: f == v, fields, values),
    st.builds(lambda f, v: f < v, fields, values),
    st.builds(lambda f, v: f >= v, fields, st.datetimes()),
    st.builds(lambda f, v: f.contains(v), fields, st.text(max_size=3)),
    st.builds(lambda f: f.is_null(), fields),
)
expressions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=4,
)


class TestConditions:
    @given(expressions)
    def test_they_survive_json(self, expression):
        assert expression_from_json(json.loads(json.dumps(expression_to_json(expression)))) == expression

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            (RecordField("n") == 3, True),
            (RecordField("n") != 3, False),
            (RecordField("n") < 3, False),
            (RecordField("n") <= 3.5, True),
            (RecordField("n") > 2, True),
            (RecordField("n") >= 4, False),
            (RecordField("t").starts_with("Ab"), True),
            (RecordField("t").starts_with("ab"), False),
            (RecordField("t").ends_with("c"), True),
            (RecordField("t").contains("b"), True),
            (RecordField("d") >= date(2024, 5, 6), True),
            (RecordField("d") < datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), False),
            (RecordField("none") == 3, None),
            (~(RecordField("none") == 3), None),
            (RecordField("none").is_null(), True),
            (RecordField("n").is_null(), False),
            ((RecordField("none") == 3) & (RecordField("n") == 4), False),
            ((RecordField("none") == 3) | (RecordField("n") == 3), True),
            ((RecordField("none") == 3) & (RecordField("n") == 3), None),
        ],
    )
    def test_they_decide_on_a_record(self, condition, expected):
        assert holds(condition, {"n": 3, "t": "Abc", "d": MOMENT, "none": None}) is expected

    def test_python_s_own_words_for_them_are_refused(self):
        """``a and b`` would silently be ``b``."""
        for combine in (lambda: (TABLE["a"] > 1) and (TABLE["b"] < 2), lambda: not (TABLE["a"] > 1)):
            with pytest.raises(InvalidDeclaration, match=r"&, \| and ~"):
                combine()
        with pytest.raises(InvalidDeclaration, match="compare it"):
            bool(TABLE["a"])

    @pytest.mark.parametrize("value", [None, float("nan"), object(), [1]])
    def test_values_that_nothing_can_be_compared_with_are_refused(self, value):
        with pytest.raises(InvalidDeclaration, match="is_null"):
            operator.eq(TABLE["a"], value)

    def test_a_value_of_another_type_is_an_error_that_names_both(self):
        with pytest.raises(InvalidDeclaration, match="'a', which is str, with 3"):
            holds(RecordField("a") > 3, {"a": "x"})

    def test_files_and_tables_have_different_fields(self):
        with pytest.raises(InvalidDeclaration, match=r"Size.*Extension"):
            FILES.file_metadata("Colour")
        with pytest.raises(InvalidDeclaration, match="table"):
            TABLE.filter(FILES.file_metadata("Size") > 1)
        with pytest.raises(InvalidDeclaration, match="file_metadata"):
            FILES.filter(TABLE["a"] > 1)
        with pytest.raises(InvalidDeclaration, match="condition"):
            TABLE.filter("a > 1")


@pytest.mark.parametrize(
    "operation",
    [
        Take(3),
        Skip(0),
        Filter((RecordField("a") > 1) & ~RecordField("b").is_null()),
        KeepColumns(("a", "b")),
        DropColumns(("a",)),
        Selection(probability=0.5, seed=-(2**80), complement=True),
    ],
)
def test_operations_survive_json(operation):
    assert operation_from_json(json.loads(json.dumps(operation_to_json(operation)))) == operation


def test_operations_of_another_release_are_an_error():
    with pytest.raises(InvalidDeclaration, match="another release"):
        operation_from_json({"shuffle": 1})


def test_kept_columns_are_in_the_order_of_the_data_and_unknown_ones_are_ignored():
    operations = [KeepColumns(("c", "a", "x")), DropColumns(("c", "y"))]

    assert kept_columns(["a", "b", "c"], operations) == ["a"]
    with pytest.raises(InvalidDeclaration, match="There are: a"):
        kept_columns(["a", "b", "c"], [*operations, KeepColumns(("b",))])


@pytest.mark.parametrize("count", [-1, 1.5, "x", None, True])
@pytest.mark.parametrize("call", [TABLE.take, TABLE.skip, FILES.take, FILES.skip])
def test_counts_are_whole_numbers_of_at_least_0(call, count):
    with pytest.raises(InvalidDeclaration, match="count must be a positive integer"):
        call(count)


def test_a_count_may_be_a_template_that_a_step_renders(datastore):
    asked = Dataset.File.from_files((datastore, "d")).take("{{ params.n }}")

    assert asked.operations == (Take("{{ params.n }}"),)
    with pytest.raises(InvalidDeclaration, match="template"):
        asked.to_path()


@given(st.integers(0, 12), st.integers(0, 12))
def test_take_and_skip_are_slices(taken, skipped):
    from airflow_aml_data.core.files import _chosen

    files = [(None, number) for number in range(10)]

    assert _chosen(files, [Skip(skipped), Take(taken)]) == files[skipped:][:taken]


class TestFiles:
    @pytest.fixture(autouse=True)
    def stored(self, datastore, put):
        self.store = datastore
        put({"d/a.txt": "1", "d/b.jpg": "22", "d/c.jpg": "333", "d/none": "4444"})
        self.files = Dataset.File.from_files((datastore, "d"))

    def test_they_are_filtered_by_what_is_known_of_them(self):
        size, extension = self.files.file_metadata("Size"), self.files.file_metadata("Extension")

        assert self.files.filter(size >= 3).to_path() == ["/c.jpg", "/none"]
        assert self.files.filter(extension == ".jpg").take(1).to_path() == ["/b.jpg"]
        assert self.files.filter((extension == "") | (size < 2)).to_path() == ["/a.txt", "/none"]
        assert self.files.filter(operator.eq(self.files.file_metadata("CanSeek"), True)).skip(3).to_path() == ["/none"]
        assert len(self.files.to_path()) == 4

    def test_they_are_filtered_by_when_they_were_written(self, steps):
        os.utime(steps.root / "d" / "a.txt", (0, 1_000_000_000))
        for name in ("LastModifiedTime", "CreationTime"):
            asked = self.files.filter(self.files.file_metadata(name) < datetime(2002, 1, 1))
            assert asked.to_path() == ["/a.txt"]

    def test_every_property_has_a_value(self):
        for name in FILE_METADATA:
            assert self.files.filter(~self.files.file_metadata(name).is_null()).to_path() == self.files.to_path()

    def test_a_filter_that_leaves_none_gives_no_file(self):
        assert self.files.filter(self.files.file_metadata("Size") > 99).to_path() == []


class TestTimes:
    def test_time_filters_need_a_timestamp_column(self):
        for call in (
            lambda: TABLE.time_before(MOMENT),
            lambda: TABLE.time_after(MOMENT),
            lambda: TABLE.time_between(MOMENT, MOMENT),
            lambda: TABLE.time_recent(timedelta(days=1)),
        ):
            with pytest.raises(
                DatasetTimestampMissingError, match=r"`time_\w+` on dataset without timestamp columns defined"
            ):
                call()

    def test_timestamp_columns_are_two(self):
        with pytest.raises(InvalidDeclaration, match="can be assigned only if timestamp is assigned"):
            TABLE.with_timestamp_columns(partition_timestamp="p")
        with pytest.raises(InvalidDeclaration, match="cannot be the same as timestamp"):
            TABLE.with_timestamp_columns("t", "t")

    @pytest.mark.parametrize(
        ("call", "inside", "outside"),
        [
            (lambda d, b: d.time_before(MOMENT.replace(microsecond=500_000), b), -1, 1),
            (lambda d, b: d.time_before(MOMENT - timedelta(microseconds=400_000), b), -1, 1),
            (lambda d, b: d.time_after(MOMENT.replace(microsecond=900_000), b), 1, -1),
        ],
    )
    @pytest.mark.parametrize("boundary", [True, False])
    def test_bounds_are_cut_to_the_second(self, call, inside, outside, boundary):
        operation = call(TABLE.with_timestamp_columns("t"), boundary).operations[0]

        def kept(seconds):
            return holds(operation.expression, {"t": MOMENT + timedelta(seconds=seconds)})

        assert (kept(inside), kept(0), kept(outside)) == (True, boundary, False)

    def test_a_reversed_between_is_empty(self):
        between = TABLE.with_timestamp_columns("t").time_between(MOMENT, MOMENT - timedelta(days=1))

        assert not all(holds(each.expression, {"t": MOMENT}) for each in between.operations)

    def test_recent_counts_from_when_the_data_is_read(self, workspace, datastore, put):
        now = datetime.now()
        rows = "".join(f"{(now - timedelta(hours=h)).isoformat(timespec='seconds')},{h}\n" for h in range(0, 48, 10))
        put({"t.csv": f"t,h\n{rows}"})
        table = Dataset.Tabular.from_delimited_files((datastore, "t.csv")).with_timestamp_columns("t")

        assert list(table.time_recent(timedelta(hours=15)).to_pandas_dataframe()["h"]) == [0, 10]

    def test_a_registered_table_remembers_its_timestamp_column(self, workspace, datastore, put):
        put({"t.csv": "t,n\n2024-01-01,1\n2024-02-01,2\n", "u.csv": "n\n1\n"})
        table = Dataset.Tabular.from_delimited_files((datastore, "t.csv")).with_timestamp_columns("t")
        table.register(workspace, "timed")
        Dataset.Tabular.from_delimited_files((datastore, "u.csv")).register(workspace, "untimed")
        timed, untimed = Dataset.get_by_name(workspace, "timed"), Dataset.get_by_name(workspace, "untimed")

        frame = timed.time_after(datetime(2024, 1, 15)).to_pandas_dataframe()

        assert list(frame["n"]) == [2]
        assert list(frame.index) == [datetime(2024, 2, 1)]
        with pytest.raises(DatasetTimestampMissingError):
            untimed.time_after(datetime(2024, 1, 15)).to_pandas_dataframe()
        assert len(untimed.to_pandas_dataframe()) == 1

    @pytest.mark.parametrize("column", ["n", "nope"])
    def test_a_timestamp_column_that_is_none_is_an_error_when_the_table_is_read(self, datastore, put, column):
        put({"t.csv": "t,n\n2024-01-01,1\n"})
        table = Dataset.Tabular.from_delimited_files((datastore, "t.csv")).with_timestamp_columns(column)

        with pytest.raises(DatasetTimestampMissingError, match=f"{column!r} is (int64|missing)"):
            table.to_pandas_dataframe()
        assert len(table.drop_columns(column).to_pandas_dataframe()) == 1

    def test_times_that_nanoseconds_cannot_count_are_kept(self, datastore, put):
        put({"9999/1.csv": "a\n1\n", "2020/1.csv": "a\n2\n"})
        paths = [(datastore, "9999/1.csv"), (datastore, "2020/1.csv")]
        table = Dataset.Tabular.from_delimited_files(paths, partition_format="/{year:yyyy}/1.csv")

        assert [each.year for each in table.to_pandas_dataframe()["year"]] == [9999, 2020]
