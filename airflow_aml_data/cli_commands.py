"""What the commands of ``airflow aml-data`` do; :mod:`.cli` declares them.

Results go to stdout, as a table with one line each or as JSON with the catalog's own names; all else goes to stderr.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

from airflow.models.dagrun import DagRun as AirflowRun
from airflow.utils.cli import action_cli
from airflow.utils.platform import getuser
from airflow.utils.session import create_session
from airflow.utils.state import State
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from sqlalchemy import select, tuple_

from airflow_aml_data.core.catalog import Output, Plan, PlanEntry
from airflow_aml_data.core.connect import ConnectedWorkspace, connect
from airflow_aml_data.core.connections import DEFAULT_CONN_ID
from airflow_aml_data.core.retention.plan import DagRun, RetentionScope, make_plan
from airflow_aml_data.core.retention.rules import RetentionPolicy, due_at
from airflow_aml_data.core.retention.sweep import UNDONE, sweep_plan
from airflow_aml_data.core.transfer import readable_bytes
from airflow_aml_data.errors import AmlDataError, InvalidDeclaration, PlanNotReady

_RUNS_AT_ONCE = 300
_WIDTH = 10_000  # of a table: a line is never broken, so that ids can be copied and lines be searched

_Column = Callable[[Any], Any]
"""From a record to what a table shows of it."""

T = TypeVar("T")


def _command(body: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
    """A command as Airflow's own are: it is in Airflow's audit log, and a deliberate error is a line on stderr and exit code 1."""

    @wraps(body)
    def run(args: Namespace) -> None:
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"  # else only tasks find connections of Airflow's database
        try:
            body(args)
        except AmlDataError as error:
            raise SystemExit(str(error)) from error

    logged: Callable[[Namespace], None] = action_cli(run)  # type: ignore[no-untyped-call]
    return logged


@_command
def show_outputs(args: Namespace) -> None:
    """Outputs that fit what is asked for."""
    workspace = connect(args.conn_id)
    found = workspace.catalog.find_outputs(
        dag_id=args.dag_id,
        run_id=args.run_id,
        task_id=args.task_id,
        state=args.state,
        datastore=workspace.datastore_name(args.datastore) if args.datastore else None,
        limit=args.limit + 1,
    )
    now = workspace.catalog.now()
    ages: dict[str, _Column] = {"age": lambda each: _age_days(each, now), "due": _due_at}
    _show_lines(args, found, {**_OUTPUT_COLUMNS, **ages, "pin": lambda each: each.pin}, lambda each: _output(each, now))


@_command
def plan_deletion(args: Namespace) -> None:
    """Make a plan when a datastore is named, show one when a number is, else list all."""
    policy = _given(args, "retention_days", "abandoned_days", "allow_early_deletion")
    scope = _given(args, "maximum_share", "datastore")
    workspace = connect(args.conn_id)
    if args.number and (policy or scope):
        raise InvalidDeclaration("Either a number, to show a plan, or --datastore and options, to make one.")
    if args.number:
        _show_plan(args, workspace, workspace.catalog.get_plan(args.number))
    elif policy or scope:
        datastores = tuple(scope.pop("datastore", ()))
        _make_plan(args, workspace, RetentionScope(datastores=datastores, policy=RetentionPolicy(**policy), **scope))
    else:
        _show_lines(args, workspace.catalog.find_plans(limit=args.limit + 1), _PLAN_COLUMNS)


def _make_plan(args: Namespace, workspace: ConnectedWorkspace, scope: RetentionScope) -> None:
    plan = make_plan(workspace, scope, open_runs, by=_who())
    _show_plan(args, workspace, plan)
    if plan.state == "stopped":
        raise SystemExit(
            f"Plan {plan.id} would delete more than {scope.maximum_share} of a datastore's bytes, so nobody can approve it. Allow a larger "
            "--maximum-share when that is right."
        )
    _note(
        f"Nothing is deleted yet: `{_sweep_command(args, plan.id)}` does that." if plan.outputs else "Nothing is due."
    )


@_command
def sweep(args: Namespace) -> None:
    """Show what a plan would delete; with ``--approve``, approve it unless somebody has, and delete."""
    workspace = connect(args.conn_id)
    catalog, number = workspace.catalog, args.number
    plan, entries = catalog.get_plan(number), catalog.plan_entries(number)
    if plan.state not in ("planned", "approved"):
        raise PlanNotReady(f"Plan {number} is {plan.state}. Needed: planned or approved.")
    states = {each.output_id: each.state for each in entries}
    if unknown := [each for each in args.keep if each not in states]:
        raise InvalidDeclaration(f"Plan {number} holds no output {unknown[0]!r}, so that cannot be struck out.")
    left = [each for each in entries if each.state in UNDONE and each.output_id not in args.keep]
    if not args.approve:
        _show_plan(args, workspace, plan, left)
        files, size_bytes = sum(each.files for each in left), sum(each.size_bytes for each in left)
        _note(
            f"Would delete {len(left)} outputs, {files} files, {readable_bytes(size_bytes)}. Each is judged again before its files go. "
            "Nothing is deleted without --approve."
        )
        return
    struck_out = [each for each in args.keep if states[each] != "struck_out"]
    if plan.state == "planned" or struck_out:
        catalog.decide_plan(number, approved=True, by=_who(), keep=struck_out)
    try:
        with _progress(len(left)) as advance:
            plan = sweep_plan(workspace, number, open_runs, progress=advance)
    except KeyboardInterrupt as error:
        raise SystemExit(f"Cut off. `{_sweep_command(args, number)}` goes on.") from error
    _show_plan(args, workspace, plan)


@_command
def show_history(args: Namespace) -> None:
    """What happened to an output, a dataset, or everything."""
    catalog = connect(args.conn_id).catalog
    found = catalog.history(output_id=args.output_id, dataset=args.dataset, limit=args.limit + 1)
    _show_lines(args, found, _HISTORY_COLUMNS)


@_command
def pin_output(args: Namespace) -> None:
    """Keep an output, and show it."""
    catalog = connect(args.conn_id).catalog
    catalog.pin_output(args.output_id, by=_who(), reason=args.reason)
    output = catalog.get_output(args.output_id)
    told = f"Output {output.id!r} stays, whatever its age: pinned by {output.pin}."
    _show(args, _output(output, catalog.now()), lambda: print(told))


@_command
def unpin_output(args: Namespace) -> None:
    """Keep an output no longer, and show it."""
    catalog = connect(args.conn_id).catalog
    catalog.get_output(args.output_id)  # unpinning what is not there is no error below
    catalog.unpin_output(args.output_id, by=_who())
    output = catalog.get_output(args.output_id)
    _show(args, _output(output, catalog.now()), lambda: print(f"Output {output.id!r} may go when its time has come."))


@_command
def lint_lifecycle(args: Namespace) -> None:
    """What rules of an account's lifecycle policy would harm; exit code 1 when there is one."""
    from airflow_aml_data.core.retention.account_policy import lint_account

    found = lint_account(
        connect(args.conn_id),
        args.datastore,
        subscription_id=args.subscription_id,
        resource_group=args.resource_group,
    )
    _show_lines(args, found, _FINDING_COLUMNS, lambda each: {**asdict(each), "text": str(each)})
    if found:
        raise SystemExit(1)


def open_runs(runs: Set[DagRun]) -> Set[DagRun]:
    """Which DAG runs have not ended, by Airflow's database: they are queued or run, or were cleared."""
    known, found = sorted(runs), set[DagRun]()
    with create_session() as session:
        for start in range(0, len(known), _RUNS_AT_ONCE):
            query = select(AirflowRun.dag_id, AirflowRun.run_id).where(
                tuple_(AirflowRun.dag_id, AirflowRun.run_id).in_(known[start : start + _RUNS_AT_ONCE]),
                AirflowRun.state.in_(State.unfinished_dr_states),
            )
            found.update((dag_id, run_id) for dag_id, run_id in session.execute(query))
    return found


def _who() -> str:
    return f"{getuser()}@{socket.gethostname()} (command line)"


def _given(args: Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def _sweep_command(args: Namespace, number: int) -> str:
    elsewhere = "" if args.conn_id == DEFAULT_CONN_ID else f" --conn-id {args.conn_id}"
    return f"airflow aml-data sweep {number} --approve{elsewhere}"


@contextmanager
def _progress(outputs: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, for people; takes what :func:`sweep_plan` tells of each batch."""
    console = Console(stderr=True)
    columns = (TextColumn("Deleting"), BarColumn(), MofNCompleteColumn(), TextColumn("outputs, {task.fields[freed]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, freed = bar.add_task("", total=outputs, freed=readable_bytes(0)), 0

        def advance(done: int, freed_bytes: int) -> None:
            nonlocal freed
            freed += freed_bytes
            bar.update(task, advance=done, freed=readable_bytes(freed))

        yield advance


def _age_days(output: Output, now: datetime) -> int:
    return (now - (output.changed_at or output.created_at)).days


def _due_at(output: Output) -> datetime | None:
    """When an output may go by its age alone; None: never, or it is gone or being written."""
    if output.pin or output.state not in ("committed", "abandoned"):
        return None
    return due_at(output, RetentionPolicy())


def _output(output: Output, now: datetime) -> dict[str, Any]:
    return {**asdict(output), "age_days": _age_days(output, now), "due_at": _due_at(output)}


_OUTPUT_COLUMNS: dict[str, _Column] = {
    "output": lambda each: each.id,
    "dag": lambda each: each.dag_id,
    "run": lambda each: each.run_id,
    "step": lambda each: each.task_id + (f"[{each.map_index}]" if each.map_index >= 0 else ""),
    "place": lambda each: f"{each.datastore}:{each.path}",
    "state": lambda each: each.state,
    "files": lambda each: each.files,
    "size": lambda each: "" if each.size_bytes is None else readable_bytes(each.size_bytes),
    "changed": lambda each: each.changed_at,
    "last used": lambda each: each.used_at,
}
_PLAN_COLUMNS: dict[str, _Column] = {
    "plan": lambda each: each.id,
    "state": lambda each: each.state,
    "made": lambda each: each.created_at,
    "by": lambda each: each.created_by,
    "outputs": lambda each: each.outputs,
    "files": lambda each: each.files,
    "size": lambda each: readable_bytes(each.size_bytes),
    "deleted": lambda each: readable_bytes(each.freed_bytes),
    "decided by": lambda each: each.decided_by,
}
_ENTRY_COLUMNS: dict[str, _Column] = {
    "output": lambda each: each.output_id,
    "dag": lambda each: each.dag_id,
    "place": lambda each: f"{each.datastore}:{each.path}",
    "files": lambda each: each.files,
    "size": lambda each: readable_bytes(each.size_bytes),
    "state": lambda each: each.state,
    "why": lambda each: each.why,
}
_HISTORY_COLUMNS: dict[str, _Column] = {
    "at": lambda each: each.at,
    "event": lambda each: each.event,
    "output": lambda each: each.output_id,
    "dataset": lambda each: f"{each.dataset}:{each.version}" if each.dataset else None,
    "step run": lambda each: each.step_run_id,
    "detail": lambda each: each.detail,
}


_FINDING_COLUMNS: dict[str, _Column] = {
    "rule": lambda each: each.rule,
    "action": lambda each: each.action,
    "days": lambda each: f"{each.days:g}",
    "harms": lambda each: each.kind,
    "count": lambda each: each.count,
    "what to do": str,
}


def _show_plan(
    args: Namespace, workspace: ConnectedWorkspace, plan: Plan, entries: Sequence[PlanEntry] | None = None
) -> None:
    """A plan with its outputs, or some of them; the largest first."""
    if entries is None:
        entries = workspace.catalog.plan_entries(plan.id)
    some = _some(args, entries)

    def table() -> None:
        size = readable_bytes(plan.size_bytes)
        decided = (
            f" {'Rejected' if plan.state == 'rejected' else 'Approved'} by {plan.decided_by}."
            if plan.decided_by
            else ""
        )
        print(f"Plan {plan.id} is {plan.state}: {plan.outputs} outputs, {plan.files} files, {size}.")
        print(f"Made on {_text(plan.created_at)} by {plan.created_by}.{decided}")
        if plan.freed_bytes:
            print(f"Deleted: {plan.deleted_files} files, {readable_bytes(plan.freed_bytes)}.")
        for why, (outputs, size_bytes) in sorted(plan.kept.items()):
            print(f"Stay: {outputs} outputs, {readable_bytes(size_bytes)}: {why}.")
        _print_table(_ENTRY_COLUMNS, some)

    _show(args, {**asdict(plan), "entries": [asdict(each) for each in some]}, table)


def _show_lines(
    args: Namespace,
    found: Sequence[Any],
    columns: Mapping[str, _Column],
    as_json: Callable[[Any], dict[str, Any]] = asdict,
) -> None:
    """Records, as many as are wanted."""
    some = _some(args, found)
    _show(args, [as_json(each) for each in some], lambda: _print_table(columns, some))
    if not found:
        _note("Nothing found.")


def _some(args: Namespace, found: Sequence[T]) -> Sequence[T]:
    if len(found) > args.limit:
        _note("There are more: --limit shows them.")
    return found[: args.limit]


def _show(args: Namespace, content: Any, table: Callable[[], None]) -> None:
    if args.output == "json":
        print(json.dumps(content, indent=2, default=datetime.isoformat))
    else:
        table()


def _print_table(columns: Mapping[str, _Column], records: Sequence[Any]) -> None:
    if not records:
        return
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=True)
    for each in records:
        table.add_row(*(_text(column(each)) for column in columns.values()))
    Console(width=_WIDTH, markup=False, emoji=False, highlight=False).print(table)


def _text(value: Any) -> str:
    """A value on one line."""
    if value is None:
        return ""
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else " ".join(str(value).split())


def _note(text: str) -> None:
    print(text, file=sys.stderr)
