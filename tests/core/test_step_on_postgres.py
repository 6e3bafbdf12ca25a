"""Steps whose workspace, declared in an Airflow connection, keeps its catalog in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_aml_data import Dataset, OutputFileDatasetConfig, Workspace
from airflow_aml_data.errors import StepFailed
from tests.core.steps import READ, WRITE, Steps
from tests.postgres import make_postgres_url, postgres_server

__all__ = ["make_postgres_url", "postgres_server"]

pytestmark = pytest.mark.slow


@pytest.fixture
def postgres_steps(make_postgres_url: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Steps in a workspace of one local datastore and a PostgreSQL catalog."""
    extra = {
        "datastores": {"store": {"kind": "local", "root": str(tmp_path / "store")}},
        "catalog_connection_string": make_postgres_url(),
    }
    monkeypatch.setenv("AIRFLOW_CONN_AZUREML_DEFAULT", json.dumps({"conn_type": "azureml", "extra": extra}))
    return Steps(Workspace(), tmp_path)


def test_an_output_is_handed_on_registered_and_read_by_name(postgres_steps: Steps) -> None:
    out = OutputFileDatasetConfig("out").as_upload().register_on_complete("made")

    made = postgres_steps.run(WRITE, arguments=[out], task_id="write").outputs[0]
    named = Dataset.get_by_name(postgres_steps.workspace, "made")
    postgres_steps.run(READ, arguments=[made], task_id="read")
    postgres_steps.run(READ, arguments=[named.as_named_input("named").as_mount()], task_id="read_named")

    assert (made.dataset, made.dataset_version) == ("made", 1)
    assert postgres_steps.lines == ["a.txt new a.txt", "a.txt new a.txt"]
    assert "s3cret" not in repr(made)


def test_a_failed_step_publishes_nothing_and_its_retry_does(postgres_steps: Steps) -> None:
    out = OutputFileDatasetConfig("out", destination=("store", "fixed")).as_upload()

    with pytest.raises(StepFailed):
        postgres_steps.run(WRITE + "\n    sys.exit(1)", arguments=[out])
    made = postgres_steps.run(WRITE, arguments=[out], try_number=2).outputs[0]

    assert made.to_path() == ["/a.txt"]
    states = {each.try_number: each.state for each in postgres_steps.connected.catalog.find_outputs(dag_id="dag")}
    assert states == {1: "abandoned", 2: "committed"}
