"""Conditions written as text, as in MLTable files: ``col("temperature") > 32 and col("location") == "UK"``.

The text is Python's grammar, read as a tree and never run.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

from airflow_aml_data.core.expressions import Expression, RecordField
from airflow_aml_data.errors import InvalidDeclaration

_LONGEST = 10_000  # characters; deeper nesting than that allows is beyond Python's own parser

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_METHODS = {
    "starts_with": "starts_with",
    "startswith": "starts_with",
    "ends_with": "ends_with",
    "endswith": "ends_with",
    "contains": "contains",
    "is_null": "is_null",
}


def parse_filter(text: str) -> Expression:
    """The condition that a text says.

    >>> parse_filter("col('age') >= 18").operator
    '>='

    Columns are ``col("name")`` or a bare name; values are numbers, text, ``True``, ``False``, ``None`` and
    ``datetime(2024, 1, 31)``; joined by ``and``, ``or``, ``not``, ``&``, ``|``, ``~``; also
    ``col("name").starts_with("x")``, ``ends_with``, ``contains`` and ``is_null()``.

    :raises InvalidDeclaration: naming the part that is none of these.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise InvalidDeclaration(f"A filter is text of at most {_LONGEST} characters, found {str(text)[:80]!r}.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidDeclaration(
            f"Filter {text!r} cannot be read ({error}). Example: col('age') > 5 and col('land') == 'UK'."
        ) from error
    return _condition(tree.body)


def _condition(node: ast.expr) -> Expression:
    match node:
        case ast.BoolOp(op=joint, values=[first, *others]):
            found = _condition(first)
            for each in others:
                found = found & _condition(each) if isinstance(joint, ast.And) else found | _condition(each)
            return found
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return _condition(left) & _condition(right)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _condition(left) | _condition(right)
        case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=inner):
            return ~_condition(inner)
        case ast.Compare(left=left, ops=operators, comparators=others):
            return _compared(node, [left, *others], operators)
        case ast.Call(func=ast.Attribute(value=field, attr=method), args=arguments, keywords=[]) if method in _METHODS:
            return _called(node, _value(field), method, arguments)
        case ast.Call(func=ast.Name(id="is_null"), args=[field], keywords=[]):
            return _called(node, _value(field), "is_null", [])
    raise _unknown(node, "is no condition")


def _compared(node: ast.expr, values: list[ast.expr], operators: list[ast.cmpop]) -> Expression:
    found: Expression | None = None
    for (left, right), comparison in zip(pairwise(values), operators, strict=True):
        sides = [_value(left), _value(right)]
        if type(comparison) not in _COMPARISONS or sum(isinstance(each, RecordField) for each in sides) != 1:
            raise _unknown(node, "does not compare a column with a value")
        field, value = sides if isinstance(sides[0], RecordField) else reversed(sides)
        if value is None and isinstance(comparison, ast.Eq | ast.NotEq):
            one = field.is_null() if isinstance(comparison, ast.Eq) else ~field.is_null()
        else:
            one = _COMPARISONS[type(comparison)](*sides)
        found = one if found is None else found & one
    if found is None:
        raise _unknown(node, "is no condition")
    return found


def _called(node: ast.expr, field: Any, method: str, arguments: list[ast.expr]) -> Expression:
    name = _METHODS[method]
    values = [_value(each) for each in arguments]
    if not isinstance(field, RecordField) or len(values) != (name != "is_null"):
        raise _unknown(node, "is no condition")
    found: Expression = getattr(field, name)(*values)
    return found


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Name(id=name):
            return RecordField(name)
        case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str(name))], keywords=[]):
            return RecordField(name)
        case ast.Call(func=ast.Name(id="datetime"), args=parts, keywords=[]):
            return _moment(node, [_value(each) for each in parts])
    raise _unknown(node, "is neither a column nor a value")


def _moment(node: ast.expr, parts: list[Any]) -> datetime:
    try:
        return datetime(*parts)
    except (TypeError, ValueError) as error:
        raise _unknown(node, f"is no time: {error}") from error


def _unknown(node: ast.expr, why: str) -> InvalidDeclaration:
    return InvalidDeclaration(
        f"Filter: {ast.unparse(node)!r} {why}. Allowed: col('a') and names of columns; numbers, text, True, False, None, "
        "datetime(y, m, d); == != < <= > >=; and, or, not; .starts_with(), .ends_with(), .contains(), .is_null()."
    )
