"""What the UI offers beside a step that runs on Azure ML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from airflow.sdk import BaseOperatorLink

from airflow_aml_data.core.records import AZUREML_JOB

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


@attrs.define
class _JobLink(BaseOperatorLink):
    """An address that the task has pushed."""

    key = ""

    @property
    def name(self) -> str:
        raise NotImplementedError

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        from airflow.sdk.execution_time.xcom import XCom

        pushed: Any = XCom.get_one(
            key=AZUREML_JOB,
            dag_id=ti_key.dag_id,
            task_id=ti_key.task_id,
            run_id=ti_key.run_id,
            map_index=ti_key.map_index,
        )
        return str((pushed or {}).get(self.key) or "")


class StudioJobLink(_JobLink):
    """The job's page in Azure ML studio."""

    name = "Azure ML job"
    key = "studio_url"


class StoredOutputLink(_JobLink):
    """The folder of the step's first output, in Azure ML studio's view of its datastore."""

    name = "Output in storage"
    key = "output_url"


STEP_LINKS = (StudioJobLink(), StoredOutputLink())
"""Those of every step that may run as a job."""
