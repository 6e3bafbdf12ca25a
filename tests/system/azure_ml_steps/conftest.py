"""An Airflow of their own for these tests, with a triggerer, and connected to an Azure ML on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_aml_data import Workspace
from airflow_aml_data.core.connect import ConnectedWorkspace
from dev.local_airflow import LocalAirflow
from tests.azure_ml import AzureMl, Job, running_azure_ml
from tests.azure_ml.workspace.connected import connect
from tests.azurite.login import SECRET
from tests.system.conftest import PROJECT_DAGS, wait_until

PATIENCE_SECONDS = 240
"""How long a busy machine may take for anything."""

QUICK = {
    "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    # Who is silent for so long has been killed.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A run of a DAG with one step on Azure ML.

    :param go: The file that its script waits for.
    """

    airflow: LocalAirflow
    service: AzureMl
    dag_id: str
    run_id: str
    go: Path

    @property
    def jobs(self) -> list[Job]:
        """All that were ever submitted for it, oldest first."""
        return jobs_of(self.service, self.run_id)

    @property
    def path(self) -> str:
        return f"/dags/{self.dag_id}/dagRuns/{quote(self.run_id)}/taskInstances/step"

    @property
    def state(self) -> str:
        return str(self.airflow.get(self.path)["state"])

    def wait_for_job(self, number: int = 1) -> Job:
        """The job, when the step's script runs in it."""
        wait_until(lambda: len(self.jobs) >= number, PATIENCE_SECONDS)
        self.jobs[-1].wait_for_log("waiting", PATIENCE_SECONDS)
        return self.jobs[-1]

    def wait_for_state(self, state: str) -> None:
        """Until the step is running or deferred; a deferred one, until a triggerer waits for it."""
        wait_until(lambda: self.state == state, PATIENCE_SECONDS)
        if state == "deferred":
            folder = self.airflow.home / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}"
            wait_until(
                lambda: any("starting" in each.read_text() for each in folder.rglob("*.trigger.*")), PATIENCE_SECONDS
            )

    def wait(self) -> str:
        """The state of the run at its end."""
        return self.airflow.wait(self.dag_id, self.run_id, timeout_seconds=PATIENCE_SECONDS)


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMl]:
    """The Azure ML; at the end, used as it is to be."""
    with running_azure_ml(tmp_path_factory.mktemp("azure_ml")) as running:
        yield running
        running.check()


@pytest.fixture(scope="package")
def airflow(service: AzureMl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """The Airflow, with the project's DAGs and those beside this file. What these tests read for themselves is of the same workspace."""
    home = tmp_path_factory.mktemp("airflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(home))
        for name, value in service.environment.items():
            patch.setenv(name, value)
        connect(patch)
        with LocalAirflow(
            home=home,
            dags_folder=PROJECT_DAGS,
            more_dags_folders=[Path(__file__).parent / "dags"],
            env=QUICK,
            parallelism=6,
            triggerer=True,
        ) as running:
            yield running
            assert secrets_in(running, service) == []


@pytest.fixture(scope="package")
def workspace(airflow: LocalAirflow) -> ConnectedWorkspace:
    """The workspace that the steps run in."""
    return Workspace().connect()


def jobs_of(service: AzureMl, run_id: str, task_id: str = "step") -> list[Job]:
    """All jobs that were ever submitted for a task, oldest first."""
    with service.lock:
        found = list(service.jobs.values())
    return [each for each in found if (each.body["tags"]["run_id"], each.body["tags"]["task_id"]) == (run_id, task_id)]


def begin(airflow: LocalAirflow, service: AzureMl, dag_id: str, folder: Path) -> Waiting:
    """Trigger a DAG of ``dags/waits.py``.

    :param folder: Where the file will be that its script waits for.
    """
    go = folder / "go"
    run_id = airflow.trigger(dag_id, conf={"go": str(go)}, timeout_seconds=PATIENCE_SECONDS)
    return Waiting(airflow=airflow, service=service, dag_id=dag_id, run_id=run_id, go=go)


def secrets_in(airflow: LocalAirflow, service: AzureMl) -> list[str]:
    """Which secrets Airflow's database holds (XComs, what triggers know, what tasks remember) or any of its logs, and where."""
    secrets = [SECRET, "sig=", *service.azurite.keys.values()]
    files = [
        each
        for each in airflow.home.rglob("*")
        if each.is_file() and (each.suffix == ".log" or "airflow.db" in each.name)
    ]
    return [f"{secret} in {file}" for file in files for secret in secrets if secret.encode() in file.read_bytes()]
