"""A workspace connected to the Azure ML that is running, with a catalog of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from airflow_aml_data import Workspace
from airflow_aml_data.core.storage import retry
from tests.azure_ml import AzureMl
from tests.azure_ml.workspace.connected import connect


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_catalog: Path) -> Path:
    """The folder of a fresh workspace, whose catalog exists already; retries do not wait long in it."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow_home"))
    monkeypatch.setattr(retry, "_FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")  # Azure ML's own client writes to it
    home = tmp_path / "airflow_home" / "azureml_workspace"
    home.mkdir(parents=True)
    shutil.copy(empty_catalog, home / "catalog.db")
    return home


@pytest.fixture
def connected(azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace, signed in to with a service principal; it declares no datastore."""
    return connect(monkeypatch)
