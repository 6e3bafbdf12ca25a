"""What README shows is run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_iris

from airflow_aml_data import Dataset, Datastore, Workspace
from airflow_aml_data.core.configuration import WorkspaceConfig
from airflow_aml_data.core.connect import ConnectedWorkspace
from tests.azure_management import AzureManagement, airflow_workspace
from tests.azure_ml import AzureMl
from tests.azure_ml.workspace.connected import connect
from tests.core.steps import Steps
from tests.skin.conftest import FinishedRun

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(info: str) -> dict[str, str]:
    """Fenced blocks whose info string is ``info=NAME``, by name."""
    return dict(re.findall(rf"^```{info}=(\S+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL))


def test_tables_by_hand(
    workspace: Workspace, datastore: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    months = {name: tmp_path / "flights" / f"{name}.csv" for name in ("01", "02")}
    (tmp_path / "flights").mkdir()
    for name, file in months.items():
        rows = "".join(f"2013-{name}-{day:02}T10:00,{day * 3},0{day}\n" for day in range(1, 29))
        file.write_text(f"time,delay,flight\n{rows}")
    datastore.upload(tmp_path / "flights", "flights")
    monkeypatch.chdir(tmp_path)

    exec(blocks("python hand")["tables.py"], {})

    late = Dataset.get_by_name(workspace, "late_flights").to_pandas_dataframe()
    assert list(late.columns) == ["month", "time", "delay"]
    assert (late["delay"] > 15).all()
    assert len(late) == 2 * 23
    printed = capsys.readouterr().out
    assert "2013-02" in printed
    assert "2013-01" not in printed
    assert len(list((tmp_path / "test").iterdir())) == 2


@pytest.mark.slow
def test_the_commands_for_cleaning_up(old: Steps, aml_data: Callable[..., Any]) -> None:
    """Of three outputs, one is pinned; the others are less than half of all bytes."""
    old.write("large.txt", run_id="x" * 60)
    pinned = old.connected.catalog.find_outputs()[-1].id

    for line in blocks("shell commands")["clean_up"].splitlines():
        program, group, *arguments = shlex.split(line.replace("OUTPUT_ID", pinned).replace("train_iris", "dag"))
        assert (program, group) == ("airflow", "aml-data")
        said = aml_data(*arguments)

    assert "for the audit" in said.out
    assert sorted(each.state for each in old.connected.catalog.find_outputs()) == ["committed", "committed", "deleted"]


@pytest.mark.slow
def test_commands_and_mapped_steps(run_dag: Callable[..., FinishedRun]) -> None:
    finished = run_dag(blocks("python dag")["count_words.py"])

    assert finished.state == "success"
    (words,) = finished.xcom("add", "total").download()
    assert Path(words).read_text().split() == ["2", "1"]


@pytest.mark.slow
def test_the_pipeline_on_the_first_screen_runs(
    run_dag: Callable[..., FinishedRun], dags_folder: Path, datastore: Datastore, tmp_path: Path
) -> None:
    iris = load_iris(as_frame=True)
    frame = iris.data.assign(species=[iris.target_names[each] for each in iris.target])
    (tmp_path / "data").mkdir()
    frame.to_csv(tmp_path / "data" / "iris.csv", index=False)
    datastore.upload(tmp_path / "data")
    for name, text in blocks("python script").items():
        (dags_folder / name).write_text(text)

    finished = run_dag(blocks("python dag")["train_iris.py"])

    assert finished.state == "success"
    assert finished.xcom("score")["accuracy"] > 0.8
    assert finished.xcom("train", "model").dataset == "iris_model"


@pytest.mark.slow
def test_the_step_on_a_cluster_runs_there(
    run_dag: Callable[..., FinishedRun],
    dags_folder: Path,
    azure_ml: AzureMl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow_home"))
    workspace = connect(monkeypatch)
    load_iris(as_frame=True).frame.rename(columns={"target": "species"}).to_csv(tmp_path / "iris.csv", index=False)
    workspace.get_default_datastore().upload_files([tmp_path / "iris.csv"], overwrite=True)
    (dags_folder / "train.py").write_text(blocks("python script")["train.py"])

    finished = run_dag(blocks("python dag")["train_on_cluster.py"], {"compute_target": "cpu-cluster"})

    assert finished.state == "success"
    (job,) = azure_ml.jobs.values()
    assert job.status == "Completed"
    assert finished.xcom("train", "model").dataset == "iris_model"
    assert workspace.datasets["iris_model"].to_path() == ["/centres.csv"]


@pytest.mark.slow
def test_the_lifecycle_rule_shown_is_written(
    run_dag: Callable[..., FinishedRun],
    steps: Steps,
    management: AzureManagement,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in airflow_workspace().items():
        monkeypatch.setenv(name, value)

    finished = run_dag(blocks("python dag")["expire_scratch.py"])

    assert finished.state == "success"
    assert management.policies["first"] == {"rules": [finished.xcom("rule")]}


def connection_shown(number: int, monkeypatch: pytest.MonkeyPatch) -> WorkspaceConfig:
    """What the workspace's connection of README says, read through Airflow."""
    found = re.findall(r"^```json connection\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("AIRFLOW_CONN_AZUREML_DEFAULT", json.dumps(json.loads(found[number])))
    return Workspace().connect().config


def test_the_connection_shown_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_POSTGRES", "postgres://u:p@host/db")
    config = connection_shown(0, monkeypatch)
    assert list(config.datastores) == ["workspaceblobstore", "training_data"]
    assert config.default_datastore == "workspaceblobstore"


def test_the_datastores_in_azure_shown_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    config = connection_shown(1, monkeypatch)
    for conn_type in ("wasb", "adls", "azure_fileshare"):
        account = {"conn_type": conn_type, "host": "account", "login": "account", "password": "a2V5"}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_type.upper()}_DEFAULT", json.dumps(account))
    connected = ConnectedWorkspace(config)
    assert [connected.storage(name).location for name in config.datastores] == [
        "https://account.blob.core.windows.net/ml",
        "https://account.blob.core.windows.net/raw",
        "https://account.file.core.windows.net/team",
        "https://myaccount.blob.core.windows.net/open",
    ]


def test_the_connection_to_azure_ml_shown_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    config = connection_shown(2, monkeypatch)
    assert config.is_connected
    assert ConnectedWorkspace(config).azureml.arm_id.endswith(
        "/resourceGroups/GROUP/providers/Microsoft.MachineLearningServices/workspaces/TEAM"
    )
    assert "CLIENT_SECRET" not in repr(config)


def test_the_commands_shown_exist() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()

    for target in re.findall(r"make ([a-z-]+)", " ".join(re.findall(r"`+[^`]*make [a-z-]+[^`]*`+", README))):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
