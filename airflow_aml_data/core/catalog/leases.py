"""Leases: who writes or reads an output, and until when nobody may take it from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, Table, and_, delete, not_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from airflow_aml_data.core.catalog.schema import leases, outputs
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.errors import DataChanged, DataDeleted

_BATCH = 500  # SQLite before 3.32 takes 999 values in a statement
_NAMED = 5


def grant(
    connection: Connection,
    output_ids: Iterable[str],
    *,
    holder: str,
    kind: Literal["write", "read"],
    expires_at: datetime,
) -> None:
    """Give ``holder`` a lease of each output, or a longer one where it has one."""
    terms = {"holder": holder, "kind": kind, "expires_at": expires_at}
    rows = [{"output_id": id_, **terms} for id_ in output_ids]
    if not rows:
        return
    statement = inserting(connection, leases)
    statement = statement.on_conflict_do_update(
        index_elements=["output_id", "holder"],
        set_={"kind": statement.excluded.kind, "expires_at": statement.excluded.expires_at},
    )
    connection.execute(statement, rows)


def read(
    connection: Connection, output_ids: Sequence[str], run: StepRun, *, now: datetime, expires_at: datetime
) -> None:
    """Lease committed outputs to a reader and note that they are used.

    :raises DataChanged: naming the outputs that are not there to be read; then no lease is given.
    """
    check_committed(connection, output_ids)
    ids = sorted(set(output_ids))
    for batch in batches(ids):
        own_run = and_(outputs.c.dag_id == run.dag_id, outputs.c.run_id == run.run_id)
        used = {"used_at": now, "used_elsewhere": or_(outputs.c.used_elsewhere, not_(own_run))}
        connection.execute(update(outputs).where(outputs.c.id.in_(batch)).values(used))
    grant(connection, ids, holder=run.id, kind="read", expires_at=expires_at)


def check_committed(connection: Connection, output_ids: Sequence[str]) -> None:
    """Hold the rows of the outputs, so that nobody deletes them before this transaction ends.

    :raises DataChanged: naming outputs that are unknown or not committed; as :exc:`.DataDeleted` those that a plan deleted.
    """
    found: dict[str, RowMapping] = {}
    for batch in batches(sorted(set(output_ids))):
        query = select(outputs).where(outputs.c.id.in_(batch)).order_by(outputs.c.id).with_for_update()
        found.update((row["id"], row) for row in connection.execute(query).mappings())
    gone = [row for row in found.values() if row["state"] in ("deleting", "deleted")]
    if gone:
        raise DataDeleted(" ".join(_deleted(row) for row in gone[:_NAMED]))
    if missing := [row for row in found.values() if row["state"] == "missing"]:
        raise DataChanged(" ".join(_missing(row) for row in missing[:_NAMED]))
    bad = [
        (id_, found[id_]["state"] if id_ in found else "not in the catalog")
        for id_ in dict.fromkeys(output_ids)
        if id_ not in found or found[id_]["state"] != "committed"
    ]
    if bad:
        listed = ", ".join(f"{id_!r} ({state})" for id_, state in bad[:_NAMED])
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise DataChanged(
            f"These outputs cannot be read, because they are not committed: {listed}{more}. "
            "Run the step that writes them again."
        )


def _deleted(row: RowMapping) -> str:
    when = f"deleted on {row['deleted_at']:%Y-%m-%d}" if row["deleted_at"] else "being deleted"
    return f"Output {row['name']!r} was {when} by plan {row['plan_id']}: {_again(row)}."


def _missing(row: RowMapping) -> str:
    return (
        f"The files of output {row['name']!r} are gone from {row['path']!r} on datastore {row['datastore']!r}, and no plan deleted them: "
        f"{_again(row)}."
    )


def _again(row: RowMapping) -> str:
    return f"run step {row['task_id']!r} of DAG {row['dag_id']!r}, run {row['run_id']!r}, again to make it"


def renew(connection: Connection, *, holder: str, expires_at: datetime) -> None:
    """Move the end of every lease the holder has."""
    connection.execute(update(leases).where(leases.c.holder == holder).values(expires_at=expires_at))


def release(connection: Connection, *, holder: str) -> None:
    """End every lease the holder has."""
    connection.execute(delete(leases).where(leases.c.holder == holder))


def write_ends(connection: Connection, output_ids: Sequence[str]) -> dict[str, datetime]:
    """Return until when each output may be written; an output without a writer is left out."""
    ends: dict[str, datetime] = {}
    for batch in batches(output_ids):
        query = select(leases.c.output_id, leases.c.expires_at)
        query = query.where(leases.c.output_id.in_(batch), leases.c.kind == "write")
        ends.update((row.output_id, row.expires_at) for row in connection.execute(query))
    return ends


def end(connection: Connection, output_ids: Sequence[str], *, kind: Literal["write"]) -> None:
    """End the leases of that kind on the outputs, whoever holds them."""
    for batch in batches(output_ids):
        connection.execute(delete(leases).where(leases.c.output_id.in_(batch), leases.c.kind == kind))


def inserting(connection: Connection, table: Table) -> Any:
    """Return an INSERT that can say what to do on a conflict; each dialect has a class of its own."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut ids into pieces a statement can hold."""
    return (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))
