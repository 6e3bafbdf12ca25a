"""A workspace connected to the Azure ML that is running, with a catalog of its own; and how tests ask that without it."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_aml_data import Workspace
from airflow_aml_data.core.storage import retry
from tests.azure_ml import GROUP, SUBSCRIPTION, WORKSPACE, WORKSPACE_ID, AzureMl
from tests.azure_ml.connected import connect
from tests.azurite.login import CLIENT, SECRET, TENANT

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_catalog: Path) -> Path:
    """The folder of a fresh workspace, whose catalog exists already; retries do not wait long in it."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow_home"))
    monkeypatch.setattr(retry, "_FIRST_WAIT_SECONDS", 0.001)
    home = tmp_path / "airflow_home" / "azureml_workspace"
    home.mkdir(parents=True)
    shutil.copy(empty_catalog, home / "catalog.db")
    return home


@pytest.fixture
def connected(azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace, signed in to with a service principal; it declares no datastore."""
    return connect(monkeypatch)


@pytest.fixture
def client(azure_ml: AzureMl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MLClient]:
    """The unmodified SDK, in a folder that is no repository: it tells the service of those."""
    from azure.ai.ml import MLClient
    from azure.identity import ClientSecretCredential

    monkeypatch.chdir(tmp_path)
    with ClientSecretCredential(TENANT, CLIENT, SECRET) as credential:
        yield MLClient(
            credential, SUBSCRIPTION, GROUP, WORKSPACE, show_progress=False, enable_telemetry=False, retry_total=0
        )


def token(scope: str = "https://management.azure.com/.default") -> str:
    from azure.identity import ClientSecretCredential

    with ClientSecretCredential(TENANT, CLIENT, SECRET) as credential:
        return credential.get_token(scope).token


def ask(method: str, url: str, body: Any = None, bearer: str | None = None) -> tuple[int, Any]:
    """Status and content of an answer.

    :param bearer: None: a good token.
    """
    headers = {"Authorization": f"Bearer {token() if bearer is None else bearer}", "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def history(path: str) -> Any:
    """What the workspace's own host tells of its runs."""
    status, content = ask("GET", f"https://eastus.api.azureml.ms/history/v1.0{WORKSPACE_ID}{path}")
    assert status == 200, content
    return content
