"""A workspace whose catalog exists already (making one takes a second), and steps in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_aml_data import Workspace
from airflow_aml_data.core.catalog import Catalog
from tests.core.steps import Steps
from tests.core.web_server import WebServer, web_server


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a catalog with its tables and nothing in them."""
    file = tmp_path_factory.mktemp("catalog") / "catalog.db"
    catalog = Catalog(f"sqlite:///{file}")
    catalog.check()
    catalog.close()
    return file


@pytest.fixture
def steps(workspace: Workspace, tmp_path: Path, empty_catalog: Path) -> Steps:
    """Steps in a fresh embedded workspace."""
    home = tmp_path / "airflow_home" / "azureml_workspace"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(empty_catalog, home / "catalog.db")
    return Steps(workspace, tmp_path)


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server on this machine, with nothing on it."""
    with web_server() as server:
        yield server
