"""Every kind of datastore against one contract."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.storage.base import DatastoreConfig, Storage, open_storage
from tests.azurite import Azurite
from tests.storage.conformance import StorageContract


class TestLocal(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(DatastoreConfig(name="store", kind="local", options={"root": str(tmp_path / "root")}))


@pytest.mark.slow
class TestBlob(StorageContract):
    @pytest.fixture
    def storage(self, azurite: Azurite) -> Storage:
        return open_container(azurite, "azure_blob", "container_name")


@pytest.mark.slow
class TestDataLake(StorageContract):
    @pytest.fixture
    def storage(self, azurite: Azurite) -> Storage:
        return open_container(azurite, "azure_data_lake_gen2", "filesystem")


def open_container(azurite: Azurite, kind: str, option: str) -> Storage:
    """An empty container, with the account's key."""
    name = f"c{uuid.uuid4().hex}"
    azurite.create_container(name)
    connection = ConnectionFields(
        conn_id="wasb_test", conn_type="wasb", extra={"connection_string": azurite.connection_string()}
    )
    options = {option: name, "conn_id": "wasb_test"}
    return open_storage(DatastoreConfig(name="store", kind=kind, options=options, connection=connection))
