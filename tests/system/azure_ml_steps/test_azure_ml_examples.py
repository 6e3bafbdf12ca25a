"""The example DAGs with their steps on the worker and on Azure ML: the same results, row for row."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_aml_data import OutputReference
from airflow_aml_data.operators.environments import RunConfiguration, interpreter_for
from dev.local_airflow import LocalAirflow
from tests.azure_ml import AzureMl
from tests.system.azure_ml_steps.conftest import PATIENCE_SECONDS, jobs_of, secrets_in
from tests.system.conftest import wait_until

pytestmark = pytest.mark.system

TARGETS = ("local", "cpu-cluster")
OF_FLOWERS: Mapping[str, Mapping[str, Any]] = {
    "aml_02_inputs": {"digits": 1},
    "aml_03_split": {},
    "aml_06_taskflow": {},
    "aml_07_run_configuration": {"size": 64},
}
OF_FLIGHTS: Mapping[str, Mapping[str, Any]] = {
    "aml_04_intermediate_data": {},
    "aml_05_registered_output": {},
}
ARTICLE = {"sample_share": 0.02, "trees": 5}
OF_ONE_RUN = {("show_settings", "python"), ("show_settings", "DAG_RUN"), ("raw_data", "flights")}
"""Task and key of what it returns: the interpreter, the run's id, the number of versions until now."""
NOT_COMPARED = {"model.joblib", "files.zip"}
"""They hold the time when they were made, or addresses; what is done with them is compared."""

Runs = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def runs(airflow: LocalAirflow, service: AzureMl) -> Runs:
    """All examples, begun in both places: as many as possible at once, for the article's changes the file that others read."""
    give_pillow(service)
    first = airflow.trigger("aml_01_datasets", timeout_seconds=PATIENCE_SECONDS)
    assert airflow.wait("aml_01_datasets", first, timeout_seconds=PATIENCE_SECONDS) == "success"

    begun: Runs = {}

    def begin(dag_id: str, target: str, form: Mapping[str, Any]) -> str:
        begun[dag_id, target] = run_id = airflow.trigger(dag_id, conf={"compute_target": target, **form})
        return run_id

    service.hold.at("Queued")
    waiting = begin("aml_03_split", "cpu-cluster", {})
    article = begin("aml_article", "local", ARTICLE)
    begin("aml_03_split", "local", {})
    for dag_id, form in OF_FLOWERS.items():
        for target in TARGETS:
            if (dag_id, target) not in begun:
                begin(dag_id, target, form)
    wait_for_task(airflow, "aml_03_split", waiting, "train", "deferred")
    service.hold.release()
    wait_for_task(airflow, "aml_article", article, "prepare", "success")
    article = begin("aml_article", "cpu-cluster", ARTICLE)
    wait_for_task(airflow, "aml_article", article, "prepare", "success")
    for dag_id, form in OF_FLIGHTS.items():
        for target in TARGETS:
            begin(dag_id, target, form)
    return begun


@pytest.mark.parametrize("dag_id", [*OF_FLOWERS, "aml_article", *OF_FLIGHTS])
def test_an_example_gives_on_azure_ml_what_it_gives_on_the_worker(
    dag_id: str, runs: Runs, airflow: LocalAirflow, service: AzureMl, tmp_path: Path
) -> None:
    here, there = (runs[dag_id, target] for target in TARGETS)
    states = [airflow.wait(dag_id, each, timeout_seconds=PATIENCE_SECONDS) for each in (here, there)]
    assert states == ["success", "success"]

    steps = [each["task_id"] for each in airflow.task_instances(dag_id, there) if each["operator"].endswith("Step")]
    assert [len(jobs_of(service, there, each)) for each in set(steps)] == [steps.count(each) for each in set(steps)]
    assert [jobs_of(service, here, each) for each in steps] == [[] for _ in steps]
    assert left(airflow, dag_id, there, tmp_path / "there") == left(airflow, dag_id, here, tmp_path / "here")


def test_steps_read_what_others_wrote_here_and_there(airflow: LocalAirflow, service: AzureMl, tmp_path: Path) -> None:
    run_id = airflow.trigger("mixed", timeout_seconds=PATIENCE_SECONDS)

    assert airflow.wait("mixed", run_id, timeout_seconds=PATIENCE_SECONDS) == "success"
    [file] = reference(airflow.xcom("mixed", run_id, "third", "lines")).as_dataset().download(tmp_path)
    assert Path(file).read_text() == "worker\njob\nworker\n"
    assert [len(jobs_of(service, run_id, each)) for each in ("first", "second", "third")] == [0, 1, 0]


def test_nothing_of_them_holds_a_secret(airflow: LocalAirflow, service: AzureMl, runs: Runs) -> None:
    assert secrets_in(airflow, service) == []


def give_pillow(service: AzureMl) -> None:
    """The package that an example asks for, to the worker, which has no way to the world but to this Azure ML."""
    with pytest.MonkeyPatch.context() as patch:
        for name in service.environment:
            patch.delenv(name, raising=False)
        interpreter_for(RunConfiguration(requirements=["pillow==12.0.0"]))


def wait_for_task(airflow: LocalAirflow, dag_id: str, run_id: str, task_id: str, state: str) -> None:
    path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}"

    def is_there() -> bool:
        found = airflow.get(path)["state"]
        assert found not in ("failed", "upstream_failed"), airflow.task_log(dag_id, run_id, task_id)
        return bool(found == state)

    wait_until(is_there, PATIENCE_SECONDS)


def left(airflow: LocalAirflow, dag_id: str, run_id: str, folder: Path) -> dict[tuple[str, int, str], Any]:
    """What the tasks of a run returned, and the files that they wrote, by task, map index and key."""
    found: dict[tuple[str, int, str], Any] = {}
    for task in airflow.task_instances(dag_id, run_id):
        task_id, index = task["task_id"], task["map_index"]
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries"
        keys = [each["key"] for each in airflow.get(path, map_index_filter=index)["xcom_entries"]]
        for key in keys:
            value = airflow.xcom(dag_id, run_id, task_id, key, map_index=index)
            if isinstance(value, dict) and "__classname__" in value:
                found[task_id, index, key] = contents(reference(value), folder / task_id / str(index) / key)
            elif key == "return_value":
                found[task_id, index, key] = of_any_run(task_id, value)
    return found


def of_any_run(task_id: str, returned: Any) -> Any:
    if not isinstance(returned, dict):
        return returned
    return {name: value for name, value in returned.items() if (task_id, name) not in OF_ONE_RUN}


def reference(value: Any) -> OutputReference:
    """The output that an XCom, as it is stored, stands for."""
    return OutputReference(**value["__data__"])


def contents(output: OutputReference, folder: Path) -> dict[str, str]:
    """Path and checksum of each file of an output."""
    files = [Path(each) for each in output.as_dataset().download(folder)]
    return {
        each.relative_to(folder).as_posix(): "" if each.name in NOT_COMPARED else sha256(each.read_bytes()).hexdigest()
        for each in files
    }
