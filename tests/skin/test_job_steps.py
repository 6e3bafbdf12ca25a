"""Steps on Azure ML as Airflow tasks: what the author declares, what the UI gets, when a job is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import TriggerEvent

from airflow_aml_data import OutputReference, RunConfiguration, Workspace
from airflow_aml_data.core.azureml import jobs
from airflow_aml_data.core.azureml.jobs import JobSettings
from airflow_aml_data.core.job import SubmittedStep, submit_step
from airflow_aml_data.core.storage import retry
from airflow_aml_data.errors import InvalidDeclaration
from airflow_aml_data.operators.environments import settings_for
from airflow_aml_data.triggers.job import JobTrigger
from tests.azure_ml import AzureMl, Failure
from tests.azure_ml.workspace.connected import connect
from tests.core.steps import Steps
from tests.skin.conftest import FinishedRun

SCRIPT = """
from azureml.core import Run
import os, sys
run = Run.get_context()
run.log("answer", 42)
print("said in the job")
if len(sys.argv) > 2:
    sys.exit(int(sys.argv[2]))
open(os.path.join(sys.argv[1], "a.txt"), "w").write("a")
"""

DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG, Param
from airflow_aml_data import OutputFileDatasetConfig, PythonScriptStepOperator, RunConfiguration

with DAG("jobs", params={{"compute_target": Param("cpu-cluster")}}):
    PythonScriptStepOperator(
        task_id="step", script_name="step.py", compute_target="{{{{ params.compute_target }}}}",
        runconfig=RunConfiguration(environment="{{{{ 'sklearn' }}}}:1"), retry_delay=timedelta(0),
        arguments=[OutputFileDatasetConfig("out").as_upload().register_on_complete("made"), {arguments}], {more}
    )
"""


@pytest.fixture
def workspace(azure_ml: AzureMl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Connected to the Azure ML that runs; the catalog is fresh."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow_home"))
    monkeypatch.setattr(retry, "_FIRST_WAIT_SECONDS", 0.001)
    return connect(monkeypatch)


@pytest.fixture
def run_job(run_dag: Callable[..., FinishedRun], dags_folder: Path, workspace: Workspace) -> Callable[..., FinishedRun]:
    """Run a DAG with one step."""
    (dags_folder / "step.py").write_text(SCRIPT)

    def run_it(arguments: str = "", more: str = "", **conf: Any) -> FinishedRun:
        return run_dag(DAG_FILE.format(arguments=arguments, more=more), conf)

    return run_it


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_step_on_a_cluster_leaves_what_it_leaves_on_the_worker(
    deferrable: bool, run_job: Callable[..., FinishedRun], azure_ml: AzureMl, workspace: Workspace, tmp_path: Path
) -> None:
    finished = run_job(more=f"deferrable={deferrable}")

    assert finished.state == "success"
    assert finished.xcom("step") == {"answer": 42}
    reference = finished.xcom("step", "out")
    assert isinstance(reference, OutputReference)
    assert (reference.files, reference.dataset, reference.dataset_version) == (1, "made", 1)
    assert workspace.datasets["made"].to_path() == ["/a.txt"]
    (job,) = azure_ml.jobs.values()
    assert job.submitted == 1
    assert job.properties["displayName"] == "step"
    tags = {"dag_id": "jobs", "run_id": finished.run_id, "task_id": "step", "map_index": "-1", "try_number": "1"}
    assert job.body["tags"] == tags
    told = finished.xcom("step", "azureml_job")
    assert told["name"] == job.name
    assert finished.xcom("step", "_link_StudioJobLink") == told["studio_url"]
    assert told["studio_url"].startswith(f"https://ml.azure.com/runs/{job.name}?")
    link = finished.xcom("step", "_link_StoredOutputLink")
    assert link.startswith("https://ml.azure.com/data/datastore/workspaceblobstore/edit?wsid=/subscriptions/")
    assert reference.path in link


def test_the_trigger_form_can_say_that_it_runs_here(run_job: Callable[..., FinishedRun], azure_ml: AzureMl) -> None:
    finished = run_job(compute_target="local")

    assert finished.state == "success"
    assert finished.xcom("step") == {"answer": 42}
    assert azure_ml.jobs == {}
    assert finished.xcoms("step", "_link_StudioJobLink") == []


def test_the_log_follows_the_job(run_job: Callable[..., FinishedRun], capfd: pytest.CaptureFixture[str]) -> None:
    run_job(more="deferrable=False")

    assert "said in the job" in capfd.readouterr().out


def test_a_retry_of_a_failed_job_submits_another(run_job: Callable[..., FinishedRun], azure_ml: AzureMl) -> None:
    finished = run_job(arguments="3", more="retries=1, deferrable=True")

    assert finished.state == "failed"
    assert finished.tries == {"step": 2}
    assert [(each.status, each.submitted) for each in azure_ml.jobs.values()] == [("Failed", 1)] * 2
    assert finished.xcoms("step", "out") == []


def test_a_try_that_never_heard_of_its_job_leaves_it_to_the_next(
    run_job: Callable[..., FinishedRun], azure_ml: AzureMl
) -> None:
    """The service takes the job, and its answers are lost until the try gives up."""
    lost = [Failure(503, path="/jobs/", method="PUT", done=True)] * 4
    azure_ml.failures += lost

    finished = run_job(more="retries=1, deferrable=True")

    assert finished.state == "success"
    assert finished.tries == {"step": 2}
    (job,) = azure_ml.jobs.values()
    assert (job.status, job.history.count("Running")) == ("Completed", 1)
    assert finished.xcom("step", "out").try_number == 1


def test_what_the_author_has_to_change_fails_at_once(run_job: Callable[..., FinishedRun], azure_ml: AzureMl) -> None:
    finished = run_job(more="retries=3", compute_target="no-such-cluster")

    assert finished.state == "failed"
    assert finished.tries == {"step": 1}
    assert azure_ml.jobs == {}


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_job_whose_time_is_over_is_cancelled(
    deferrable: bool, run_job: Callable[..., FinishedRun], azure_ml: AzureMl, workspace: Workspace
) -> None:
    azure_ml.hold.at("Running")

    finished = run_job(more=f"deferrable={deferrable}, execution_timeout=timedelta(seconds=8)")

    assert finished.state == "failed"
    (job,) = azure_ml.jobs.values()
    assert job.wait("Canceled") == "Canceled"
    assert job.body["limits"]["timeout"] == "PT10M8S"
    assert {each.state for each in workspace.connect().catalog.find_outputs()} == {"abandoned"}


# The trigger


@pytest.fixture
def submitted(workspace: Workspace, azure_ml: AzureMl, tmp_path: Path) -> SubmittedStep:
    """A step whose job waits until the test lets it go on."""
    retry.begin()
    azure_ml.hold.at("Queued")
    declared = Steps(workspace, tmp_path).declare("print('hello')", interpreter="python", run_id=tmp_path.name)
    found: list[SubmittedStep] = []
    submit_step(
        workspace.connect(), declared, JobSettings(compute="cpu-cluster", environment="sklearn:1"), found.append
    )
    return found[0]


def trigger_for(step: SubmittedStep, deadline: float | None = None) -> JobTrigger:
    """As Airflow makes it anew, from what it has stored."""
    made = JobTrigger(conn_id="azureml_default", step=step.to_json(), deadline=deadline, poll_seconds=0.05)
    path, fields = made.serialize()
    assert path == "airflow_aml_data.triggers.job.JobTrigger"
    return JobTrigger(**fields)


async def first_event(trigger: JobTrigger) -> TriggerEvent:
    async for event in trigger.run():
        return event
    raise AssertionError("No event.")


@pytest.mark.slow
def test_a_trigger_bears_with_a_service_that_fails(submitted: SubmittedStep, azure_ml: AzureMl) -> None:
    azure_ml.failures += [Failure(status, path="/jobs/") for status in (500, 503, 429, 502)]

    async def go_on() -> TriggerEvent:
        waiting = asyncio.create_task(first_event(trigger_for(submitted)))
        while azure_ml.failures:
            await asyncio.sleep(0.05)
        assert not waiting.done()
        azure_ml.hold.release()
        return await waiting

    assert asyncio.run(go_on()).payload == {"step": submitted.to_json(), "timed_out": False}
    assert azure_ml.jobs[submitted.job].status == "Completed"


@pytest.mark.slow
def test_a_trigger_that_is_killed_cancels_its_job(submitted: SubmittedStep, azure_ml: AzureMl) -> None:
    asyncio.run(trigger_for(submitted).on_kill())

    assert azure_ml.jobs[submitted.job].wait("Canceled") == "Canceled"


@pytest.mark.slow
def test_a_trigger_that_ends_otherwise_does_not(submitted: SubmittedStep, azure_ml: AzureMl) -> None:
    async def restart() -> None:
        azure_ml.requests.clear()
        waiting = asyncio.create_task(first_event(trigger_for(submitted)))
        while not any(each.path.endswith(submitted.job) for each in azure_ml.requests):
            await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])

    asyncio.run(restart())

    assert azure_ml.jobs[submitted.job].cancel_requests == 0
    azure_ml.hold.release()
    assert azure_ml.jobs[submitted.job].wait() == "Completed"


@pytest.mark.slow
def test_a_trigger_without_permission_hands_over_to_the_worker(submitted: SubmittedStep, azure_ml: AzureMl) -> None:
    azure_ml.may.discard("jobs/read")

    assert asyncio.run(first_event(trigger_for(submitted))).payload["timed_out"] is False


def test_waits_grow_up_to_the_longest() -> None:
    waits = jobs.waits(4)
    assert [next(waits) for _ in range(6)] == [1.0, 1.5, 2.25, 3.375, 4, 4]


# What is declared


def test_steps_with_any_cluster_can_be_parsed_and_stored(
    parse: Callable[[str], BundleDagBag], dags_folder: Path
) -> None:
    (dags_folder / "step.py").write_text(SCRIPT)

    bag = parse(DAG_FILE.format(arguments="", more="conn_id='{{ var.value.conn }}', deferrable=True"))

    assert bag.import_errors == {}
    step = bag.dags["jobs"].get_task("step")
    assert {"compute_target", "runconfig", "conn_id", "arguments", "script_name"} <= set(step.template_fields)
    stored = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(bag.dags["jobs"]))
    assert set(stored.get_task("step").operator_extra_link_dict) == {"Azure ML job", "Output in storage"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("compute_target=''", "compute_target is 'local', the name of a compute cluster"),
        ("compute_target=7", "found 7"),
        ("runconfig=RunConfiguration(environment='a:1', image='b')", "Keep one of them"),
        ("runconfig=RunConfiguration(conda={'dependencies': []}, requirements=['a'])", "conda and requirements"),
        ("runconfig=RunConfiguration(instance_count=0)", "instance_count is 0. Allowed: whole numbers"),
        ("runconfig=RunConfiguration(timeout_seconds=1.5)", "timeout_seconds is 1.5"),
    ],
)
def test_what_cannot_work_is_an_import_error(
    more: str, says: str, parse: Callable[[str], BundleDagBag], dags_folder: Path
) -> None:
    (dags_folder / "step.py").write_text(SCRIPT)
    text = DAG_FILE.format(arguments="", more="").replace('compute_target="{{ params.compute_target }}",', "")
    text = text.replace("""runconfig=RunConfiguration(environment="{{ 'sklearn' }}:1"),""", f"{more},")

    (error,) = parse(text).import_errors.values()

    assert says in error


def test_a_run_configuration_in_the_services_terms(tmp_path: Path) -> None:
    (tmp_path / "env.yml").write_text("dependencies: [python=3.12]")
    config = RunConfiguration(conda="env.yml", instance_count="2", timeout_seconds="60", identity="managed")

    settings = settings_for(config, "cluster", tmp_path, execution_timeout=None, tags={})

    assert settings.conda == {"dependencies": ["python=3.12"]}
    assert (settings.instance_count, settings.timeout_seconds, settings.identity) == (2, 60, "managed")
    for conda, says in (("none.yml", "there is no file"), ("bad.yml", "is not YAML"), ("list.yml", "no conda")):
        (tmp_path / "bad.yml").write_text("a: [")
        (tmp_path / "list.yml").write_text("[1]")
        with pytest.raises((InvalidDeclaration, FileNotFoundError), match=says):
            settings_for(RunConfiguration(conda=conda), "cluster", tmp_path, execution_timeout=None, tags={})
