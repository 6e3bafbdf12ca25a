"""The retention DAG as it is run: it waits without a worker, asks a person, sweeps Azure storage and reports."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, update

from airflow_aml_data import OutputFileDatasetConfig, Workspace
from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.catalog.schema import outputs
from dev.local_airflow import LocalAirflow
from tests.azurite import Azurite
from tests.core.steps import Steps
from tests.storage.stores import airflow_connections, blob_store, names, with_key
from tests.system.conftest import PROJECT_DAGS, wait_until

pytestmark = pytest.mark.system

DAG = "aml_data_retention"
CONTAINER = "retention"
KEPT = "kept"
WAIT_SECONDS = 25


@pytest.fixture(scope="module")
def steps(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    """Steps in a workspace on Azurite, known to this process and to Airflow."""
    folder = tmp_path_factory.mktemp("retention")
    azurite.create_container(CONTAINER)
    connections = airflow_connections(
        {"workspaceblobstore": blob_store(CONTAINER, "wasb_retention")},
        wasb_retention=with_key(azurite, azurite.url),
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in connections.items():
            patch.setenv(name, value)
        patch.setenv("AIRFLOW_HOME", str(folder / "airflow"))
        steps = Steps(Workspace(), folder)
        kept = OutputFileDatasetConfig("out", destination=("workspaceblobstore", KEPT), keep=True).as_upload()
        steps.write(*(f"{number}.txt" for number in range(20)), output=kept, run_id="r0")  # more than half of all bytes
        yield steps


@pytest.fixture(scope="module")
def airflow(steps: Steps, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """An Airflow with a triggerer, whose workspace is the same."""
    dags = tmp_path_factory.mktemp("dags")
    shutil.copy(PROJECT_DAGS / f"{DAG}.py", dags)
    with LocalAirflow(home=steps.folder / "airflow", dags_folder=dags, triggerer=True) as running:
        yield running


def make_due(steps: Steps, in_seconds: float) -> None:
    """Let every output that is there be due soon."""
    then = datetime.now(UTC) + timedelta(seconds=in_seconds, days=-30)
    engine = create_engine(steps.connected.config.catalog_connection_string)
    with engine.begin() as connection:
        connection.execute(
            update(outputs).where(outputs.c.state == "committed").values(created_at=then, changed_at=then)
        )
    engine.dispose()


def state(airflow: LocalAirflow, run_id: str, task_id: str) -> str | None:
    return next((each["state"] for each in airflow.task_instances(DAG, run_id) if each["task_id"] == task_id), None)


def answer(airflow: LocalAirflow, run_id: str, option: str, keep: list[str]) -> dict[str, Any]:
    path = f"/dags/{DAG}/dagRuns/{quote(run_id, safe='')}/taskInstances/approval/-1/hitlDetails"
    wait_until(lambda: state(airflow, run_id, "approval") == "awaiting_input")
    time.sleep(2)  # nobody is as quick as the executor, which has yet to say that the task has gone to wait
    details: dict[str, Any] = airflow.get(path)
    airflow.patch(path, {"chosen_options": [option], "params_input": {"keep": keep}})
    return details


def next_run(airflow: LocalAirflow, start: Callable[[], Any]) -> str:
    known = {each["dag_run_id"] for each in airflow.get(f"/dags/{DAG}/dagRuns")["dag_runs"]}
    start()
    found: list[str] = []

    def has_begun() -> bool:
        found[:] = [
            each["dag_run_id"]
            for each in airflow.get(f"/dags/{DAG}/dagRuns")["dag_runs"]
            if each["dag_run_id"] not in known
        ]
        return bool(found)

    wait_until(has_begun)
    return found[0]


def catalog(steps: Steps) -> Catalog:
    return steps.connected.catalog


def test_it_waits_without_a_worker_is_approved_sweeps_and_reports(
    airflow: LocalAirflow, steps: Steps, azurite: Azurite
) -> None:
    goes, stays = (steps.write("a.txt", "deep/b.txt", run_id=each) for each in ("r1", "r2"))
    airflow.wait_until_parsed(DAG)
    make_due(steps, in_seconds=WAIT_SECONDS)
    run_id = next_run(airflow, lambda: airflow.patch(f"/dags/{DAG}", {"is_paused": False}))

    wait_until(lambda: state(airflow, run_id, "due") == "deferred")
    assert not [each for each in airflow.processes() if "due" in " ".join(each.cmdline())]
    details = answer(airflow, run_id, "Approve", keep=[stays.output_id])

    assert airflow.wait(DAG, run_id, timeout_seconds=60) == "success"
    assert "Delete 2 outputs" in details["subject"]
    assert goes.output_id in details["body"]
    assert "never read" in details["body"]
    left = [
        each
        for each in names(azurite, CONTAINER)
        if not each.startswith((".aml_data/", "retention_reports/", f"{KEPT}/"))
    ]
    assert sorted(left) == [f"{stays.path}/a.txt", f"{stays.path}/deep/b.txt"]
    report = airflow.xcom(DAG, run_id, "report")
    assert (report["state"], report["decided_by"], report["deleted_files"]) == ("ended", "admin", 3)
    assert f"Stays: {stays.output_id}, struck out by admin." in airflow.task_log(DAG, run_id, "report")
    assert catalog(steps).get_output(goes.output_id).state == "deleted"


def test_a_rejected_plan_deletes_nothing(airflow: LocalAirflow, steps: Steps, azurite: Azurite) -> None:
    steps.write("a.txt", run_id="r3")
    make_due(steps, in_seconds=-60)
    before = sorted(names(azurite, CONTAINER))
    run_id = airflow.trigger(DAG)
    answer(airflow, run_id, "Reject", keep=[])
    assert airflow.wait(DAG, run_id, timeout_seconds=60) == "success"
    assert state(airflow, run_id, "sweep") == "skipped"
    report = airflow.xcom(DAG, run_id, "report")
    assert (report["state"], report["decided_by"], report["freed_bytes"]) == (
        "rejected",
        "the answer to task approval",
        0,
    )
    assert sorted(set(names(azurite, CONTAINER)) - {report["page"]}) == before
