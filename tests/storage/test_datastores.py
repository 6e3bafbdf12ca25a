"""Every kind of datastore against one contract."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.storage.base import DatastoreConfig, Storage, open_storage
from airflow_aml_data.errors import InvalidPath
from tests.azure_files import AzureFiles
from tests.azurite import Azurite
from tests.storage.conformance import NAMES, StorageContract, listed


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


_REFUSED_BY_SHARES = ["what?", "dot.", "q'\""]


@pytest.mark.slow
class TestFileShare(StorageContract):
    @pytest.fixture
    def storage(self, azure_files: AzureFiles) -> Storage:
        return open_share(azure_files)

    @pytest.mark.parametrize("name", [each for each in NAMES if each not in _REFUSED_BY_SHARES])
    def test_any_name_comes_back(self, storage, put, tmp_path, name):
        super().test_any_name_comes_back(storage, put, tmp_path, name)

    @pytest.mark.parametrize("name", _REFUSED_BY_SHARES)
    def test_names_that_a_share_cannot_keep_are_refused(self, storage, put, name):
        with pytest.raises(InvalidPath, match="share 'files' of account 'first', connection 'share_test'"):
            put(f"n/{name}")
        assert listed(storage) == []


def open_share(files: AzureFiles) -> Storage:
    """An empty share, with the account's key."""
    files.create_share("files")
    connection = ConnectionFields(
        conn_id="share_test",
        conn_type="azure_fileshare",
        login=files.account_url(),
        password=files.keys["first"],
    )
    options = {"file_share_name": "files", "conn_id": "share_test"}
    return open_storage(DatastoreConfig(name="store", kind="azure_file", options=options, connection=connection))


def open_container(azurite: Azurite, kind: str, option: str) -> Storage:
    """An empty container, with the account's key."""
    name = f"c{uuid.uuid4().hex}"
    azurite.create_container(name)
    connection = ConnectionFields(
        conn_id="wasb_test", conn_type="wasb", extra={"connection_string": azurite.connection_string()}
    )
    options = {option: name, "conn_id": "wasb_test"}
    return open_storage(DatastoreConfig(name="store", kind=kind, options=options, connection=connection))
