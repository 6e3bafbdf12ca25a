"""``kill -9`` of whatever waits for a job: the job goes on, is submitted once, and what it wrote is committed."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from airflow_aml_data.core.connect import ConnectedWorkspace
from dev.local_airflow import LocalAirflow
from tests.azure_ml import AzureMl
from tests.system.azure_ml_steps.conftest import PATIENCE_SECONDS, Waiting, begin
from tests.system.conftest import wait_until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def begun(airflow: LocalAirflow, service: AzureMl, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Waiting]:
    """All of them are begun at once, which saves time; none ends before its test lets it."""
    dags = {
        "submitting": "stops",
        "waiting": "stops_running",
        "triggerer": "waits_deferred",
        "scheduler": "waits_deferred",
    }
    return {name: begin(airflow, service, dag_id, tmp_path_factory.mktemp(name)) for name, dag_id in dags.items()}


@pytest.fixture(scope="module")
def without_workers(begun: dict[str, Waiting]) -> dict[str, Waiting]:
    """Those whose task is on a worker: its process is killed, and the one that looks after it."""
    found = {name: begun[name] for name in ("submitting", "waiting")}
    for step in found.values():
        step.wait_for_job()
    wait_until(Path(f"{found['submitting'].go}.pid").exists, PATIENCE_SECONDS)
    for step in found.values():
        task = psutil.Process(step.airflow.get(step.path)["pid"])
        for each in (task.parent(), task):
            assert each is not None
            each.kill()
    return found


@pytest.mark.parametrize("when", ["submitting", "waiting"])
def test_a_worker_that_is_killed_after_the_job_was_submitted(
    when: str, without_workers: dict[str, Waiting], workspace: ConnectedWorkspace
) -> None:
    step = without_workers[when]
    wait_until(lambda: bool(step.airflow.get(step.path)["try_number"] == 2), PATIENCE_SECONDS)
    step.go.touch()

    assert_one_job(step, workspace)


@pytest.mark.parametrize("component", ["triggerer", "scheduler"])
def test_a_component_that_is_killed_while_a_step_is_deferred(
    component: str, begun: dict[str, Waiting], airflow: LocalAirflow, workspace: ConnectedWorkspace
) -> None:
    step = begun[component]
    job = step.wait_for_job()
    step.wait_for_state("deferred")

    airflow.kill_component(component)
    step.go.touch()
    job.wait("Completed", seconds=PATIENCE_SECONDS)
    airflow.start_component(component)

    assert_one_job(step, workspace)
    assert airflow.get(step.path)["try_number"] == 1


def assert_one_job(step: Waiting, workspace: ConnectedWorkspace) -> None:
    assert step.wait() == "success"
    assert [(each.status, each.submitted, each.cancel_requests) for each in step.jobs] == [("Completed", 1, 0)]
    [output] = workspace.catalog.find_outputs(dag_id=step.dag_id, run_id=step.run_id)
    assert output.state == "committed"
    assert workspace.storage(None).read_bytes(f"{output.path}/done.txt") == b"done"
