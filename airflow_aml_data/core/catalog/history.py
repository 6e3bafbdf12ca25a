"""The history: what happened to outputs and datasets. Rows are added and read, never changed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from airflow_aml_data.core.catalog.records import HistoryEntry, HistoryEvent, storable
from airflow_aml_data.core.catalog.schema import history

_DETAIL_LIMIT = 2000


def entry(
    event: HistoryEvent,
    *,
    at: datetime,
    detail: str,
    step_run_id: str | None,
    output_id: str | None = None,
    dataset: str | None = None,
    version: int | None = None,
) -> dict[str, Any]:
    """Return a row for :func:`append`."""
    return {
        "at": at,
        "event": event,
        "output_id": output_id,
        "dataset": dataset,
        "version": version,
        "step_run_id": step_run_id,
        "detail": storable(detail)[:_DETAIL_LIMIT],
    }


def append(connection: Connection, entries: Iterable[dict[str, Any]]) -> None:
    """Add entries, in order, in the caller's transaction."""
    rows = list(entries)
    if rows:
        connection.execute(insert(history), rows)


def read(connection: Connection, *, output_id: str | None, dataset: str | None, limit: int) -> list[HistoryEntry]:
    """Return entries of the output, the dataset, or both; newest first."""
    query = select(history).order_by(history.c.id.desc()).limit(limit)
    if output_id is not None:
        query = query.where(history.c.output_id == output_id)
    if dataset is not None:
        query = query.where(history.c.dataset == dataset)
    return [HistoryEntry(**row) for row in connection.execute(query).mappings()]
