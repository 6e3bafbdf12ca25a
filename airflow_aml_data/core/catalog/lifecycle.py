"""Outputs: who may write where, and the way from "writing" to "committed" or "abandoned".

Every function works in the transaction of the connection it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, insert, or_, select, update
from sqlalchemy.sql import ColumnElement, Select

from airflow_aml_data.core.catalog import history, leases
from airflow_aml_data.core.catalog.database import lock_names
from airflow_aml_data.core.catalog.records import CommittedOutput, NewOutput, Output, OutputState
from airflow_aml_data.core.catalog.schema import WRITING, outputs
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.errors import InvalidDeclaration, OutputInUse, StaleTry, StorageError

_AFTER_SLASH = "0"  # the character after "/": paths below "a" are those from "a/" up to "a0"


def begin(
    connection: Connection, run: StepRun, wanted: Sequence[NewOutput], *, now: datetime, expires_at: datetime
) -> list[Output]:
    """Claim the places of outputs for a run; see :meth:`.Catalog.begin_outputs`."""
    _check_names(wanted)
    # Whoever could claim a place below or above ours waits here, and so does another try of this task.
    lock_names(connection, [f"task {_task(run)!r}", *(f"datastore {new.datastore}" for new in wanted)])
    begun, earlier = _tries(connection, run)
    reason = f"Try {run.try_number} of the same task has begun ({run.id})."
    _abandon(connection, earlier, reason=reason, by=run.id, now=now)
    for each in wanted:
        _refuse_where_deleted(connection, each)
    lapsed = list({claim.id: claim for new in wanted for claim in _lapsed(connection, run, new, now)}.values())
    _abandon(connection, lapsed, reason=f"Its lease ran out and {run.id} claimed its place.", by=run.id, now=now)
    fresh = [new for new in wanted if not _stands(begun, run, new)]
    if fresh:
        connection.execute(insert(outputs), [_new_row(run, new, now) for new in fresh])
    ids = [output_id(run, new.name) for new in wanted]
    leases.grant(connection, ids, holder=run.id, kind="write", expires_at=expires_at)
    history.append(
        connection,
        (
            history.entry(
                "begun",
                at=now,
                detail=f"To be written to {new.path!r} on datastore {new.datastore!r}.",
                step_run_id=run.id,
                output_id=output_id(run, new.name),
            )
            for new in fresh
        ),
    )
    return [replace(output, state="abandoned") for output in (*earlier, *lapsed)]


def commit(connection: Connection, run: StepRun, committed: Sequence[CommittedOutput], *, now: datetime) -> None:
    """Turn outputs the run is writing into committed ones; see :meth:`.Catalog.commit_outputs`."""
    _check_names(committed)
    ids = [output_id(run, output.name) for output in committed]
    query = select(outputs.c.id, outputs.c.state).where(outputs.c.id.in_(ids)).order_by(outputs.c.id)
    states = {row.id: row.state for row in connection.execute(query.with_for_update())}
    for id_ in ids:
        if id_ not in states:
            raise InvalidDeclaration(f"Output {id_!r} was never begun, so it cannot be committed.")
        if states[id_] != "writing":
            raise _stale(connection, id_, states[id_])
    if not committed:
        return
    values: dict[str, Any] = {
        column: bindparam(f"new_{column}")
        for column in ("files", "size_bytes", "manifest_path", "manifest_digest", "changed_at")
    }
    connection.execute(
        update(outputs).where(outputs.c.id == bindparam("old_id")).values(state="committed", **values),
        [
            {"old_id": id_, **{f"new_{column}": getattr(output, column) for column in values}}
            for id_, output in zip(ids, committed, strict=True)
        ],
    )
    leases.end(connection, ids, kind="write")
    history.append(
        connection,
        (
            history.entry(
                "committed",
                at=now,
                detail=f"{output.files} files, {output.size_bytes} bytes, manifest {output.manifest_digest}.",
                step_run_id=run.id,
                output_id=id_,
            )
            for id_, output in zip(ids, committed, strict=True)
        ),
    )


def abandon(connection: Connection, run: StepRun, *, reason: str, now: datetime) -> list[Output]:
    """Give up what the run is still writing; see :meth:`.Catalog.abandon_outputs`."""
    mine = (_same_task(run), outputs.c.step_run_id == run.id, outputs.c.state == WRITING)
    held = _hold(connection, select(outputs).where(*mine))
    _abandon(connection, held, reason=reason, by=run.id, now=now)
    leases.release(connection, holder=run.id)
    return [replace(output, state="abandoned") for output in held]


def find(
    connection: Connection,
    *,
    dag_id: str | None,
    run_id: str | None,
    task_id: str | None,
    map_index: int | None,
    state: OutputState | None,
    datastore: str | None,
    limit: int,
) -> list[Output]:
    """Return outputs that fit all that is given; newest first."""
    wanted = {
        "dag_id": dag_id,
        "run_id": run_id,
        "task_id": task_id,
        "map_index": map_index,
        "state": state,
        "datastore": datastore,
    }
    query = select(outputs).order_by(outputs.c.created_at.desc(), outputs.c.id.desc()).limit(limit)
    for column, value in wanted.items():
        if value is not None:
            query = query.where(outputs.c[column] == value)
    return _read(connection, query)


def get(connection: Connection, output_id: str) -> Output | None:
    """Return the output of that id, or None."""
    return next(iter(_read(connection, select(outputs).where(outputs.c.id == output_id))), None)


def output_id(run: StepRun, name: str) -> str:
    """Return the id an output of a run has."""
    return f"{run.id}/{name}"


def _read(connection: Connection, query: Select[Any]) -> list[Output]:
    return [Output(**row) for row in connection.execute(query).mappings()]


def _hold(connection: Connection, query: Select[Any]) -> list[Output]:
    """Read outputs that nobody else may change before this transaction ends; everyone in the same order."""
    return _read(connection, query.order_by(outputs.c.id).with_for_update())


def _task(run: StepRun | Output) -> tuple[str, str, str, int]:
    return run.dag_id, run.run_id, run.task_id, run.map_index


def _same_task(run: StepRun) -> ColumnElement[bool]:
    columns = (outputs.c.dag_id, outputs.c.run_id, outputs.c.task_id, outputs.c.map_index)
    return and_(*(column == value for column, value in zip(columns, _task(run), strict=True)))


def _tries(connection: Connection, run: StepRun) -> tuple[dict[str, Output], list[Output]]:
    """Return what this run has begun already, by id, and what earlier tries of its task are still writing."""
    known = _hold(connection, select(outputs).where(_same_task(run)))
    # Only what is being written: a DAG run that was deleted and made again counts its tries from 1.
    newer = max((output.try_number for output in known if output.state == "writing"), default=0)
    if newer > run.try_number:
        raise StaleTry(
            f"Try {newer} of task {run.task_id!r} (DAG {run.dag_id!r}, run {run.run_id!r}) has begun its "
            f"outputs, so try {run.try_number} may not begin any."
        )
    begun = {output.id: output for output in known if output.step_run_id == run.id}
    return begun, [output for output in known if output.state == "writing" and output.id not in begun]


def _lapsed(connection: Connection, run: StepRun, new: NewOutput, now: datetime) -> list[Output]:
    """Return claims of other tasks on the place, above it or below it, that have lapsed.

    :raises OutputInUse: for one that has not.
    """
    query = select(outputs).where(outputs.c.state == WRITING, *_touches(new))
    others = [claim for claim in _hold(connection, query) if _task(claim) != _task(run)]
    ends = leases.write_ends(connection, [claim.id for claim in others])
    for claim in others:
        if claim.id in ends and ends[claim.id] > now:
            raise _in_use(new, claim, ends[claim.id])
    return others


def _touches(new: NewOutput) -> list[ColumnElement[bool]]:
    """Conditions for outputs in the place of a new one, in a folder above it or below it."""
    path = outputs.c.path
    above = [new.path[:end] for end in (i for i, c in enumerate(new.path) if c == "/")]
    below = and_(path >= f"{new.path}/", path < f"{new.path}{_AFTER_SLASH}") if new.path else path != ""
    return [outputs.c.datastore == new.datastore, or_(path.in_(["", *above, new.path]), below)]


def _refuse_where_deleted(connection: Connection, new: NewOutput) -> None:
    """Nobody writes where files are being deleted.

    :raises StorageError: it is over soon, so a retry helps.
    """
    query = select(outputs).where(outputs.c.state == "deleting", *_touches(new)).limit(1)
    for each in _read(connection, query):
        raise StorageError(
            f"Output {new.name!r} cannot be written to {new.path!r} on datastore {new.datastore!r} yet: plan {each.plan_id} is deleting "
            f"output {each.id!r} there. If that plan was cut off, clear the task that sweeps it."
        )


def _in_use(new: NewOutput, claim: Output, ends: datetime) -> OutputInUse:
    mapped = f", map index {claim.map_index}" if claim.map_index >= 0 else ""
    return OutputInUse(
        f"Output {new.name!r} cannot be written to {new.path!r} on datastore {new.datastore!r}: "
        f"task {claim.task_id!r} of DAG {claim.dag_id!r} (run {claim.run_id!r}{mapped}, "
        f"try {claim.try_number}) has been writing to {claim.path!r} there since "
        f"{claim.created_at:%Y-%m-%d %H:%M:%S} UTC. Run this task after that one, or give one of them a "
        f"destination with {{run-id}}. If that task was killed, its claim ends at "
        f"{ends:%Y-%m-%d %H:%M:%S} UTC."
    )


def _stands(begun: dict[str, Output], run: StepRun, new: NewOutput) -> bool:
    """Whether this run has begun the very same output before (a call repeated after a lost answer)."""
    row = begun.get(output_id(run, new.name))
    if row is None:
        return False
    if row.state != "writing":
        raise StaleTry(f"Output {row.id!r} is {row.state} already and cannot be begun again.")
    if (row.datastore, row.path, row.mode) != (new.datastore, new.path, new.mode):
        raise InvalidDeclaration(
            f"Output {row.id!r} is being written to {row.path!r} on datastore {row.datastore!r} ({row.mode}) "
            f"and cannot move to {new.path!r} on {new.datastore!r} ({new.mode})."
        )
    return True


def _new_row(run: StepRun, new: NewOutput, now: datetime) -> dict[str, object]:
    return {
        "id": output_id(run, new.name),
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "task_id": run.task_id,
        "map_index": run.map_index,
        "try_number": run.try_number,
        "step_run_id": run.id,
        "name": new.name,
        "datastore": new.datastore,
        "path": new.path,
        "mode": new.mode,
        "retention_days": new.retention_days,
        "pin": "its declaration" if new.keep else None,
        "state": "writing",
        "created_at": now,
    }


def _abandon(connection: Connection, rows: Sequence[Output], *, reason: str, by: str, now: datetime) -> None:
    """Abandon outputs whose rows this transaction holds."""
    if not rows:
        return
    ids = [row.id for row in rows]
    connection.execute(update(outputs).where(outputs.c.id.in_(ids)).values(state="abandoned"))
    leases.end(connection, ids, kind="write")
    history.append(
        connection,
        (history.entry("abandoned", at=now, detail=reason, step_run_id=by, output_id=id_) for id_ in ids),
    )


def _stale(connection: Connection, id_: str, state: str) -> StaleTry:
    last = history.read(connection, output_id=id_, dataset=None, limit=1)
    why = " ".join(entry.detail for entry in last)
    return StaleTry(f"Output {id_!r} is {state} and cannot be committed any more: {why} This try publishes nothing.")


def _check_names(given: Iterable[NewOutput | CommittedOutput]) -> None:
    seen: set[str] = set()
    for output in given:
        if output.name in seen:
            raise InvalidDeclaration(f"Output {output.name!r} is named twice.")
        seen.add(output.name)
