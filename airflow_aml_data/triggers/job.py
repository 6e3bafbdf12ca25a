"""Wait for an Azure ML job, without a worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_aml_data.core.azureml import jobs
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.workspace import Workspace
from airflow_aml_data.errors import AmlDataError, InvalidDeclaration, UserError

if TYPE_CHECKING:
    from airflow_aml_data.core.job import SubmittedStep

_RENEW_SECONDS = 60.0
_SETTLE_SECONDS = 5.0
"""Airflow fails a task that goes on before the scheduler has heard that its first half has left the worker."""
_CANCEL_SECONDS = 20.0
"""Airflow gives a trigger 30 seconds to end what it waits for."""


class JobTrigger(BaseTrigger):
    """Tells when a job has ended, or its time is over; meanwhile it holds what the step holds in the catalog.

    It asks now and then, less and less often. That the service, the network or the catalog fails is no reason to give up, nor is a
    triggerer that is started again: the job goes on. When somebody clears the waiting task, or marks it, the job is cancelled. A task
    that is marked in the moment before a triggerer has begun to wait for it leaves its job to end by itself, since Airflow tells nobody;
    nothing that it writes is published.

    :param conn_id: Airflow connection of type ``azureml``.
    :param step: The submitted step, as plain JSON.
    :param deadline: When the job's time is over, in seconds since the epoch; None: never.
    :param poll_seconds: The longest time between two looks.
    """

    def __init__(self, conn_id: str, step: dict[str, Any], deadline: float | None, poll_seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id, self.step, self.deadline, self.poll_seconds = conn_id, step, deadline, poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        fields = ("conn_id", "step", "deadline", "poll_seconds")
        return f"{type(self).__module__}.{type(self).__qualname__}", {each: getattr(self, each) for each in fields}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from airflow_aml_data.core.job import renew_step

        await asyncio.sleep(_SETTLE_SECONDS)
        step, renewed_at, timed_out = self._submitted(), time.monotonic(), False
        for wait in jobs.waits(self.poll_seconds):
            try:
                workspace = await self._connected()
                state = await jobs.poll(workspace.azureml, step.job)
                if state.is_ended:
                    break
                if time.monotonic() - renewed_at > _RENEW_SECONDS:
                    await asyncio.to_thread(renew_step, workspace, step)
                    renewed_at = time.monotonic()
            except UserError as error:
                self.log.error("Job %s cannot be waited for: %s", step.job, error)
                break
            except AmlDataError as error:
                self.log.warning("Job %s: %s", step.job, error)
            left = float("inf") if self.deadline is None else self.deadline - time.time()
            if left <= 0:
                timed_out = True
                break
            await asyncio.sleep(min(wait, left))
        yield TriggerEvent({"step": self.step, "timed_out": timed_out})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the job: nobody will commit what it writes."""
        from airflow_aml_data.core.job import cancel_step

        workspace = await self._connected()
        step = self._submitted()
        reason = "its task was cleared or marked by a user"
        await asyncio.to_thread(cancel_step, workspace, step, reason, patience_seconds=_CANCEL_SECONDS)

    def _submitted(self) -> SubmittedStep:
        from airflow_aml_data.core.job import SubmittedStep

        if (step := SubmittedStep.from_json(self.step)) is None:
            raise InvalidDeclaration(
                "The job was submitted by another release of airflow-aml-data. Clear the task to submit it anew."
            )
        return step

    async def _connected(self) -> ConnectedWorkspace:
        """The workspace; its connection is read once, by the way that Airflow has for triggers."""
        if self._workspace is None:
            self._workspace = await sync_to_async(Workspace(self.conn_id).connect)()
        return self._workspace

    _workspace: ConnectedWorkspace | None = None
