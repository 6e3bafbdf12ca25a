"""Conditions on columns: for every row the answer that :func:`.holds` gives for it as a record."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from operator import ge, gt, le, lt
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_aml_data.core.expressions import Combination, Comparison, Expression, Negation, holds
from airflow_aml_data.errors import InvalidDeclaration

_COMPARE: dict[str, Callable[[pa.Array, pa.Scalar], pa.Array]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_TEXT: dict[str, Callable[..., pa.Array]] = {
    "starts_with": pc.starts_with,
    "ends_with": pc.ends_with,
    "contains": pc.match_substring,
}
_EPOCH = datetime(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def rows_that_meet(expression: Expression, batch: pa.RecordBatch) -> pa.BooleanArray:
    """Whether each row meets the condition; null where a null leaves that open.

    :raises InvalidDeclaration: for a column the batch has not, or one of another type than the value beside it.
    """
    match expression:
        case Comparison():
            return _compared(expression, batch)
        case Combination(operator="and"):
            return pc.and_kleene(rows_that_meet(expression.left, batch), rows_that_meet(expression.right, batch))
        case Combination():
            return pc.or_kleene(rows_that_meet(expression.left, batch), rows_that_meet(expression.right, batch))
        case Negation():
            return pc.invert(rows_that_meet(expression.inner, batch))
    raise InvalidDeclaration(f"filter wants a condition such as dataset['a'] > 1, found {expression!r}.")


def _compared(comparison: Comparison, batch: pa.RecordBatch) -> pa.BooleanArray:
    if comparison.of_file:
        raise InvalidDeclaration(f"filter asks a table for file_metadata({comparison.field!r}), which only files have.")
    if comparison.field not in batch.schema.names:
        raise InvalidDeclaration(f"filter asks for {comparison.field!r}. There are: {', '.join(batch.schema.names)}.")
    column = batch.column(comparison.field)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    operator, value, type_ = comparison.operator, comparison.value, column.type
    if operator == "is_null":
        return column.is_null()
    if pa.types.is_null(type_):
        return pa.nulls(len(column), pa.bool_())
    if isinstance(value, str) and (pa.types.is_string(type_) or pa.types.is_large_string(type_)):
        return (
            _TEXT[operator](column, value) if operator in _TEXT else _COMPARE[operator](column, pa.scalar(value, type_))
        )
    if operator in _TEXT:
        return _row_by_row(comparison, column)
    if isinstance(value, datetime) and pa.types.is_temporal(type_) and not pa.types.is_time(type_):
        return _compare_times(column, operator, value)
    if isinstance(value, int | float):
        if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
            return _compare_integers(column, operator, value)
        if pa.types.is_floating(type_):
            return _compare_floats(pc.cast(column, pa.float64()), operator, value)
        if pa.types.is_decimal(type_):
            return _row_by_row(comparison, column)
    raise InvalidDeclaration(
        f"filter compares column {comparison.field!r}, which is {type_}, with {value!r}, which is "
        f"{type(value).__name__}. Give a value of the column's type."
    )


def _row_by_row(comparison: Comparison, column: pa.Array) -> pa.BooleanArray:
    answers = (holds(comparison, {comparison.field: value}) for value in column.to_pylist())
    return pa.array(answers, pa.bool_())


def _compare_integers(column: pa.Array, operator: str, value: float | Fraction) -> pa.BooleanArray:
    """Compare with any number as Python does: exactly, where Arrow would go by the nearest double."""
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.uint8())
    whole = math.floor(value)
    if whole != value:  # x < 2.5 is x <= 2; x > 2.5 is x > 2
        if operator in ("==", "!="):
            return _always(column, operator == "!=")
        operator = {"<": "<=", ">=": ">"}.get(operator, operator)
    try:
        bound = pa.scalar(whole, column.type)
    except (OverflowError, pa.ArrowInvalid):  # past all values that the type can hold
        return _always(column, operator == "!=" or (operator in _ORDER and _ORDER[operator](0, whole)))
    return _COMPARE[operator](column, bound)


def _compare_floats(column: pa.Array, operator: str, value: float) -> pa.BooleanArray:
    try:
        nearest = float(value)
    except OverflowError:
        nearest = math.inf if value > 0 else -math.inf
    if nearest != value:  # no double is equal to it: the nearest one lies on one side
        if operator in ("==", "!="):
            return _always(column, operator == "!=")
        strict = nearest > value if operator[0] == "<" else nearest < value
        operator = operator[0] if strict else operator[0] + "="
    return _COMPARE[operator](column, pa.scalar(nearest))


def _compare_times(column: pa.Array, operator: str, value: datetime) -> pa.BooleanArray:
    """Compare days and times; those without a zone are UTC."""
    if pa.types.is_date(column.type):
        column = pc.cast(column, pa.timestamp("ms") if pa.types.is_date64(column.type) else pa.timestamp("s"))
    if value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    microseconds = (value - _EPOCH) // timedelta(microseconds=1)
    return _compare_integers(
        column.view(pa.int64()), operator, Fraction(microseconds * _PER_SECOND[column.type.unit], 10**6)
    )


def _always(column: pa.Array, answer: bool) -> pa.BooleanArray:
    return pc.if_else(column.is_valid(), pa.scalar(answer), pa.scalar(None, pa.bool_()))
