"""Values that are not of the type ``set_column_types`` gives their column: counted and told, or an error."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from airflow_aml_data.core.tabular.base import TableFile
from airflow_aml_data.core.tabular.declared import DeclaredColumn
from airflow_aml_data.errors import DataNotReadable


class LostValues:
    """Those of one file.

    :param on_error: ``"fail"``: the first one is an error.
    """

    def __init__(self, file: TableFile, on_error: str) -> None:
        self._file, self._on_error = file, on_error
        self._found: dict[str, tuple[int, str, str, pa.DataType]] = {}

    def note(
        self, name: str, column: DeclaredColumn, text: pa.Array, values: pa.Array, place: Callable[[int], str]
    ) -> None:
        """Compare the text of a column with what became of it.

        :param place: The row of that number, as messages name it: ``line 7``.
        :raises DataNotReadable: with ``on_error="fail"``.
        """
        if values.null_count == text.null_count:
            return
        lost = pc.fill_null(pc.and_(values.is_null(), column.has_value(text)), False)
        if not (count := pc.sum(lost).as_py()):
            return
        row = lost.index(True).as_py()
        before, where, value, _ = self._found.get(name, (0, place(row), text[row].as_py(), None))
        if self._on_error == "fail":
            raise DataNotReadable(
                f"{self._file.name}, {where}: {value!r} in column {name!r} is no {column.type}, which set_column_types "
                "says. on_error='null' makes such values null."
            )
        self._found[name] = before + count, where, value, column.type

    def warn(self) -> None:
        """Tell what was lost."""
        for name, (count, where, value, type_) in self._found.items():
            warnings.warn(
                f"{self._file.name}: {count} value{'s' * (count > 1)} of column {name!r} became null, being no {type_}; "
                f"the first is {value!r} in {where}. on_error='fail' makes this an error.",
                stacklevel=3,
            )
