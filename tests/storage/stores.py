"""Workspaces and connections whose datastores are containers of Azurite, and a look at what lies in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from obstore.store import AzureStore

from tests.azurite import Azurite


def blob_store(container: str, conn_id: str) -> dict[str, str]:
    """How the connection of a workspace declares a container."""
    return {"kind": "azure_blob", "container_name": container, "conn_id": conn_id}


def with_key(azurite: Azurite, url: str, account: str = "first", key: str = "") -> dict[str, Any]:
    """A ``wasb`` connection that signs in with the account's key.

    :param url: Azurite's, or that of a proxy in front of it.
    :param key: Another than the account's.
    """
    return {"conn_type": "wasb", "host": f"{url}/{account}", "login": account, "password": key or azurite.keys[account]}


def with_sas(azurite: Azurite, url: str, sas: str, account: str = "first") -> dict[str, Any]:
    """A ``wasb`` connection that signs in with a SAS token."""
    return {"conn_type": "wasb", "host": f"{url}/{account}", "login": account, "extra": {"sas_token": sas}}


def sas_token(azurite: Azurite, account: str = "first", *, valid: timedelta = timedelta(hours=1)) -> str:
    """A SAS token for everything in an account.

    :param valid: From now on; negative: it has ended.
    """
    return generate_account_sas(
        account,
        azurite.keys[account],
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True, tag=True),
        datetime.now(UTC) + valid,
        start=datetime.now(UTC) - timedelta(days=2),
    )


def airflow_connections(datastores: Mapping[str, Any], **connections: Mapping[str, Any]) -> dict[str, str]:
    """Environment variables for a workspace's connection and those of its datastores, by id."""
    all_of_them = {"azureml_default": {"conn_type": "azureml", "extra": {"datastores": datastores}}, **connections}
    return {f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(each) for conn_id, each in all_of_them.items()}


def names(azurite: Azurite, container: str, prefix: str = "", account: str = "first") -> list[str]:
    """Every blob whose path begins with the folders of a prefix."""
    return [each["path"] for page in _store(azurite, container, account).list(prefix) for each in page]


def content(azurite: Azurite, container: str, prefix: str = "", account: str = "first") -> dict[str, bytes]:
    """Every such blob as the server has it, by path."""
    store = _store(azurite, container, account)
    return {path: store.get(path).bytes().to_bytes() for path in names(azurite, container, prefix, account)}


def put(azurite: Azurite, container: str, blobs: Mapping[str, bytes], account: str = "first") -> None:
    """Write blobs past everything of ours, in one request each: only then the server keeps their MD5."""
    store = _store(azurite, container, account)
    for path, each in blobs.items():
        store.put(path, each, use_multipart=False)


def _store(azurite: Azurite, container: str, account: str) -> AzureStore:
    return _cached(azurite.account_url(account), account, azurite.keys[account], container)


@cache
def _cached(url: str, account: str, key: str, container: str) -> AzureStore:
    return AzureStore(
        container_name=container,
        account_name=account,
        account_key=key,
        endpoint=url,
        client_options={"allow_http": True},
    )
