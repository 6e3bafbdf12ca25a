"""Conditions on columns give, row by row, the answer that ``holds`` gives for a record."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.expressions import Combination, Comparison, Negation, RecordField, holds
from airflow_aml_data.core.tabular.conditions import rows_that_meet
from airflow_aml_data.errors import InvalidDeclaration

ORDER = ["==", "!=", "<", "<=", ">", ">="]
TEXT = ["starts_with", "ends_with", "contains"]
EDGES = [0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 255, 10**400, -(10**400)]

whole = st.one_of(st.sampled_from(EDGES), st.integers(-3, 3))
fractions = st.one_of(st.sampled_from([0.5, 1.5, 2.0**53, 2.0**63, 1e300, -0.0]), st.floats(-3, 3))
times = st.datetimes(datetime(1600, 1, 1), datetime(2500, 1, 1)) | st.sampled_from(
    [datetime(2020, 1, 1), datetime(2020, 1, 1, 0, 0, 0, 1)]
)
zoned = times.map(lambda each: each.replace(tzinfo=UTC)) | times.map(
    lambda each: each.replace(tzinfo=timezone(timedelta(hours=2)))
)
texts = st.text("aé\U0001f600%_.", max_size=3)


def nullable(values, type_):
    return st.lists(st.none() | values, max_size=6).map(lambda column: pa.array(column, type_))


def integers_of(type_, low, high):
    return nullable(st.integers(low, high) | st.sampled_from([low, high, 0]), type_)


NUMBERS = st.one_of(
    integers_of(pa.int64(), -(2**63), 2**63 - 1),
    integers_of(pa.uint64(), 0, 2**64 - 1),
    integers_of(pa.int8(), -128, 127),
    nullable(st.booleans(), pa.bool_()),
    nullable(fractions | st.sampled_from([math.nan, math.inf, -math.inf]), pa.float64()),
    nullable(st.sampled_from([0.1, 0.5, 3.0, math.nan]), pa.float32()),
    nullable(st.decimals(-99, 99, places=2), pa.decimal128(6, 2)),
)
LIMITED = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)) | st.just(datetime(2020, 1, 1))
CASES = st.one_of(
    st.tuples(NUMBERS, st.sampled_from(ORDER), st.one_of(whole, fractions, st.booleans())),
    st.tuples(NUMBERS, st.sampled_from(TEXT), st.sampled_from(["1", "-", "."])),
    st.tuples(nullable(texts, pa.string()), st.sampled_from(ORDER + TEXT), texts),
    st.tuples(nullable(texts, pa.large_string()), st.sampled_from(ORDER + TEXT), texts),
    *(
        st.tuples(nullable(LIMITED, pa.timestamp(unit)), st.sampled_from(ORDER), times | zoned)
        for unit in ("ns", "us", "ms")
    ),
    st.tuples(nullable(LIMITED, pa.timestamp("us", tz="UTC")), st.sampled_from(ORDER), times | zoned),
)


@given(CASES)
@settings(deadline=None, max_examples=300)
def test_every_row_gets_the_answer_of_a_record(case):
    column, operator, value = case
    comparison = Comparison(field="a", operator=operator, value=value)

    answers = rows_that_meet(comparison, pa.record_batch([column], ["a"])).to_pylist()

    assert answers == [holds(comparison, {"a": each}) for each in column.to_pylist()]


conditions = st.recursive(
    st.builds(
        Comparison, field=st.sampled_from("ab"), operator=st.sampled_from(["<", "==", "is_null"]), value=st.just(1)
    ),
    lambda inner: (
        st.builds(Negation, inner=inner)
        | st.builds(Combination, operator=st.sampled_from(["and", "or"]), left=inner, right=inner)
    ),
    max_leaves=5,
)


@given(conditions)
@settings(deadline=None)
def test_conditions_combine_as_for_a_record(condition):
    rows = [{"a": a, "b": b} for a in (None, 0, 1) for b in (None, 0, 1)]

    answers = rows_that_meet(condition, pa.RecordBatch.from_pylist(rows)).to_pylist()

    assert answers == [holds(condition, row) for row in rows]


def test_dictionaries_dates_and_columns_of_nulls_can_be_compared():
    batch = pa.record_batch(
        {
            "d": pa.array(["x", None, "y"]).dictionary_encode(),
            "day": pa.array([date(2020, 1, 1), None, date(2020, 1, 2)]),
            "nothing": pa.nulls(3),
        }
    )

    assert rows_that_meet(RecordField("d") == "x", batch).to_pylist() == [True, None, False]
    assert rows_that_meet(RecordField("day") > date(2020, 1, 1), batch).to_pylist() == [False, None, True]
    assert rows_that_meet(RecordField("nothing") > 1, batch).to_pylist() == [None] * 3
    assert rows_that_meet(RecordField("nothing").is_null(), batch).to_pylist() == [True] * 3


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        (pa.array([1]), "x", r"column 'a', which is int64, with 'x', which is str"),
        (pa.array([1.5]), datetime(2020, 1, 1), r"column 'a', which is double, with datetime"),
        (pa.array(["x"]), 1, r"column 'a', which is string, with 1, which is int"),
        (pa.array([True]), "true", r"column 'a', which is bool, with 'true'"),
        (pa.array([datetime(2020, 1, 1)]), "2020-01-01", r"column 'a', which is timestamp\[us\], with '2020-01-01'"),
        (pa.array([[1]]), 1, r"column 'a', which is list"),
        (pa.array([Decimal("1.0")]), "1", r"column 'a', which is decimal"),
    ],
)
@pytest.mark.parametrize("operator", ["==", "<"])
def test_a_value_of_another_type_is_refused_with_column_type_and_value(column, operator, value, named):
    with pytest.raises(InvalidDeclaration, match=named):
        rows_that_meet(Comparison(field="a", operator=operator, value=value), pa.record_batch([column], ["a"]))


def test_what_a_table_has_not_is_refused():
    batch = pa.record_batch({"a": [1], "b": [2]})

    with pytest.raises(InvalidDeclaration, match=r"'zzz'\. There are: a, b"):
        rows_that_meet(RecordField("zzz") == 1, batch)
    with pytest.raises(InvalidDeclaration, match=r"file_metadata\('Size'\)"):
        rows_that_meet(RecordField("Size", of_file=True) == 1, batch)
