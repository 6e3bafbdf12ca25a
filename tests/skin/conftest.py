"""Real Airflow without a scheduler: ``dag.test()`` on a DAG file, as Airflow's own documentation advises."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from airflow.cli import cli_parser
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.sdk.serde import deserialize
from airflow.utils.session import create_session
from sqlalchemy import create_engine, select, update

from airflow_aml_data import Workspace
from airflow_aml_data.core.catalog.schema import outputs
from tests.core.steps import Steps


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who runs a DAG is slow: the first one of a process takes five seconds."""
    for each in items:
        if "run_dag" in getattr(each, "fixturenames", ()):
            each.add_marker(pytest.mark.slow)


@dataclass
class FinishedRun:
    """A DAG run after its end."""

    dag_id: str
    run_id: str
    state: str
    task_states: dict[str, str]
    tries: dict[str, int]

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        (value,) = self.xcoms(task_id, key)
        return value

    def xcoms(self, task_id: str, key: str = "return_value") -> list[Any]:
        """The values of each task of a mapped one, in map order."""
        with create_session() as session:
            rows = session.scalars(
                select(XComModel)
                .where(
                    XComModel.dag_id == self.dag_id,
                    XComModel.run_id == self.run_id,
                    XComModel.task_id == task_id,
                    XComModel.key == key,
                )
                .order_by(XComModel.map_index)
            )
            return [deserialize(XComModel.deserialize_value(row)) for row in rows]


@pytest.fixture(scope="session", autouse=True)
def every_test_has_airflows_tables(airflow_database: None) -> None:
    """Airflow's models read them."""


@pytest.fixture
def dags_folder() -> Iterator[Path]:
    """Airflow's DAG folder; emptied after the test."""
    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    yield folder
    for each in sorted(folder.rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()


@pytest.fixture
def parse(dags_folder: Path) -> Callable[[str], BundleDagBag]:
    """Parse a DAG file's text as Airflow does, policies included."""

    def parse_text(text: str) -> BundleDagBag:
        (dags_folder / "dag_under_test.py").write_text(text)
        return parse_folder(dags_folder)

    return parse_text


def parse_folder(folder: Path) -> BundleDagBag:
    return BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")


def run(dag: DAG, conf: Mapping[str, Any] | None = None) -> FinishedRun:
    finished = dag.test(run_conf=dict(conf or {}))
    return FinishedRun(
        dag.dag_id,
        finished.run_id,
        str(finished.state),
        {each.task_id: str(each.state) for each in finished.get_task_instances()},
        {each.task_id: each.try_number for each in finished.get_task_instances()},
    )


@pytest.fixture
def run_dag(parse: Callable[[str], BundleDagBag]) -> Callable[..., FinishedRun]:
    """Run the one DAG of a file's text to its end."""

    def run_text(text: str, conf: Mapping[str, Any] | None = None) -> FinishedRun:
        bag = parse(text)
        assert not bag.import_errors, bag.import_errors
        (dag,) = bag.dags.values()
        return run(dag, conf)

    return run_text


@pytest.fixture
def workspace_connection(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with two datastores, declared in the Airflow connection ``azureml_default``."""
    stores = {name: {"kind": "local", "root": str(tmp_path / name)} for name in ("training_data", "my_adlsgen2")}
    connection = {"conn_type": "azureml", "extra": {"datastores": stores}}
    monkeypatch.setenv("AIRFLOW_CONN_AZUREML_DEFAULT", json.dumps(connection))
    return workspace


@pytest.fixture
def old(steps: Steps) -> Steps:
    """Two outputs, 31 days old."""
    for run_id in ("r1", "r2"):
        steps.write("a.txt", run_id=run_id)
    engine = create_engine(steps.connected.config.catalog_connection_string)
    then = datetime.now(UTC) - timedelta(days=31)
    with engine.begin() as connection:
        connection.execute(update(outputs).values(created_at=then, changed_at=then))
    engine.dispose()
    return steps


class Said(NamedTuple):
    """What a command printed."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[str]:
        """The table without its header."""
        return self.out.splitlines()[1:]


@pytest.fixture
def aml_data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Run ``airflow aml-data`` in this process."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")  # a command sets it

    def run(*arguments: str) -> Said:
        parsed = cli_parser.get_parser().parse_args(["aml-data", *arguments])
        capsys.readouterr()
        parsed.func(parsed)
        return Said(*capsys.readouterr())

    return run
