"""Conditions on records, as v1's ``filter`` takes them: ``(dataset["age"] > 5) & dataset["name"].starts_with("A")``.

They are values, and plain JSON in a definition; :func:`holds` decides on one record, a table decides on columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Literal

from airflow_aml_data.errors import InvalidDeclaration

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "starts_with", "ends_with", "contains", "is_null"]

FILE_METADATA = ("Size", "LastModifiedTime", "CreationTime", "Extension", "CanSeek")
"""What ``file_metadata`` can be asked for. Source: v1, semantics section 6."""

_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "==": eq,
    "!=": ne,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
    "starts_with": lambda value, text: str(value).startswith(text),
    "ends_with": lambda value, text: str(value).endswith(text),
    "contains": lambda value, text: text in str(value),
}


class Expression:
    """A condition on a record. Combine conditions with ``&``, ``|`` and ``~``."""

    __slots__ = ()

    def __and__(self, other: Expression) -> Expression:
        return Combination(operator="and", left=self, right=_condition(other))

    def __or__(self, other: Expression) -> Expression:
        return Combination(operator="or", left=self, right=_condition(other))

    def __invert__(self) -> Expression:
        return Negation(inner=self)

    def __bool__(self) -> bool:
        raise InvalidDeclaration(
            "A condition has no truth value before data is read. Combine conditions with &, | and ~ instead of and, or "
            'and not, and put each in brackets: (dataset["a"] > 1) & (dataset["b"] < 2).'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Expression):
    """One field compared with a fixed value; a null field is neither equal nor unequal to it.

    :param of_file: The field is one of :data:`FILE_METADATA`, not a column.
    """

    field: str
    operator: Operator
    value: Any = None
    of_file: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination(Expression):
    """Both conditions, or one of them."""

    operator: Literal["and", "or"]
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Negation(Expression):
    """The opposite of a condition; unknown stays unknown."""

    inner: Expression


class RecordField:
    """A column of a table, or a property of a file, to be compared: ``dataset["age"]``, ``dataset.file_metadata("Size")``.

    Source: v1, semantics section 6.
    """

    __slots__ = ("name", "of_file")
    __hash__ = None  # type: ignore[assignment]  # == makes a condition

    def __init__(self, name: str, *, of_file: bool = False) -> None:
        if not isinstance(name, str) or not name:
            raise InvalidDeclaration(f"A field is named by text that is not empty, found {name!r}.")
        if of_file and name not in FILE_METADATA:
            raise InvalidDeclaration(f"Files have no property {name!r}. There are: {', '.join(FILE_METADATA)}.")
        self.name, self.of_file = name, of_file

    def __repr__(self) -> str:
        return f"file_metadata({self.name!r})" if self.of_file else f"dataset[{self.name!r}]"

    def __eq__(self, value: object) -> Expression:  # type: ignore[override]
        return self._compared("==", value)

    def __ne__(self, value: object) -> Expression:  # type: ignore[override]
        return self._compared("!=", value)

    def __lt__(self, value: object) -> Expression:
        return self._compared("<", value)

    def __le__(self, value: object) -> Expression:
        return self._compared("<=", value)

    def __gt__(self, value: object) -> Expression:
        return self._compared(">", value)

    def __ge__(self, value: object) -> Expression:
        return self._compared(">=", value)

    def __bool__(self) -> bool:
        raise InvalidDeclaration(f"{self!r} is no condition by itself: compare it, as in {self!r} == True.")

    def starts_with(self, value: str) -> Expression:
        """Whether the text begins with ``value``; upper and lower case count."""
        return self._compared("starts_with", _text(value))

    def ends_with(self, value: str) -> Expression:
        """Whether the text ends with ``value``."""
        return self._compared("ends_with", _text(value))

    def contains(self, value: str) -> Expression:
        """Whether ``value`` is a part of the text."""
        return self._compared("contains", _text(value))

    def is_null(self) -> Expression:
        """Whether there is no value."""
        return Comparison(field=self.name, operator="is_null", of_file=self.of_file)

    def _compared(self, operator: Operator, value: object) -> Expression:
        return Comparison(field=self.name, operator=operator, value=_value(self, value), of_file=self.of_file)


def fields_of(expression: Expression) -> set[tuple[str, bool]]:
    """The fields a condition looks at, each with whether it is a property of files."""
    match expression:
        case Comparison():
            return {(expression.field, expression.of_file)}
        case Combination():
            return fields_of(expression.left) | fields_of(expression.right)
        case Negation():
            return fields_of(expression.inner)
    raise InvalidDeclaration(f"filter wants a condition such as dataset['a'] > 1, found {expression!r}.")


def holds(expression: Expression, record: Mapping[str, Any]) -> bool | None:
    """Whether a record meets a condition; None when a null leaves that open.

    :raises InvalidDeclaration: for a field the record has not, or values that cannot be compared.
    """
    match expression:
        case Comparison():
            return _compare(expression, record)
        case Combination(operator="and"):
            sides = {holds(expression.left, record), holds(expression.right, record)}
            return False if False in sides else None if None in sides else True
        case Combination():
            sides = {holds(expression.left, record), holds(expression.right, record)}
            return True if True in sides else None if None in sides else False
        case Negation():
            inner = holds(expression.inner, record)
            return None if inner is None else not inner
    raise InvalidDeclaration(f"filter wants a condition such as dataset['a'] > 1, found {expression!r}.")


def expression_to_json(expression: Expression) -> dict[str, Any]:
    """A condition as plain JSON."""
    match expression:
        case Comparison():
            value = expression.value
            plain = {"datetime": value.isoformat()} if isinstance(value, datetime) else value
            return {
                "field": expression.field,
                "of_file": expression.of_file,
                "operator": expression.operator,
                "value": plain,
            }
        case Combination():
            return {expression.operator: [expression_to_json(each) for each in (expression.left, expression.right)]}
        case Negation():
            return {"not": expression_to_json(expression.inner)}
    raise InvalidDeclaration(f"filter wants a condition such as dataset['a'] > 1, found {expression!r}.")


def expression_from_json(content: Mapping[str, Any]) -> Expression:
    """The condition that :func:`expression_to_json` wrote."""
    if "not" in content:
        return Negation(inner=expression_from_json(content["not"]))
    for operator in ("and", "or"):
        if operator in content:
            left, right = (expression_from_json(each) for each in content[operator])
            return Combination(operator=operator, left=left, right=right)
    value = content["value"]
    if isinstance(value, Mapping):
        value = datetime.fromisoformat(value["datetime"])
    return Comparison(
        field=content["field"], operator=content["operator"], value=value, of_file=content.get("of_file", False)
    )


def _compare(comparison: Comparison, record: Mapping[str, Any]) -> bool | None:
    if comparison.field not in record:
        raise InvalidDeclaration(f"filter asks for {comparison.field!r}. There are: {', '.join(record)}.")
    found, value = record[comparison.field], comparison.value
    if comparison.operator == "is_null":
        return found is None
    if found is None:
        return None
    if isinstance(found, datetime) and isinstance(value, datetime) and (found.tzinfo is None) != (value.tzinfo is None):
        # a time without a zone is UTC
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    try:
        return _TESTS[comparison.operator](found, value)
    except TypeError as error:
        raise InvalidDeclaration(
            f"filter compares {comparison.field!r}, which is {type(found).__name__}, with {value!r}. Give a value of its type."
        ) from error


def _condition(value: object) -> Expression:
    if not isinstance(value, Expression):
        raise InvalidDeclaration(f"Only conditions can be combined, found {value!r}. Put each comparison in brackets.")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidDeclaration(f"Text is compared with text, found {value!r}.")
    return value


def _value(field: RecordField, value: object) -> Any:
    if hasattr(value, "item") and not isinstance(value, str):  # a NumPy scalar
        value = value.item()
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime):
        return datetime.fromisoformat(value.isoformat())  # also of a pandas Timestamp
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise InvalidDeclaration(
        f"{field!r} can be compared with text, a finite number, a bool, a date or a datetime, found {value!r}. "
        f"For nulls: {field!r}.is_null()."
    )
