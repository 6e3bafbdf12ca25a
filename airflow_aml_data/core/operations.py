"""What is done to the records of a dataset, in order: samples, splits, takes, filters, columns.

Records are the rows of a table, or the files of a file dataset. Declared operations may hold templates and seeds yet to be
drawn; settled ones are plain data, in a definition as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_aml_data.core.expressions import Expression, expression_from_json, expression_to_json
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.errors import InvalidDeclaration


@dataclass(frozen=True, slots=True)
class Take:
    """The first records, counted over all files; all of them when there are fewer.

    :param count: At least 0; as text it is a template.
    """

    count: int | str


@dataclass(frozen=True, slots=True)
class Skip:
    """All but the first records, counted over all files.

    :param count: At least 0; as text it is a template.
    """

    count: int | str


@dataclass(frozen=True, slots=True)
class Filter:
    """The records that meet a condition."""

    expression: Expression


@dataclass(frozen=True, slots=True)
class KeepColumns:
    """Only these columns, in the order of the data; unknown names are ignored.

    :param columns: None of them in the data is an error when it is read. Source: v1, semantics section 6.
    """

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DropColumns:
    """All columns but these; unknown names are ignored."""

    columns: tuple[str, ...]


Operation = Selection | Take | Skip | Filter | KeepColumns | DropColumns


def operation_to_json(operation: Operation) -> dict[str, Any]:
    """A settled operation as plain JSON, with one key that says which it is."""
    match operation:
        case Selection():
            return {"select": [operation.probability, operation.seed, operation.complement]}
        case Take(count):
            return {"take": count}
        case Skip(count):
            return {"skip": count}
        case Filter(expression):
            return {"filter": expression_to_json(expression)}
        case KeepColumns(columns):
            return {"keep_columns": list(columns)}
        case DropColumns(columns):
            return {"drop_columns": list(columns)}


def operation_from_json(content: Mapping[str, Any]) -> Operation:
    """The operation that :func:`operation_to_json` wrote.

    :raises InvalidDeclaration: for one this release does not know.
    """
    match dict(content):
        case {"select": [probability, seed, complement]}:
            return Selection(probability=probability, seed=seed, complement=complement)
        case {"take": count}:
            return Take(count)
        case {"skip": count}:
            return Skip(count)
        case {"filter": expression}:
            return Filter(expression_from_json(expression))
        case {"keep_columns": columns}:
            return KeepColumns(tuple(columns))
        case {"drop_columns": columns}:
            return DropColumns(tuple(columns))
    raise InvalidDeclaration(f"Unknown operation {dict(content)!r} in a dataset definition of another release.")


def kept_columns(names: Sequence[str], operations: Sequence[Operation]) -> list[str]:
    """The columns that are left after all operations, in the order of the data.

    :raises InvalidDeclaration: when ``keep_columns`` finds none of its columns.
    """
    left = list(names)
    for each in operations:
        if isinstance(each, KeepColumns):
            kept = [name for name in left if name in each.columns]
            if left and not kept:
                raise InvalidDeclaration(
                    f"None of the columns {sorted(each.columns)} is in the data. There are: {', '.join(left)}."
                )
            left = kept
        elif isinstance(each, DropColumns):
            left = [name for name in left if name not in each.columns]
    return left


def is_kept(column: str, operations: Sequence[Operation]) -> bool:
    """Whether a column is still there after all operations, if it was in the data."""
    return not any(
        column not in each.columns if isinstance(each, KeepColumns) else column in each.columns
        for each in operations
        if isinstance(each, KeepColumns | DropColumns)
    )
