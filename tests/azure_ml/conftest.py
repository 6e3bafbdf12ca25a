"""How the tests of the emulator ask it: with the SDK, and without."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.azure_ml import GROUP, SUBSCRIPTION, WORKSPACE, WORKSPACE_ID, AzureMl
from tests.azurite.login import CLIENT, SECRET, TENANT

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


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
