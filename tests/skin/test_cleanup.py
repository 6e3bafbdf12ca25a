"""``cleanup_intermediate_data()``: a DAG run's own outputs go at its end, as far as nobody needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from airflow.dag_processing.dagbag import BundleDagBag

from airflow_aml_data import Dataset
from airflow_aml_data.core.retention.plan import RetentionScope, make_plan
from airflow_aml_data.core.retention.sweep import sweep_plan
from airflow_aml_data.core.storage.base import Deletion, StoredFile
from airflow_aml_data.core.storage.local import LocalStorage
from airflow_aml_data.errors import DataDeleted, StorageError
from tests.core.steps import READ, Steps
from tests.skin.conftest import FinishedRun

pytestmark = pytest.mark.slow

DAG_FILE = """
from airflow.sdk import DAG
from airflow_aml_data import CommandStepOperator, OutputFileDatasetConfig, cleanup_intermediate_data

def write(name, **output):
    out = OutputFileDatasetConfig(name, **output).as_upload()
    CommandStepOperator(task_id=name, command=f"echo done > ${name}/a.txt", outputs=[out])
    return out

with DAG("cleaned") as dag:
    model = OutputFileDatasetConfig("model").as_upload().register_on_complete("model")
    CommandStepOperator(
        task_id="last", command="cat $x/* > $model/b.txt; %s", inputs=[write("first").as_input("x")], outputs=[model]
    )
    write("kept", keep=True)
    write("long", retention_days=60)
    part = OutputFileDatasetConfig("part").as_upload()
    CommandStepOperator.partial(task_id="mapped", outputs=[part]).expand(command=["echo 1 > $part/1", "echo 2 > $part/2"])
    cleanup_intermediate_data()
"""


def names(steps: Steps, state: str) -> set[str]:
    return {each.name for each in steps.connected.catalog.find_outputs(dag_id="cleaned", state=state)}


def test_what_nobody_needs_any_more_goes(steps: Steps, run_dag: Callable[..., FinishedRun]) -> None:
    finished = run_dag(DAG_FILE % "true")

    assert finished.state == "success"
    assert finished.task_states["cleanup_intermediate_data"] == "success"
    assert names(steps, "deleted") == {"first", "part"}
    assert names(steps, "committed") == {"model", "kept", "long"}
    assert len(steps.stored()) == 3
    assert Dataset.get_by_name(steps.workspace, "model").to_path() == ["/b.txt"]
    report = finished.xcom("cleanup_intermediate_data")
    assert report["freed_bytes"] > 0
    assert report["deleted_files"] == 6  # three files, three manifests
    plan = steps.connected.catalog.get_plan(report["plan"])
    assert plan.state == "ended"
    assert plan.decided_by == f"task 'cleanup_intermediate_data' of DAG 'cleaned', run {finished.run_id!r}"


def test_a_run_that_fails_is_cleaned_up_too_and_stays_failed(steps: Steps, run_dag: Callable[..., FinishedRun]) -> None:
    finished = run_dag(DAG_FILE % "false")

    assert finished.state == "failed"
    assert finished.task_states["last"] == "failed"
    assert finished.task_states["cleanup_intermediate_data"] == "success"
    assert names(steps, "deleted") == {"first", "part", "model"}  # of the last one, what the failed attempt left
    assert names(steps, "committed") == {"kept", "long"}


def test_tasks_that_have_not_ended_keep_everything(steps: Steps, run_dag: Callable[..., FinishedRun]) -> None:
    finished = run_dag(
        DAG_FILE % "true"
        + """
    CommandStepOperator(task_id="late", command="cat $x/a.txt", inputs=[part.as_input("x")]) << dag.get_task(
        "cleanup_intermediate_data"
    )
"""
    )
    assert finished.task_states["cleanup_intermediate_data"] == "failed"
    assert names(steps, "deleted") == set()


def test_one_that_was_cut_off_goes_on(
    steps: Steps, run_dag: Callable[..., FinishedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = LocalStorage.delete_unchanged
    calls: list[int] = []

    def cut_off_once(storage: LocalStorage, files: Iterable[StoredFile]) -> list[Deletion]:
        done = delete(storage, files)
        calls.append(len(done))
        if len(calls) == 1:
            raise StorageError("the store is gone")
        return done

    monkeypatch.setattr(LocalStorage, "delete_unchanged", cut_off_once)
    finished = run_dag((DAG_FILE % "true").replace("data()", "data(retries=1, retry_delay=0)"))

    assert finished.tries["cleanup_intermediate_data"] == 2
    assert names(steps, "deleted") == {"first", "part"}
    report = finished.xcom("cleanup_intermediate_data")
    assert report["deleted_files"] == 6
    assert {each.state for each in steps.connected.catalog.find_plans()} == {"ended"}


def test_it_comes_after_all_tasks_but_other_teardowns(parse: Callable[[str], BundleDagBag]) -> None:
    bag = parse("""
from airflow.sdk import DAG, task
from airflow_aml_data import cleanup_intermediate_data

with DAG("wired"):
    @task
    def start(): pass
    @task
    def work(number): pass
    @task
    def stop(): pass

    begun, ended = start(), stop()
    begun >> work.expand(number=[1, 2]) >> ended.as_teardown(setups=begun)
    work.override(task_id="alone")(3)
    cleanup_intermediate_data(task_id="clean")
""")
    dag = bag.dags["wired"]
    assert dag.get_task("clean").is_teardown
    assert dag.get_task("clean").upstream_task_ids == {"work", "alone"}


def test_what_another_run_has_read_stays(steps: Steps) -> None:
    shared = steps.write("a.txt", task_id="shared")
    alone = steps.write("a.txt", task_id="alone")
    for reference, run_id in ((shared, "r2"), (alone, "r1")):
        dataset = reference.as_dataset().as_named_input("x")
        steps.run(READ, arguments=[dataset.as_mount()], task_id=f"reader{run_id}", run_id=run_id)
    scope = RetentionScope(datastores=(), run=("dag", "r1"))

    plan = make_plan(steps.connected, scope, lambda _: set(), by="a task")
    steps.connected.catalog.decide_plan(plan.id, approved=True, by="a task")
    sweep_plan(steps.connected, plan.id, lambda _: set())

    assert plan.kept == {"read by another run": [1, 9]}
    assert list(steps.stored()) == [f"{shared.path}/a.txt"]
    with pytest.raises(DataDeleted, match="run step 'alone' of DAG 'dag', run 'r1', again"):
        steps.run(READ, arguments=[alone.as_dataset().as_named_input("x").as_mount()], task_id="late")
