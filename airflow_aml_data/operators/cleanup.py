"""Delete a DAG run's own intermediate data at its end, for authors who ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_aml_data.core.storage import retry
from airflow_aml_data.core.transfer import readable_bytes
from airflow_aml_data.errors import UserError
from airflow_aml_data.operators.retention import connect, log_end

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

_ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")


class CleanupIntermediateDataOperator(BaseOperator):
    """Delete what the tasks of this DAG run wrote and nobody needs any more; see :func:`cleanup_intermediate_data`.

    Clear the task when it was cut off: it goes on where it ended. Returns the plan's number, ``deleted_files`` and ``freed_bytes``.

    :param conn_id: Airflow connection of type ``azureml``; None: the default one.
    """

    template_fields: Sequence[str] = ()
    ui_color = "#f9dcd8"

    def __init__(self, *, conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def execute(self, context: Context) -> dict[str, int]:
        from airflow_aml_data.core.retention.plan import RetentionScope, make_plan
        from airflow_aml_data.core.retention.sweep import sweep_plan

        retry.begin()
        ti = context["ti"]
        self._check_ended(ti)
        workspace, by = connect(self.conn_id), f"task {self.task_id!r} of DAG {ti.dag_id!r}, run {ti.run_id!r}"
        try:
            catalog, scope = workspace.catalog, RetentionScope(datastores=(), run=(ti.dag_id, ti.run_id))
            cut_off = catalog.find_plans(state="approved", by=by)
            made = make_plan(workspace, scope, _nobody, by=by)
            catalog.decide_plan(made.id, approved=True, by=by, is_person=False)
            plans = [sweep_plan(workspace, each.id, _nobody) for each in (*cut_off, made)]
        except UserError as error:
            raise AirflowFailException(str(error)) from error
        for why, (outputs, size_bytes) in sorted(made.kept.items()):
            self.log.info("Stay: %d outputs, %s: %s", outputs, readable_bytes(size_bytes), why)
        for each in plans:
            log_end(each, catalog.plan_entries(each.id))
        return {
            "plan": made.id,
            "deleted_files": sum(each.deleted_files for each in plans),
            "freed_bytes": sum(each.freed_bytes for each in plans),
        }

    def on_kill(self) -> None:
        retry.cancel()

    def _check_ended(self, ti: RuntimeTaskInstanceProtocol) -> None:
        """Other tasks may still need what is to be deleted.

        :raises AirflowFailException: naming those that have not ended.
        """
        dag = self.dag
        states = ti.get_task_states(ti.dag_id, run_ids=[ti.run_id])[ti.run_id]
        unended = []
        for key, state in states.items():  # a mapped task has an entry for each map index, "task_0"
            task_id = key if dag.has_task(key) else key.rpartition("_")[0]
            if not dag.get_task(task_id).is_teardown and state not in _ENDED:
                unended.append(key)
        if unended:
            raise AirflowFailException(
                f"These tasks of the run have not ended, so nothing was deleted: {', '.join(sorted(unended))}. Call "
                "cleanup_intermediate_data() at the end of the DAG, after all tasks, or make it downstream of these."
            )


def cleanup_intermediate_data(
    *, task_id: str = "cleanup_intermediate_data", conn_id: str | None = None, **kwargs: Any
) -> CleanupIntermediateDataOperator:
    """Add a teardown task that deletes the run's own intermediate outputs when all its tasks have ended, well or not.

    Call it at the end of a ``with DAG(...)`` block. It keeps outputs that are registered, pinned, declared with ``keep`` or
    ``retention_days``, being read, or read by another run. Who clears a step of the run later has to clear those before it too.
    Each deletion is in the history, as of a plan that this task asked for and approved.

    :param conn_id: Airflow connection of type ``azureml``; None: the default one.
    :param kwargs: Further arguments of the task.
    :returns: The task, downstream of all that the DAG has so far. When it fails, the run does not.
    """
    cleanup = CleanupIntermediateDataOperator(task_id=task_id, conn_id=conn_id, **kwargs)
    tasks = {each.task_id: each for each in cleanup.dag.tasks if each is not cleanup and not each.is_teardown}
    cleanup.set_upstream([each for each in tasks.values() if not each.downstream_task_ids & tasks.keys()])
    cleanup.as_teardown()
    return cleanup


def _nobody(runs: object) -> set[tuple[str, str]]:
    """No run has to be asked about: the one whose outputs go has ended."""
    return set()
