"""Operators of the retention DAG: plan a deletion, and carry the plan out."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_aml_data.core.storage import retry
from airflow_aml_data.core.transfer import readable_bytes
from airflow_aml_data.core.workspace import Workspace
from airflow_aml_data.errors import UserError

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from airflow_aml_data.core.catalog import Plan, PlanEntry
    from airflow_aml_data.core.connect import ConnectedWorkspace
    from airflow_aml_data.core.retention.plan import DagRun, OpenRuns, RetentionScope

log = logging.getLogger(__name__)

_SHOWN = 100
_RUNS_AT_ONCE = 100
_OPEN = ["queued", "running"]


class _RetentionOperator(BaseOperator):
    """What planning and waiting share: the scope.

    :param datastores: Names of the datastores to clean up; never empty. (templated)
    :param retention_days: Days after an output's last change and last use. (templated)
    :param abandoned_days: Days for what attempts left that failed or were given up. (templated)
    :param maximum_share: Of a datastore's bytes, the most that one plan may delete, 0 to 1. (templated)
    :param allow_early_deletion: Why less than 30 days are allowed; goes into the history. (templated)
    :param conn_id: Airflow connection of type ``azureml``; None: the default one.
    """

    template_fields: Sequence[str] = (
        "datastores",
        "retention_days",
        "abandoned_days",
        "maximum_share",
        "allow_early_deletion",
    )

    def __init__(
        self,
        *,
        datastores: Sequence[str] | str,
        retention_days: int | str = 30,
        abandoned_days: int | str = 7,
        maximum_share: float | str = 0.5,
        allow_early_deletion: str = "",
        conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.datastores = datastores
        self.retention_days = retention_days
        self.abandoned_days = abandoned_days
        self.maximum_share = maximum_share
        self.allow_early_deletion = allow_early_deletion
        self.conn_id = conn_id

    def scope(self) -> RetentionScope:
        """What the plan may touch.

        :raises InvalidDeclaration: for periods, a share or datastores that are not allowed.
        """
        from airflow_aml_data.core.retention.plan import RetentionScope
        from airflow_aml_data.core.retention.rules import RetentionPolicy

        names = [self.datastores] if isinstance(self.datastores, str) else self.datastores
        policy = RetentionPolicy(
            retention_days=int(self.retention_days),
            abandoned_days=int(self.abandoned_days),
            allow_early_deletion=self.allow_early_deletion,
        )
        return RetentionScope(datastores=tuple(names), policy=policy, maximum_share=float(self.maximum_share))

    def connect(self) -> ConnectedWorkspace:
        return connect(self.conn_id)

    def on_kill(self) -> None:
        retry.cancel()


class ReconcileOperator(_RetentionOperator):
    """Compare the catalog with what the datastores hold; nothing is deleted.

    Outputs whose files are gone cannot be read any more, and their readers are told which step to run again. Files of step runs that no
    output accounts for, which have not changed for ``abandoned_days``, become outputs in state ``unknown``: plans name them when they
    are old enough, and only a person may approve that they go. Returns for each datastore what was found.
    """

    ui_color = "#e6f1f2"

    def execute(self, context: Context) -> dict[str, dict[str, int]]:
        from airflow_aml_data.core.retention.reconcile import reconcile

        retry.begin()
        workspace, report = self.connect(), {}
        try:
            scope = self.scope()
            for name in scope.datastores:
                found = reconcile(
                    workspace, name, grace_days=scope.policy.abandoned_days, maximum_share=scope.maximum_share
                )
                report[found.datastore] = {
                    "files": found.files,
                    "size_bytes": found.size_bytes,
                    "unknown_bytes": sum(each.size_bytes for each in found.unknown),
                    "missing_outputs": len(found.missing),
                    "found_outputs": len(found.found),
                }
                self.log.info("Datastore %r: %s", found.datastore, report[found.datastore])
        except UserError as error:
            raise AirflowFailException(str(error)) from error
        return report


class PlanDeletionOperator(_RetentionOperator):
    """Write down exactly which files of which outputs may go; nothing is deleted.

    Returns what is to be decided on: ``plan`` (its number), ``outputs``, ``files``, ``size_bytes``, ``batches`` (numbers for
    :class:`SweepOperator`) and ``table`` (Markdown, the largest outputs first). Skipped when nothing is due; failed when the plan
    would delete more than ``maximum_share``.
    """

    ui_color = "#fdf3d8"

    def execute(self, context: Context) -> dict[str, Any]:
        from airflow_aml_data.core.retention.plan import make_plan
        from airflow_aml_data.core.retention.sweep import count_batches

        retry.begin()
        ti = context["ti"]
        workspace = self.connect()
        try:
            plan = make_plan(workspace, self.scope(), open_runs(ti), by=f"{ti.dag_id} {ti.run_id}")
        except UserError as error:
            raise AirflowFailException(str(error)) from error
        for why, (outputs, size_bytes) in sorted(plan.kept.items()):
            self.log.info("Stay: %d outputs, %s: %s", outputs, readable_bytes(size_bytes), why)
        self.log.info("Plan %d: %d outputs, %s.", plan.id, plan.outputs, readable_bytes(plan.size_bytes))
        if plan.state == "stopped":
            raise AirflowFailException(
                f"Plan {plan.id} would delete more than maximum_share {self.maximum_share} of a datastore, so nobody can approve it; the "
                "lines above say of which. Allow a larger share when that is right."
            )
        if not plan.outputs:
            raise AirflowSkipException("Nothing is due.")
        entries = workspace.catalog.plan_entries(plan.id)
        return {
            "plan": plan.id,
            "outputs": plan.outputs,
            "files": plan.files,
            "size_bytes": plan.size_bytes,
            "size": readable_bytes(plan.size_bytes),
            "batches": list(range(count_batches(workspace, plan.id))),
            "table": as_table(entries, workspace.catalog.now()),
        }


class SweepOperator(BaseOperator):
    """Delete what an approved plan names, as far as it is still what it was.

    Clear the task when it was cut off: it goes on where it ended.

    :param plan: The plan's number. (templated)
    :param batch: One of the plan's batches; None: all. (templated)
    :param is_dry_run: Only log what would be deleted. (templated)
    :param conn_id: Airflow connection of type ``azureml``; None: the default one.
    """

    template_fields: Sequence[str] = ("plan", "batch", "is_dry_run")
    ui_color = "#f9dcd8"

    def __init__(
        self,
        *,
        plan: int | str,
        batch: int | str | None = None,
        is_dry_run: bool | str = True,
        conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.batch = batch
        self.is_dry_run = is_dry_run
        self.conn_id = conn_id

    def execute(self, context: Context) -> dict[str, int]:
        from airflow_aml_data.core.retention.sweep import count_batches, sweep_batch

        retry.begin()
        workspace, number = connect(self.conn_id), int(self.plan)
        if str(self.is_dry_run) != "False":
            plan = workspace.catalog.get_plan(number)
            self.log.info("Dry run: plan %d would delete %s.", number, readable_bytes(plan.size_bytes))
            return {"outputs": 0, "freed_bytes": 0}
        wanted = range(count_batches(workspace, number)) if self.batch is None else [int(self.batch)]
        outputs = freed_bytes = 0
        try:
            for batch in wanted:
                done, freed = sweep_batch(workspace, number, batch, open_runs(context["ti"]))
                outputs, freed_bytes = outputs + done, freed_bytes + freed
                self.log.info("Batch %d: %d outputs done with, %s deleted.", batch, done, readable_bytes(freed))
        except UserError as error:
            raise AirflowFailException(str(error)) from error
        workspace.catalog.end_plan(number)
        return {"outputs": outputs, "freed_bytes": freed_bytes}

    def on_kill(self) -> None:
        retry.cancel()


def decide_plan(
    number: int,
    *,
    approved: bool,
    by: str,
    is_person: bool = True,
    keep: Iterable[str] = (),
    conn_id: str | None = None,
) -> Plan:
    """Write down who approved or rejected a plan, and what was struck out of it; for a task between plan and sweep.

    :param is_person: False: nobody was asked, so files that no step accounts for stay.
    :raises AirflowFailException: when that is not possible any more.
    """
    try:
        catalog = connect(conn_id).catalog
        return catalog.decide_plan(number, approved=approved, by=by, is_person=is_person, keep=list(keep))
    except UserError as error:
        raise AirflowFailException(str(error)) from error


def end_of_plan(number: int, *, rejected_by: str, conn_id: str | None = None) -> dict[str, Any]:
    """What became of a plan, also in the log and as a page; one that nobody has approved is rejected, so that nobody approves it later.

    :param rejected_by: Who said no, if nobody said yes.
    """
    from airflow_aml_data.core.retention.report import store_report, totals

    workspace = connect(conn_id)
    catalog = workspace.catalog
    plan = catalog.get_plan(number)
    if plan.state == "planned":
        plan = catalog.decide_plan(number, approved=False, by=rejected_by)
    entries = catalog.plan_entries(number)
    page = store_report(workspace, plan, entries)
    log.info("The report is %r on datastore %r.", page, workspace.datastore_name(None))
    result = {
        "plan": number,
        "state": plan.state,
        "decided_by": plan.decided_by,
        "planned_bytes": plan.size_bytes,
        "freed_bytes": plan.freed_bytes,
        "deleted_files": plan.deleted_files,
        "by_dag": [asdict(each) for each in totals(entries)][:_SHOWN],
        "page": page,
    }
    log_end(plan, entries)
    return result


def log_end(plan: Plan, entries: Iterable[PlanEntry]) -> None:
    """Say what became of a plan, and what of it stays."""
    log.info("Plan %d is %s, by %s: %s freed.", plan.id, plan.state, plan.decided_by, readable_bytes(plan.freed_bytes))
    for each in entries:
        if each.state in ("skipped", "struck_out"):
            log.info("Stays: %s, %s.", each.output_id, each.detail)


def connect(conn_id: str | None) -> ConnectedWorkspace:
    """The workspace of a connection, or the default one."""
    return (Workspace(conn_id) if conn_id else Workspace()).connect()


def open_runs(ti: RuntimeTaskInstanceProtocol) -> OpenRuns:
    """Asks Airflow which DAG runs have not ended: they are queued or run, or were cleared; a task of theirs may wait for a retry."""

    def ask(runs: Set[DagRun]) -> Set[DagRun]:
        by_dag: dict[str, list[str]] = defaultdict(list)
        for dag_id, run_id in sorted(runs):
            by_dag[dag_id].append(run_id)
        return {(dag_id, run_id) for dag_id, run_ids in by_dag.items() for run_id in _open(ti, dag_id, run_ids)}

    return ask


def _open(ti: RuntimeTaskInstanceProtocol, dag_id: str, run_ids: Sequence[str]) -> Iterable[str]:
    for start in range(0, len(run_ids), _RUNS_AT_ONCE):
        some = list(run_ids[start : start + _RUNS_AT_ONCE])
        if ti.get_dr_count(dag_id, run_ids=some, states=_OPEN):
            yield from (each for each in some if ti.get_dr_count(dag_id, run_ids=[each], states=_OPEN))


def as_table(entries: Sequence[PlanEntry], now: datetime) -> str:
    """Markdown for people who decide."""
    lines = ["| output | DAG | bytes | files | days old | why |", "|---|---|---|---|---|---|"]
    for each in entries[:_SHOWN]:
        size, age = readable_bytes(each.size_bytes), (now - each.changed_at).days if each.changed_at else ""
        lines.append(f"| `{each.output_id}` | {each.dag_id} | {size} | {each.files} | {age} | {each.why} |")
    if len(entries) > _SHOWN:
        lines.append(f"| {len(entries) - _SHOWN} more, all smaller | | | | | |")
    return "\n".join(lines)
