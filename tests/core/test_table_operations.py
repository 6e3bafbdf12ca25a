"""Operations on the rows of tables: the same rows whatever the batches, and as sections 6 and 7 say."""

from __future__ import annotations

import operator
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_aml_data.core.expressions import RecordField
from airflow_aml_data.core.operations import DropColumns, Filter, KeepColumns, Skip, Take
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.core.tabular.rows import Chain, Chains, columns_to_read
from airflow_aml_data.errors import InvalidDeclaration

operations = st.lists(
    st.one_of(
        st.builds(Take, st.integers(0, 40)),
        st.builds(Skip, st.integers(0, 40)),
        st.builds(Selection, probability=st.sampled_from([0.0, 0.3, 0.8, 1.0]), seed=st.integers(0, 3)),
        st.builds(Selection, probability=st.just(0.3), seed=st.just(1), complement=st.just(True)),
        st.just(Filter(operator.eq(RecordField("odd"), True))),
        st.just(Filter(RecordField("n") < 30)),
    ),
    max_size=4,
)
files = st.lists(st.integers(0, 40), min_size=1, max_size=3)


def rows_left(counts, chain_operations, batch_rows):
    """The numbers of the rows that are left of files of so many rows."""
    chain = Chain(chain_operations)
    left, number = [], 0
    for ordinal, count in enumerate(counts):
        chain.start_file(ordinal)
        for start in range(0, count, batch_rows):
            numbers = range(number + start, number + min(count, start + batch_rows))
            batch = pa.record_batch({"n": list(numbers), "odd": [each % 2 == 1 for each in numbers]})
            left += chain.apply(batch).column("n").to_pylist()
        number += count
    return left


def reference(counts, chain_operations):
    """The same in plain Python: each operation over all that reaches it."""
    starts = np.cumsum([0, *counts])
    rows = [(file, n) for file, count in enumerate(counts) for n in range(starts[file], starts[file] + count)]
    for each in chain_operations:
        match each:
            case Take(count):
                rows = rows[:count]
            case Skip(count):
                rows = rows[count:]
            case Selection():
                kept = []
                for file in range(len(counts)):
                    reaching = [row for row in rows if row[0] == file]
                    kept += [
                        row for row, keep in zip(reaching, each.mask(len(reaching), stream=file), strict=True) if keep
                    ]
                rows = kept
            case Filter(expression):
                rows = [(f, n) for f, n in rows if (n % 2 == 1 if expression.field == "odd" else n < 30)]
    return [n for _, n in rows]


@given(files, operations, st.integers(1, 17))
@settings(deadline=None, max_examples=200)
def test_the_same_rows_are_left_whatever_the_batches(counts, chain_operations, batch_rows):
    assert rows_left(counts, chain_operations, batch_rows) == reference(counts, chain_operations)


@given(files, st.lists(operations, min_size=1, max_size=3), operations, st.integers(1, 17))
@settings(deadline=None, max_examples=200)
def test_chains_that_are_applied_together_leave_what_each_leaves_alone(counts, chains, beginning, batch_rows):
    chains = [[*beginning, *each] for each in chains]
    together, left, number = Chains(chains), [[] for _ in chains], 0
    for ordinal, count in enumerate(counts):
        together.start_file(ordinal)
        for start in range(0, count, batch_rows):
            numbers = range(number + start, number + min(count, start + batch_rows))
            batch = pa.record_batch({"n": list(numbers), "odd": [each % 2 == 1 for each in numbers]})
            for found, part in zip(left, together.apply(batch), strict=True):
                found += part.column("n").to_pylist()
        number += count

    assert left == [rows_left(counts, each, batch_rows) for each in chains]


@given(st.integers(0, 200), st.floats(0, 1), st.integers(-5, 5), st.integers(1, 50))
@settings(deadline=None)
def test_both_parts_of_a_split_are_disjoint_complete_and_ordered(count, probability, seed, batch_rows):
    """Section 7, item 2."""
    one, other = (
        rows_left([count], [Selection(probability=probability, seed=seed, complement=each)], batch_rows)
        for each in (False, True)
    )

    assert sorted(one + other) == list(range(count))
    assert one == sorted(one)
    assert other == sorted(other)


@given(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), st.integers(0, 9))
@settings(deadline=None)
def test_a_smaller_sample_lies_within_a_larger_one(probabilities, seed):
    """Section 7, item 3."""
    small, large = (rows_left([100], [Selection(probability=each, seed=seed)], 7) for each in probabilities)

    assert set(small) <= set(large)


@pytest.mark.slow
def test_a_sample_is_the_same_in_another_process():
    """G52."""
    script = (
        "from tests.core.test_table_operations import rows_left; from airflow_aml_data.core.selection import Selection;"
        "print(rows_left([500, 500], [Selection(probability=0.5, seed=42), Selection(probability=0.1, seed=42)], 33))"
    )

    printed = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True).stdout

    here = rows_left([500, 500], [Selection(probability=0.5, seed=42), Selection(probability=0.1, seed=42)], 1000)
    assert printed.strip() == str(here)


def test_take_says_when_no_further_row_is_kept():
    chain = Chain([Selection(probability=1.0, seed=1), Take(3), Filter(RecordField("n") > 1)])
    chain.start_file(0)

    chain.apply(pa.record_batch({"n": [1, 2]}))
    assert not chain.finished
    chain.apply(pa.record_batch({"n": [3, 4]}))
    assert chain.finished


def test_columns_are_kept_and_dropped_in_the_order_of_the_operations():
    """Section 6: source order, unknown ignored."""
    chain = Chain([DropColumns(("b", "zzz")), Filter(RecordField("c") > 1), KeepColumns(("c", "a", "zzz"))])

    left = chain.apply(pa.record_batch({"a": [1, 2], "b": [1, 2], "c": [1, 2]}))

    assert left.to_pylist() == [{"a": 2, "c": 2}]


@pytest.mark.parametrize(
    ("chain_operations", "named"),
    [
        ([DropColumns(("a",)), Filter(RecordField("a") > 1)], r"'a'\. There are: b"),
        ([KeepColumns(("zzz",))], r"\['zzz'\].*a, b"),
    ],
)
def test_columns_that_are_not_there_are_refused(chain_operations, named):
    with pytest.raises(InvalidDeclaration, match=named):
        Chain(chain_operations).apply(pa.record_batch({"a": [1], "b": [1]}))


def test_only_columns_that_are_kept_or_looked_at_are_read():
    filtered = Filter((RecordField("b") > 1) & (RecordField("c") > 1))

    assert columns_to_read(["a", "b", "c", "d"], [filtered, KeepColumns(("d", "b"))]) == ["b", "c", "d"]
