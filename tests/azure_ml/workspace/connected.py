"""The connection of the tests, which names the workspace that is running."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_aml_data import Workspace
from tests.azure_ml import GROUP, SUBSCRIPTION, WORKSPACE
from tests.azurite.login import CLIENT, SECRET, TENANT

NAMES = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "workspace_name": WORKSPACE}
PRINCIPAL = {"login": CLIENT, "password": SECRET}


def connect(
    monkeypatch: pytest.MonkeyPatch,
    *,
    login: str = CLIENT,
    password: str = SECRET,
    tenant_id: str = TENANT,
    **extra: Any,
) -> Workspace:
    """The workspace of a connection that signs in with a service principal.

    :param login: Empty, with ``password`` and ``tenant_id``: the identity of the machine.
    :param extra: Further keys, or others for those that name the workspace.
    """
    said = {key: value for key, value in {**NAMES, "tenant_id": tenant_id, **extra}.items() if value}
    fields = {"conn_type": "azureml", "login": login, "password": password, "extra": said}
    monkeypatch.setenv("AIRFLOW_CONN_AZUREML_DEFAULT", json.dumps(fields))
    return Workspace()


def connect_as_machine(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> Workspace:
    """The workspace of a connection without credentials: who signs in is for the machine to say."""
    return connect(monkeypatch, login="", password="", tenant_id="", **extra)
