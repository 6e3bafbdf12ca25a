"""Every test has an Airflow home of its own; nothing of the machine's Airflow is read or written."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from airflow_aml_data import Datastore, Workspace
from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.storage import retry
from tests.azure_files import AzureFiles, running_azure_files
from tests.azure_management import AzureManagement, running_management
from tests.azure_ml import AzureMl, running_azure_ml
from tests.azurite import Azurite, running_azurite
from tests.azurite.cloud import Cloud, running_cloud
from tests.core.steps import Steps

if "airflow" in sys.modules:  # it reads its home when it is imported
    raise RuntimeError("Airflow was imported before it had a home of the tests' own.")
_HOME = tempfile.mkdtemp(prefix="aml_data_tests_")
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = f"{_HOME}/dags"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
Path(_HOME, "dags").mkdir()
importlib.import_module("airflow.settings")  # it sets up logging, which is not to happen in the middle of a test

_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no defect
settings.register_profile("here", _patient)
settings.register_profile("ci", _patient, derandomize=True)  # what landed once, lands again
settings.register_profile("fast", _patient, max_examples=15)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for each in items:
        names = {*getattr(each, "fixturenames", ()), *each.path.parts}
        if names & {"azure_ml", "azure_ml_steps"} or each.name.endswith("[azure_ml]"):
            each.add_marker(pytest.mark.azure_ml)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A fresh embedded workspace."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow_home"))
    return Workspace()


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a catalog with its tables and nothing in them; making one takes a second."""
    file = tmp_path_factory.mktemp("catalog") / "catalog.db"
    catalog = Catalog(f"sqlite:///{file}")
    catalog.check()
    catalog.close()
    return file


@pytest.fixture
def steps(workspace: Workspace, tmp_path: Path, empty_catalog: Path) -> Steps:
    """Steps in a fresh embedded workspace, whose catalog exists already."""
    home = tmp_path / "airflow_home" / "azureml_workspace"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(empty_catalog, home / "catalog.db")
    return Steps(workspace, tmp_path)


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Airflow's own tables, in SQLite."""
    from airflow.utils.db import initdb  # most tests need no Airflow

    initdb()


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Azure Blob storage on this machine, shared by the tests of a process: each makes containers of its own."""
    with running_azurite() as running:
        yield running


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Azure under its real host names, over https and with tokens; a test that is in it sets ``cloud.environment``."""
    with running_cloud(tmp_path_factory.mktemp("cloud")) as running:
        yield running


@pytest.fixture(scope="session")
def started_management(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureManagement]:
    """For ``management``, which makes it new for each test."""
    with running_management(tmp_path_factory.mktemp("management")) as running:
        yield running


@pytest.fixture
def management(started_management: AzureManagement, monkeypatch: pytest.MonkeyPatch) -> AzureManagement:
    """Azure's control plane under its real host names, with accounts ``first`` and ``second`` and no lifecycle policy yet."""
    started_management.reset()
    monkeypatch.setattr(retry, "_FIRST_WAIT_SECONDS", 0.001)
    for name, value in started_management.environment.items():
        monkeypatch.setenv(name, value)
    return started_management


@pytest.fixture(scope="session")
def started_azure_ml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMl]:
    """For ``azure_ml``, which makes it new for each test."""
    with running_azure_ml(tmp_path_factory.mktemp("azure_ml")) as running:
        yield running


@pytest.fixture
def azure_ml(started_azure_ml: AzureMl, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMl]:
    """Azure ML under its real host names, new but for what lies in its containers; at the end, used as it is to be."""
    started_azure_ml.reset()
    for name, value in started_azure_ml.environment.items():
        monkeypatch.setenv(name, value)
    yield started_azure_ml
    started_azure_ml.check()


@pytest.fixture
def azure_files() -> Iterator[AzureFiles]:
    """Azure Files on this machine, with accounts ``first`` and ``second`` and no share yet."""
    with running_azure_files() as running:
        yield running


@pytest.fixture
def datastore(workspace: Workspace) -> Datastore:
    """Its default datastore, empty."""
    return workspace.get_default_datastore()


@pytest.fixture
def put(datastore: Datastore) -> Callable[[dict[str, str | bytes]], None]:
    """Put files with the given contents on the default datastore, behind its back."""

    def put_files(contents: dict[str, str | bytes]) -> None:
        root = Path(datastore.workspace.connect().config.datastores[datastore.name].options["root"])
        for path, content in contents.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return put_files
