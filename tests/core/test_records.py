"""What a script reports: metrics in v1's shapes, as JSON that any database takes."""

from __future__ import annotations

import json
import math
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.records import PARENT, Record, append, fitting, metrics_of, metrics_of_step, plain, read
from airflow_aml_data.core.records import settings_of as settings_of_run


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (pd.Series([1.5, None]), [1.5, "nan"]),
        (np.bool_(True), True),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        ({1: (2, {3})}, {"1": [2, [3]]}),
        (date(2020, 1, 2), "2020-01-02"),
        (None, None),
    ],
)
def test_a_value_becomes_what_json_has(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=10))
def test_whatever_is_logged_is_json_without_nan(value):
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == plain(value)


def test_metrics_have_v1s_shapes():
    records = [
        Record(name="once", value=1),
        Record(name="loss", value=2),
        Record(name="loss", value=1),
        Record(name="list", kind="list", value=[5]),
        Record(name="growing", kind="list", value=[1, 2]),
        Record(name="growing", kind="list", value=[3]),
        Record(name="row", kind="columns", value={"a": [1], "b": ["x"]}),
        Record(name="table", kind="columns", value={"a": [1, 2], "b": [3]}),
        Record(name="table", kind="columns", value={"c": [4]}),
    ]
    assert metrics_of(records) == {
        "once": 1,
        "loss": [2, 1],
        "list": [5],
        "growing": [1, 2, 3],
        "row": {"a": [1], "b": ["x"]},
        "table": {"a": [1, 2, None], "b": [3, None, None], "c": [None, None, 4]},
    }


def test_a_steps_metrics_hold_those_of_its_parent_and_children():
    records = [
        Record(name="accuracy", value=0.9),
        Record(name="accuracy", value=0.9, run=PARENT),
        Record(name="rows", value=10, run=PARENT),
        Record(name="loss", value=1),
        Record(name="loss", value=2, run=PARENT),
        Record(name="loss", value=3, run="fold"),
    ]
    assert metrics_of_step(records) == {"accuracy": 0.9, "rows": 10, "loss": 1, "parent.loss": 2, "fold.loss": 3}
    assert metrics_of(records, PARENT) == {"accuracy": 0.9, "rows": 10, "loss": 2}


def test_the_last_value_of_a_tag_counts_and_none_removes_it():
    tags = [
        Record(name=name, kind="tag", value=value) for name, value in (("a", "1"), ("b", "2"), ("a", "3"), ("b", None))
    ]
    assert settings_of_run([*tags, Record(name="c", value=1)], "tag") == {"a": "3"}


def test_what_fits_into_xcom_is_kept_small_metrics_first():
    kept, left_out = fitting({"large": list(range(1000)), "small": 1, "text": "x" * 50}, limit_bytes=100)
    assert (kept, left_out) == ({"small": 1, "text": "x" * 50}, ["large"])


def test_records_are_read_back_and_what_is_none_is_left_out(tmp_path):
    file = tmp_path / "records"
    assert read(file) == []
    append(file, Record(name="a", kind="tag", value="\n\u2028", run="child"))
    with file.open("ab") as out:
        out.write(b'[1]\n{"nam\xff\n{"other": 1}\n{"name": 1}\n{"name": "c", "kind": "columns", "value": {"a": 1}}\n')
        out.write(b'{"name": "l", "kind": "list", "value": 1}\n{"name": "n", "value": NaN}\n')
    append(file, Record(name="b", value=[1]))
    assert read(file) == [
        Record(name="a", kind="tag", value="\n\u2028", run="child"),
        Record(name="n", value="NaN"),
        Record(name="b", value=[1]),
    ]
