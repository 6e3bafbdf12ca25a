"""Tables whose rows have a time: the columns that say it, and the filters on it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from airflow_aml_data.core.expressions import Comparison
from airflow_aml_data.core.operations import Filter, Operation
from airflow_aml_data.core.sampling import DeclaredOperation, Recent
from airflow_aml_data.errors import DatasetTimestampMissingError, InvalidDeclaration

_T = TypeVar("_T", bound="TimeSeriesCalls")

REGISTERED_TIMESTAMP = "(the registered timestamp column)"
"""Stands for the timestamp column of a registered dataset until it is looked up."""


class TimeSeriesCalls:
    """What can be asked of a table by time."""

    __slots__ = ()
    timestamp_columns: tuple[str | None, str | None]

    def _with(self: _T, operation: DeclaredOperation) -> _T:
        raise NotImplementedError

    def with_timestamp_columns(
        self: _T, timestamp: str | None = None, partition_timestamp: str | None = None, validate: bool = False
    ) -> _T:
        """Name the columns that say when a row was; the time filters and the index of a DataFrame use the first.

        :param partition_timestamp: A coarser one, such as that of a partition format.
        :param validate: v1's; nothing is read here. A column that is missing or no time is an error when it is read.

        Source: v1, semantics section 6.
        """
        if partition_timestamp and not timestamp:
            raise InvalidDeclaration("partition_timestamp can be assigned only if timestamp is assigned.")
        if timestamp and partition_timestamp == timestamp:
            raise InvalidDeclaration("partition_timestamp cannot be the same as timestamp.")
        return replace(self, timestamp_columns=(timestamp, partition_timestamp))  # type: ignore[type-var]

    def time_before(self: _T, end_time: datetime, include_boundary: bool = True, validate: bool = True) -> _T:
        """The rows up to a moment, by the timestamp column.

        :param end_time: Cut to the second; over half a second is rounded up.
        :raises DatasetTimestampMissingError: without timestamp columns.

        Source: v1, semantics section 6.
        """
        end = _time("end_time", end_time)
        end = end.replace(microsecond=0) + timedelta(seconds=end.microsecond > 500_000)
        return self._in_time("time_before", "<=" if include_boundary else "<", end)

    def time_after(self: _T, start_time: datetime, include_boundary: bool = True, validate: bool = True) -> _T:
        """The rows from a moment on, by the timestamp column.

        :param start_time: Cut to the second.

        Source: v1, semantics section 6.
        """
        start = _time("start_time", start_time).replace(microsecond=0)
        return self._in_time("time_after", ">=" if include_boundary else ">", start)

    def time_between(
        self: _T, start_time: datetime, end_time: datetime, include_boundary: bool = True, validate: bool = True
    ) -> _T:
        """The rows between two moments, by the timestamp column; none when they are reversed."""
        self._timestamp("time_between")
        return self.time_after(start_time, include_boundary).time_before(end_time, include_boundary)

    def time_recent(self: _T, time_delta: timedelta, include_boundary: bool = True, validate: bool = True) -> _T:
        """The rows of the last ``time_delta``, counted back from the local time at which the data is read."""
        if not isinstance(time_delta, timedelta):
            raise InvalidDeclaration(f"time_delta must be a timedelta, found {time_delta!r}.")
        column = self._timestamp("time_recent")
        return self._with(Recent(column=column, seconds=time_delta.total_seconds(), include_boundary=include_boundary))

    def _timestamp(self, call: str) -> str:
        if not self.timestamp_columns[0]:
            raise DatasetTimestampMissingError(_no_timestamp(call))
        return self.timestamp_columns[0]

    def _in_time(self: _T, call: str, operator: Any, moment: datetime) -> _T:
        column = self._timestamp(call)
        return self._with(Filter(Comparison(field=column, operator=operator, value=moment)))


def _time(name: str, value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise InvalidDeclaration(f"{name} must be a datetime, found {value!r}.")
    return datetime.fromisoformat(value.isoformat())  # also of a pandas Timestamp


def on_timestamp(operation: Operation, timestamp: str | None) -> Operation:
    """A time filter that was declared before anybody looked up which column it is on."""
    match operation:
        case Filter(Comparison(field=field) as comparison) if field == REGISTERED_TIMESTAMP:
            if not timestamp:
                raise DatasetTimestampMissingError(_no_timestamp("time filter"))
            return Filter(replace(comparison, field=timestamp))
    return operation


def _no_timestamp(call: str) -> str:
    return (
        f"Cannot perform time-series filter `{call}` on dataset without timestamp columns defined. "
        "Name one first: dataset.with_timestamp_columns(timestamp=...)."
    )
