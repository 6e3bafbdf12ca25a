"""Conditions written as text, against Python itself."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.expressions import holds
from airflow_aml_data.core.filter_text import parse_filter
from airflow_aml_data.errors import InvalidDeclaration

comparisons = st.builds(
    lambda turned, operator, value: f"{value} {operator} col('a')" if turned else f"col('a') {operator} {value}",
    st.booleans(),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
    st.integers(-3, 3),
) | st.builds(lambda low, high: f"{low} <= b < {high}", st.integers(-3, 3), st.integers(-3, 3))
texts = st.recursive(
    comparisons,
    lambda inner: (
        st.builds("({}) {} ({})".format, inner, st.sampled_from(["and", "or"]), inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=6,
)


@given(text=texts, a=st.integers(-3, 3), b=st.integers(-3, 3))
def test_means_what_python_means(text, a, b):
    expected = eval(text, {"col": {"a": a}.__getitem__, "b": b})
    assert holds(parse_filter(text), {"a": a, "b": b}) is expected


@pytest.mark.parametrize(
    ("text", "record", "expected"),
    [
        ('col("temperature") > 32 and col("location") == "UK"', {"temperature": 33, "location": "UK"}, True),
        ("(col('a') == 1) | (col('a') == 2) & ~(col('b') == 1)", {"a": 2, "b": 1}, False),
        ("day >= datetime(2024, 1, 31, 12)", {"day": datetime(2024, 1, 31, 13)}, True),
        ("col('a').starts_with('x') and col('a').contains('y') and a.ends_with('z')", {"a": "xyz"}, True),
        ("col('a').startswith('y')", {"a": "xyz"}, False),
        ("is_null(col('a')) and col('b').is_null() and a == None", {"a": None, "b": None}, True),
        ("a != None", {"a": 1}, True),
        ("a == True", {"a": True}, True),
        ("a > -1.5\n", {"a": -1}, True),
    ],
)
def test_what_can_be_said(text, record, expected):
    assert holds(parse_filter(text), record) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a >",
        "a",
        "True",
        "1 > 2",
        "a == b",
        "a in [1, 2]",
        "a == [1]",
        "a + 1 == 2",
        "open('/etc/passwd')",
        "a.__class__ == 1",
        "col('a').contains()",
        "col('a').contains(5)",
        "col(a) == 1",
        "col('') == 1",
        "col('a').contains('x', sep='y')",
        "(lambda: 1)() == a",
        "a == datetime(2024, 13, 1)",
        "a == datetime('x')",
        "a == 1j",
        "a == b'x'",
        "a\0 == 1",
        "(" * 5000 + "a == 1" + ")" * 5000,
        "a == 1 and " * 2000 + "a == 1",
        None,
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(InvalidDeclaration):
        parse_filter(text)
