"""Plans: what is to be deleted, exactly, and what became of it.

Every function works in the transaction of the connection it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, func, insert, or_, select, update
from sqlalchemy.sql import ColumnElement

from airflow_aml_data.core.catalog import history, leases
from airflow_aml_data.core.catalog.database import ROWS_AT_ONCE
from airflow_aml_data.core.catalog.records import (
    Candidate,
    Claim,
    FinishedDeletion,
    Plan,
    PlanEntry,
    PlannedDeletion,
    PlannedFile,
    RegisteredPlace,
    storable,
)
from airflow_aml_data.core.catalog.schema import dataset_versions, outputs, plan_files, plan_outputs, plans
from airflow_aml_data.core.catalog.schema import leases as leases_table
from airflow_aml_data.errors import InvalidDeclaration, PlanNotReady

_WHOLE, _ATTEMPTS = ("committed", "unknown"), ("writing", "abandoned")
_LIVING = (*_WHOLE, *_ATTEMPTS)

Judge = Callable[[Sequence[RegisteredPlace]], Callable[[Candidate], str]]
"""Given what has been registered since planning began, what says why an output stays; an empty text: it may go."""
_MARGIN = timedelta(hours=1)
"""A registration has its time before others can see it."""


def candidates(
    connection: Connection,
    *,
    datastores: Sequence[str] | None,
    changed_before: datetime,
    begun_before: datetime,
    run: tuple[str, str] | None,
    now: datetime,
) -> Iterator[Candidate]:
    """Outputs that may be old enough to go; streamed. See :meth:`.Catalog.candidates`."""
    held = (
        select(leases_table.c.output_id, func.min(leases_table.c.holder).label("holder"))
        .where(leases_table.c.expires_at > now)
        .group_by(leases_table.c.output_id)
        .subquery()
    )
    columns = [outputs.c[name] for name in Candidate._fields if name != "lease"]
    query = (
        select(*columns, func.coalesce(held.c.holder, ""))
        .select_from(outputs.outerjoin(held, held.c.output_id == outputs.c.id))
        .where(
            *_in_scope(datastores, run),
            or_(
                and_(
                    outputs.c.state.in_(_WHOLE),
                    outputs.c.created_at <= changed_before,
                    outputs.c.changed_at <= changed_before,
                    or_(outputs.c.used_at.is_(None), outputs.c.used_at <= changed_before),
                ),
                and_(outputs.c.state.in_(_ATTEMPTS), outputs.c.created_at <= begun_before),
            ),
        )
    )
    for row in connection.execute(query.execution_options(yield_per=ROWS_AT_ONCE)):
        yield Candidate._make(row)


def used_of_late(connection: Connection, datastores: Sequence[str], *, changed_before: datetime) -> list[int]:
    """How many outputs are old and stay because somebody has used them since, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(outputs.c.size_bytes), 0)).where(
        *_in_scope(datastores, None),
        outputs.c.state.in_(_WHOLE),
        outputs.c.changed_at <= changed_before,
        outputs.c.used_at > changed_before,
    )
    return [int(each) for each in connection.execute(query).one()]


def _in_scope(datastores: Sequence[str] | None, run: tuple[str, str] | None) -> Iterator[ColumnElement[bool]]:
    if datastores is not None:
        yield outputs.c.datastore.in_(datastores)
    if run:
        yield outputs.c.dag_id == run[0]
        yield outputs.c.run_id == run[1]


def registered_places(connection: Connection, since: datetime | None = None) -> list[RegisteredPlace]:
    """What registered datasets read: outputs by id, folders and files by path.

    :param since: Only those registered from then on.
    """
    found: list[RegisteredPlace] = []
    query = select(dataset_versions.c.name, dataset_versions.c.version, dataset_versions.c.definition)
    if since is not None:
        query = query.where(dataset_versions.c.created_at >= since)
    for name, version, definition in connection.execute(query.execution_options(yield_per=ROWS_AT_ONCE)):
        found += (each._replace(dataset=f"{name!r} version {version}") for each in _places(definition))
    return found


def _places(definition: Any) -> Iterator[RegisteredPlace]:
    if isinstance(definition, Mapping):
        if isinstance(output := definition.get("output_id"), str):
            yield RegisteredPlace("", output_id=output)
        elif isinstance(definition.get("datastore"), str) and isinstance(definition.get("path"), str):
            yield RegisteredPlace("", datastore=definition["datastore"], path=definition["path"])
        for each in definition.values():
            yield from _places(each)
    elif isinstance(definition, list):
        for each in definition:
            yield from _places(each)


def managed_bytes(connection: Connection) -> dict[str, int]:
    """Datastore to the bytes of its committed outputs."""
    query = (
        select(outputs.c.datastore, func.coalesce(func.sum(outputs.c.size_bytes), 0))
        .where(outputs.c.state == "committed")
        .group_by(outputs.c.datastore)
    )
    return {datastore: int(size) for datastore, size in connection.execute(query)}


def bytes_by_age(
    connection: Connection, datastores: Sequence[str], edges: Sequence[int], *, now: datetime
) -> list[int]:
    """Bytes of committed outputs by days since their last change: up to each edge, and beyond the last."""
    band = case(
        *((outputs.c.changed_at >= now - timedelta(days=edge), number) for number, edge in enumerate(edges)),
        else_=len(edges),
    ).label("band")
    query = (
        select(band, func.sum(outputs.c.size_bytes))
        .where(outputs.c.state == "committed", outputs.c.datastore.in_(datastores))
        .group_by(band)
    )
    found = {number: int(size) for number, size in connection.execute(query)}
    return [found.get(number, 0) for number in range(len(edges) + 1)]


def create(
    connection: Connection,
    *,
    by: str,
    settings: Mapping[str, Any],
    state: str,
    kept: Mapping[str, Sequence[int]],
    managed: Mapping[str, int],
    planned: Sequence[PlannedDeletion],
    now: datetime,
) -> Plan:
    """Write a plan down; nothing of what it names is ever changed."""
    number = connection.scalar(
        insert(plans)
        .values(
            created_at=now,
            created_by=by,
            settings=dict(settings),
            state=state,
            kept={reason: list(counts) for reason, counts in kept.items()},
            managed_bytes=dict(managed),
        )
        .returning(plans.c.id)
    )
    _insert(
        connection,
        plan_outputs,
        (
            {
                "plan_id": number,
                "output_id": each.output_id,
                "reason": each.reason,
                "files": len(each.files),
                "size_bytes": sum(file.size_bytes for file in each.files),
                "state": "planned",
                "detail": each.detail,
                "deleted_files": 0,
                "freed_bytes": 0,
            }
            for each in planned
        ),
    )
    _insert(
        connection,
        plan_files,
        ({"plan_id": number, "output_id": each.output_id, **file._asdict()} for each in planned for file in each.files),
    )
    return get(connection, int(number or 0))


def _insert(connection: Connection, table: Any, rows: Iterable[dict[str, Any]]) -> None:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            connection.execute(insert(table), batch)
            batch = []
    if batch:
        connection.execute(insert(table), batch)


def get(connection: Connection, number: int) -> Plan:
    """Return a plan.

    :raises InvalidDeclaration: for a number that no plan has.
    """
    found = find(connection, number=number, limit=1)
    if not found:
        raise InvalidDeclaration(f"There is no plan {number}.")
    return found[0]


def find(
    connection: Connection,
    *,
    number: int | None = None,
    state: str | None = None,
    by: str | None = None,
    limit: int,
) -> list[Plan]:
    """Return plans that fit all that is given, newest first."""
    query = select(plans).order_by(plans.c.id.desc()).limit(limit)
    for column, value in ((plans.c.id, number), (plans.c.state, state), (plans.c.created_by, by)):
        if value is not None:
            query = query.where(column == value)
    found = list(connection.execute(query).mappings())
    names = ("outputs", "files", "size_bytes", "deleted_files", "freed_bytes")
    totals: dict[int, dict[str, int]] = {each["id"]: dict.fromkeys(names, 0) for each in found}
    sums = (
        select(plan_outputs.c.plan_id, func.count(), *(func.sum(plan_outputs.c[name]) for name in names[1:]))
        .where(plan_outputs.c.plan_id.in_(totals))
        .group_by(plan_outputs.c.plan_id)
    )
    for plan_id, *values in connection.execute(sums):
        totals[plan_id] = dict(zip(names, map(int, values), strict=True))
    return [Plan(**{**row, **totals[row["id"]]}) for row in found]


def entries(connection: Connection, number: int) -> list[PlanEntry]:
    """The outputs of a plan with where they are, the largest first."""
    ours = ("reason", "files", "size_bytes", "state", "detail", "deleted_files", "freed_bytes")
    theirs = ("datastore", "path", "dag_id", "run_id", "task_id", "step_run_id", "name", "manifest_path", "changed_at")
    columns = [*(plan_outputs.c[name] for name in ours), *(outputs.c[name] for name in theirs)]
    query = (
        select(plan_outputs.c.output_id, *columns)
        .select_from(plan_outputs.join(outputs, outputs.c.id == plan_outputs.c.output_id))
        .where(plan_outputs.c.plan_id == number)
        .order_by(plan_outputs.c.size_bytes.desc(), plan_outputs.c.output_id)
    )
    return [PlanEntry(**row) for row in connection.execute(query).mappings()]


def files_of(connection: Connection, number: int, output_ids: Sequence[str]) -> dict[str, list[PlannedFile]]:
    """The files of some outputs of a plan, by path."""
    columns = [plan_files.c[name] for name in PlannedFile._fields]
    found: dict[str, list[PlannedFile]] = {each: [] for each in output_ids}
    for batch in leases.batches(sorted(output_ids)):
        query = select(plan_files.c.output_id, *columns).where(
            plan_files.c.plan_id == number, plan_files.c.output_id.in_(batch)
        )
        for output_id, *values in connection.execute(query.order_by(plan_files.c.path)):
            found[output_id].append(PlannedFile._make(values))
    return found


def decide(
    connection: Connection,
    number: int,
    *,
    approved: bool,
    by: str,
    is_person: bool,
    keep: Sequence[str],
    now: datetime,
) -> Plan:
    """Approve or reject a plan; what is struck out of it stays, and without a person also what no step accounts for.

    :raises PlanNotReady: for a plan that was decided on before.
    """
    _state(connection, number, ("planned",))
    if unknown := set(keep) - set(
        connection.scalars(select(plan_outputs.c.output_id).where(plan_outputs.c.plan_id == number))
    ):
        raise InvalidDeclaration(f"Plan {number} holds no output {min(unknown)!r}, so that cannot be struck out.")
    for batch in leases.batches(sorted(keep)):
        connection.execute(
            update(plan_outputs)
            .where(plan_outputs.c.plan_id == number, plan_outputs.c.output_id.in_(batch))
            .values(state="struck_out", detail=f"struck out by {by}")
        )
    if not is_person:
        ownerless = select(outputs.c.id).where(outputs.c.state == "unknown")
        connection.execute(
            update(plan_outputs)
            .where(plan_outputs.c.plan_id == number, plan_outputs.c.output_id.in_(ownerless))
            .values(state="struck_out", detail="no step accounts for it: only a person may approve that it goes")
        )
    connection.execute(
        update(plans)
        .where(plans.c.id == number)
        .values(state="approved" if approved else "rejected", decided_by=by, decided_at=now)
    )
    return get(connection, number)


def _state(connection: Connection, number: int, allowed: Sequence[str]) -> str:
    """Hold a plan, and return its state.

    :raises PlanNotReady: for one that is not allowed.
    """
    state = connection.scalar(select(plans.c.state).where(plans.c.id == number).with_for_update())
    if state not in allowed:
        raise PlanNotReady(f"Plan {number} is {state or 'unknown'}. Needed: {' or '.join(allowed)}.")
    return str(state)


def claim(
    connection: Connection, number: int, output_ids: Sequence[str], *, by: str, why_kept: Judge, now: datetime
) -> Claim:
    """Take outputs out of everybody's reach before their files go; see :meth:`.Catalog.claim_for_deletion`."""
    _state(connection, number, ("approved",))
    made = connection.scalar(select(plans.c.created_at).where(plans.c.id == number))
    judge = why_kept(registered_places(connection, made - _MARGIN if made else None))
    claimed: set[str] = set()
    taken_over: set[str] = set()
    kept: dict[str, str] = {}
    for batch in leases.batches(sorted(output_ids)):
        for row in _held(connection, number, batch, now):
            if row["state"] == "deleting" and row["plan_id"] == number:
                taken_over.add(row["id"])
            elif row["state"] not in _LIVING:
                kept[row["id"]] = f"{row['state']} by plan {row['plan_id']}"
            elif why := judge(Candidate(*(row[name] for name in Candidate._fields))):
                kept[row["id"]] = why
            else:
                claimed.add(row["id"])
    for batch in leases.batches(sorted(claimed | taken_over)):
        connection.execute(update(outputs).where(outputs.c.id.in_(batch)).values(state="deleting", plan_id=number))
        _set(connection, number, batch, state="deleting", sweeper=by)
    for output_id, why in kept.items():
        _set(connection, number, [output_id], state="skipped", detail=why)
    return Claim(claimed, taken_over, kept)


def _held(connection: Connection, number: int, output_ids: Sequence[str], now: datetime) -> list[dict[str, Any]]:
    """Outputs of a plan that are not done with, as they are: nobody else may change them before this transaction ends."""
    undone = select(plan_outputs.c.output_id).where(
        plan_outputs.c.plan_id == number,
        plan_outputs.c.output_id.in_(output_ids),
        plan_outputs.c.state.in_(["planned", "deleting"]),
    )
    query = select(outputs).where(outputs.c.id.in_(undone)).order_by(outputs.c.id).with_for_update()
    found = [dict(row) for row in connection.execute(query).mappings()]
    query_leases = select(leases_table.c.output_id, func.min(leases_table.c.holder)).where(
        leases_table.c.output_id.in_(output_ids), leases_table.c.expires_at > now
    )
    holders = {row[0]: row[1] for row in connection.execute(query_leases.group_by(leases_table.c.output_id))}
    return [{**row, "lease": holders.get(row["id"], "")} for row in found]


def check_pinnable(connection: Connection, output_id: str) -> None:
    """Hold the row of an output that is there: a committed one, or files that no step accounts for.

    :raises DataChanged: for any other.
    """
    query = select(outputs.c.state).where(outputs.c.id == output_id).with_for_update()
    if connection.scalar(query) != "unknown":
        leases.check_committed(connection, [output_id])


def pin(connection: Connection, output_id: str, why: str, *, now: datetime) -> None:
    """Keep an output whatever its age."""
    connection.execute(update(outputs).where(outputs.c.id == output_id).values(pin=storable(why)))
    history.append(
        connection, [history.entry("pinned", at=now, detail=f"Kept by {why}.", step_run_id=None, output_id=output_id)]
    )


def unpin(connection: Connection, output_id: str, by: str, *, now: datetime) -> None:
    """Let an output go when its time has come."""
    query = update(outputs).where(outputs.c.id == output_id, outputs.c.pin.is_not(None)).values(pin=None)
    if connection.execute(query).rowcount:
        told = f"No longer kept, says {by}."
        history.append(
            connection, [history.entry("unpinned", at=now, detail=told, step_run_id=None, output_id=output_id)]
        )


def _set(connection: Connection, number: int, output_ids: Sequence[str], **values: Any) -> None:
    connection.execute(
        update(plan_outputs)
        .where(plan_outputs.c.plan_id == number, plan_outputs.c.output_id.in_(output_ids))
        .values(**values)
    )


def finish(connection: Connection, number: int, done: Sequence[FinishedDeletion], *, by: str, now: datetime) -> None:
    """Note that the files of claimed outputs are gone; who has claimed one last counts."""
    deleting: set[str] = set()
    for batch in leases.batches(sorted(each.output_id for each in done)):
        query = select(plan_outputs.c.output_id).where(
            plan_outputs.c.plan_id == number,
            plan_outputs.c.output_id.in_(batch),
            plan_outputs.c.state == "deleting",
            plan_outputs.c.sweeper == by,
        )
        deleting.update(connection.scalars(query.order_by(plan_outputs.c.output_id).with_for_update()))
    for batch in leases.batches(sorted(deleting)):
        connection.execute(update(outputs).where(outputs.c.id.in_(batch)).values(state="deleted", deleted_at=now))
    first = [each for each in done if each.output_id in deleting]
    if not first:
        return
    mine = (plan_outputs.c.plan_id == number, plan_outputs.c.output_id == bindparam("done_output_id"))
    values = {
        "state": "deleted",
        "deleted_files": bindparam("done_files"),
        "freed_bytes": bindparam("done_size_bytes"),
        "detail": bindparam("done_detail"),
    }
    connection.execute(
        update(plan_outputs).where(*mine).values(values),
        [{f"done_{name}": value for name, value in each._asdict().items()} for each in first],
    )
    person = connection.scalar(select(plans.c.decided_by).where(plans.c.id == number))
    told = f"Plan {number}, approved by {person}"
    history.append(
        connection,
        (
            history.entry(
                "deleted",
                at=now,
                detail=f"{told}: {each.files} files, {each.size_bytes} bytes deleted. {each.detail}".rstrip(),
                step_run_id=None,
                output_id=each.output_id,
            )
            for each in first
        ),
    )


def end(connection: Connection, number: int, *, now: datetime) -> Plan:
    """Close a plan of which nothing is left to do."""
    left = connection.scalar(
        select(func.count())
        .select_from(plan_outputs)
        .where(plan_outputs.c.plan_id == number, plan_outputs.c.state.in_(["planned", "deleting"]))
    )
    if not left:
        connection.execute(
            update(plans).where(plans.c.id == number, plans.c.state == "approved").values(state="ended", ended_at=now)
        )
    return get(connection, number)
