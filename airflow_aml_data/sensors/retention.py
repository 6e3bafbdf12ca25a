"""Wait until data may be deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_aml_data.errors import UserError
from airflow_aml_data.operators.retention import _RetentionOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class OutputsDueSensor(_RetentionOperator):
    """Wait until an output is due, without a worker's slot; end skipped when none will be before the deadline.

    The catalog tells the moment at which the next one is due, so nothing is asked again and again in between.

    :param deadline_hours: Hours after the DAG run's logical date, or its start, at which waiting ends.
    """

    ui_color = "#e6f1f2"

    def __init__(self, *, deadline_hours: float = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deadline_hours = deadline_hours

    def execute(self, context: Context, event: Any = None) -> None:
        from airflow_aml_data.core.retention.plan import next_due

        workspace = self.connect()
        now, started = workspace.catalog.now(), context["dag_run"].start_date
        deadline = (started or now) + timedelta(hours=self.deadline_hours)
        try:
            due = next_due(workspace, self.scope(), deadline)
        except UserError as error:
            raise AirflowFailException(str(error)) from error
        if due is None:
            raise AirflowSkipException(f"Nothing is due until {deadline:%Y-%m-%d %H:%M} UTC.")
        if due > now:
            self.log.info("The next output is due on %s.", due)
            self.defer(trigger=DateTimeTrigger(moment=due), method_name="execute")
