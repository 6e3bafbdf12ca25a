"""The catalog compared with what stores hold: outputs whose files are gone, and files that no output accounts for.

Every function works in the transaction of the connection it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from airflow_aml_data.core.catalog import history, leases
from airflow_aml_data.core.catalog.database import ROWS_AT_ONCE
from airflow_aml_data.core.catalog.records import HistoryEvent, KnownOutput, OutputState, UnknownFiles
from airflow_aml_data.core.catalog.schema import outputs


def known(connection: Connection) -> Iterator[KnownOutput]:
    """Every output that is not deleted; streamed."""
    columns = [outputs.c[name] for name in KnownOutput._fields]
    query = select(*columns).where(outputs.c.state != "deleted")
    for row in connection.execute(query.execution_options(yield_per=ROWS_AT_ONCE)):
        yield KnownOutput._make(row)


def move(
    connection: Connection, output_ids: Sequence[str], *, before: OutputState, after: OutputState, now: datetime
) -> None:
    """Give outputs another state, those that still are in the one before."""
    moved: list[str] = []
    for batch in leases.batches(sorted(output_ids)):
        query = select(outputs.c.id).where(outputs.c.id.in_(batch), outputs.c.state == before).order_by(outputs.c.id)
        moved += connection.scalars(query.with_for_update())
    for batch in leases.batches(moved):
        connection.execute(update(outputs).where(outputs.c.id.in_(batch)).values(state=after))
    event: HistoryEvent = "missing" if after == "missing" else "found"
    told = f"Its files are {'gone from' if after == 'missing' else 'again in'} the store."
    history.append(
        connection,
        (history.entry(event, at=now, detail=told, step_run_id=None, output_id=each) for each in moved),
    )


def adopt(connection: Connection, found: Sequence[UnknownFiles], *, now: datetime) -> None:
    """Take folders of files that no output accounts for as outputs that nobody knows, so that plans may name them."""
    for each in found:
        row: dict[str, Any] = {
            "id": each.output_id,
            "dag_id": "",
            "run_id": "",
            "task_id": "",
            "map_index": -1,
            "try_number": 0,
            "step_run_id": each.step_run_id,
            "name": "",
            "datastore": each.datastore,
            "path": each.path,
            "mode": "mount",
        }
        changing = {
            "state": "unknown",
            "files": each.files,
            "size_bytes": each.size_bytes,
            "created_at": each.changed_at,
            "changed_at": each.changed_at,
            "plan_id": None,
            "deleted_at": None,
        }
        was = connection.execute(select(outputs.c.state).where(outputs.c.id == each.output_id)).scalar_one_or_none()
        if was == "deleting":
            continue  # a plan has it
        statement = leases.inserting(connection, outputs).values(row | changing)
        connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changing))
        if was != "unknown":
            told = f"{each.files} files, {each.size_bytes} bytes in {each.path!r} belong to no output."
            history.append(
                connection,
                [history.entry("found", at=now, detail=told, step_run_id=None, output_id=each.output_id)],
            )
