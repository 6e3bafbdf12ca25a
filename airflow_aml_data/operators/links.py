"""What the UI offers beside a step that runs on Azure ML."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


@attrs.define
class JobLink(BaseOperatorLink):
    """An address that the step's job gives; Airflow asks for it when the task, or its first half, has ended."""

    key = ""
    """Of ``job_links``, which the operator has then."""

    @property
    def name(self) -> str:
        raise NotImplementedError

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        links: dict[str, str] = operator.job_links  # type: ignore[attr-defined]
        return links[self.key]


class StudioJobLink(JobLink):
    """The job's page in Azure ML studio."""

    name = "Azure ML job"
    key = "studio_url"


class StoredOutputLink(JobLink):
    """The folder of the step's first output, in Azure ML studio's view of its datastore."""

    name = "Output in storage"
    key = "output_url"


STEP_LINKS = (StudioJobLink(), StoredOutputLink())
"""Those of every step that may run as a job."""
