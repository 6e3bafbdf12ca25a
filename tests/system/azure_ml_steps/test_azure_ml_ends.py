"""What becomes of a job when somebody ends or clears its task, when its time is over, and when it fails itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_aml_data.core.connect import ConnectedWorkspace
from dev.local_airflow import LocalAirflow
from tests.azure_ml import AzureMl
from tests.system.azure_ml_steps.conftest import PATIENCE_SECONDS, Waiting, begin, secrets_in
from tests.system.conftest import wait_until

pytestmark = pytest.mark.system

WAYS = ("deferred", "running")


@pytest.fixture(scope="module")
def begun(airflow: LocalAirflow, service: AzureMl, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Waiting]:
    """All of them are begun at once, which saves time; none ends before its test lets it."""

    def begun(name: str) -> Waiting:
        return begin(airflow, service, name.partition(".")[0], tmp_path_factory.mktemp(name.replace(".", "_")))

    late = {each: begun(each) for each in [f"late_{way}" for way in WAYS]}
    for step in late.values():  # before its time is over, which passes while the machine is busy, too
        step.wait_for_job()
    more = [f"waits_{way}.{kind}" for way in WAYS for kind in ("failed", "success", "cleared")]
    return late | {each: begun(each) for each in [*more, "fails_once"]}


@pytest.mark.parametrize("state", ["failed", "success"])
@pytest.mark.parametrize("way", WAYS)
def test_who_marks_a_waiting_step_cancels_its_job(
    way: str, state: str, begun: dict[str, Waiting], workspace: ConnectedWorkspace
) -> None:
    step = begun[f"waits_{way}.{state}"]
    job = step.wait_for_job()
    step.wait_for_state(way)

    step.airflow.patch(step.path, {"new_state": state})

    assert step.wait() == state
    assert job.wait(seconds=PATIENCE_SECONDS) == "Canceled"
    assert job.cancel_requests >= 1
    assert step.jobs == [job]
    wait_until(lambda: outputs(workspace, step) == ["abandoned"], PATIENCE_SECONDS)
    wait_until(lambda: files(workspace, step) == [], PATIENCE_SECONDS)
    keys = {each["key"] for each in step.airflow.get(f"{step.path}/xcomEntries")["xcom_entries"]}
    assert "azureml_job" in keys
    assert "out" not in keys


@pytest.mark.parametrize("way", WAYS)
def test_a_cleared_step_cancels_its_job_and_runs_as_another(
    way: str, begun: dict[str, Waiting], workspace: ConnectedWorkspace
) -> None:
    step = begun[f"waits_{way}.cleared"]
    first = step.wait_for_job()
    step.wait_for_state(way)

    step.airflow.post(
        f"/dags/{step.dag_id}/clearTaskInstances",
        {"dry_run": False, "dag_run_id": step.run_id, "task_ids": ["step"], "only_failed": False},
    )
    second = step.wait_for_job(2)
    step.go.touch()

    assert step.wait() == "success"
    assert first.wait(seconds=PATIENCE_SECONDS) == "Canceled"
    assert first.cancel_requests >= 1
    assert step.jobs == [first, second]
    assert (second.status, second.submitted, second.cancel_requests) == ("Completed", 1, 0)
    assert outputs(workspace, step) == ["committed", "abandoned"]
    wait_until(lambda: files(workspace, step) == ["done.txt"], PATIENCE_SECONDS)


@pytest.mark.parametrize("way", WAYS)
def test_a_step_whose_time_is_over_cancels_its_job_and_the_retry_is_another(
    way: str, begun: dict[str, Waiting], workspace: ConnectedWorkspace
) -> None:
    step = begun[f"late_{way}"]

    assert step.wait() == "success"
    assert [(each.status, each.submitted) for each in step.jobs] == [("Canceled", 1), ("Completed", 1)]
    assert outputs(workspace, step) == ["committed", "abandoned"]
    assert "AirflowTaskTimeout" in step.airflow.task_log(step.dag_id, step.run_id, "step", 1)


def test_a_failed_job_has_the_end_of_its_log_in_that_of_the_task_and_the_retry_is_another_job(
    begun: dict[str, Waiting], workspace: ConnectedWorkspace, airflow: LocalAirflow, service: AzureMl
) -> None:
    step = begun["fails_once"]

    assert step.wait() == "success"
    assert [(each.status, each.submitted) for each in step.jobs] == [("Failed", 1), ("Completed", 1)]
    assert outputs(workspace, step) == ["committed", "abandoned"]
    said = airflow.task_log(step.dag_id, step.run_id, "step", 1)
    assert "line 51 of 150" in said
    assert "line 150 of 150" in said
    assert "line 51 of 150" not in airflow.task_log(step.dag_id, step.run_id, "step", 2)
    for other in ("get_token", "Request URL", "\x1b["):  # what Microsoft's libraries say of their own work
        assert other not in said
    assert secrets_in(airflow, service) == []


def outputs(workspace: ConnectedWorkspace, step: Waiting) -> list[str]:
    """The states of the outputs of all tries, the last one first."""
    return [each.state for each in workspace.catalog.find_outputs(dag_id=step.dag_id, run_id=step.run_id)]


def files(workspace: ConnectedWorkspace, step: Waiting) -> list[str]:
    """What is in the places of all tries' outputs.

    A job that is cancelled by a worker may write its report after that: who was cancelled has no time to wait for it.
    """
    storage = workspace.storage(None)
    found = []
    for each in workspace.catalog.find_outputs(dag_id=step.dag_id, run_id=step.run_id):
        found += [file.path for file in storage.list_files(each.path)]
    return [Path(each).name for each in found]
