"""Datastores that are registered by name, beside those that the connection declares."""

from __future__ import annotations

import json

import pytest

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, Workspace
from airflow_aml_data.core import connections
from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.errors import (
    DatastoreInUse,
    DatastoreNotFound,
    InvalidConfiguration,
    InvalidDeclaration,
    InvalidName,
    StorageRefused,
)

LOCATION = {"container_name": "data", "account_name": "account"}


@pytest.fixture
def ws(steps):
    """An embedded workspace, whose only declared datastore is a folder."""
    return steps.workspace


def register(ws: Workspace, name: str = "lake", **more: object) -> Datastore:
    return Datastore.register_azure_blob_container(ws, name, **{**LOCATION, "skip_validation": True, **more})


def test_a_registered_datastore_is_there_for_everybody(ws):
    register(ws)
    assert sorted(ws.datastores) == ["lake", "workspaceblobstore"]
    assert Workspace().connect().datastore_name("LAKE") == "lake"
    assert ws.connect().datastores["lake"].options == LOCATION


def test_each_kind_keeps_v1s_parameters(ws):
    Datastore.register_azure_file_share(ws, "share", "s", "account", skip_validation=True, conn_id="mine")
    assert ws.connect().datastores["share"].options == {
        "file_share_name": "s",
        "account_name": "account",
        "conn_id": "mine",
    }


@pytest.mark.parametrize("secret", ["sas_token", "account_key"])
def test_credentials_are_refused_and_shown_nowhere(ws, secret):
    with pytest.raises(
        InvalidDeclaration, match=f"{secret}: the catalog keeps no credentials.*'wasb'.*conn_id"
    ) as error:
        register(ws, **{secret: "very secret"})
    assert "very secret" not in str(error.value)
    with pytest.raises(InvalidDeclaration, match="client_secret: the catalog keeps no credentials"):
        Datastore.register_azure_data_lake_gen2(ws, "lake", "fs", "account", client_secret="very secret")
    assert sorted(ws.datastores) == ["workspaceblobstore"]


def test_a_name_is_taken_until_it_is_unregistered(ws):
    lake = register(ws)
    with pytest.raises(InvalidDeclaration, match=r"already exists.*overwrite=True"):
        register(ws, "Lake", container_name="other")
    register(ws, container_name="other", overwrite=True)
    assert ws.connect().datastores["lake"].options["container_name"] == "other"
    lake.unregister()
    with pytest.raises(DatastoreNotFound, match="lake"):
        ws.connect().datastore_name("lake")
    with pytest.raises(DatastoreNotFound, match="there are: workspaceblobstore"):
        lake.unregister()


def test_what_the_connection_declares_stays_there(ws):
    with pytest.raises(InvalidDeclaration, match="declared in connection 'azureml_default'"):
        register(ws, "workspaceblobstore")
    with pytest.raises(InvalidDeclaration, match="declared in connection 'azureml_default'"):
        ws.get_default_datastore().unregister()


@pytest.mark.parametrize("name", ["", "a b", "a-b", "a/b", "x" * 256])
def test_names_are_v1s(ws, name):
    with pytest.raises(InvalidName, match="letters, digits and underscores"):
        register(ws, name)


def test_the_default_can_be_chosen_and_then_stays(ws):
    register(ws)
    ws.set_default_datastore("lake")
    assert Workspace().get_default_datastore().name == "lake"
    with pytest.raises(DatastoreInUse, match="default"):
        Datastore(ws, "lake").unregister()
    ws.set_default_datastore("workspaceblobstore")
    assert Workspace().get_default_datastore().name == "workspaceblobstore"
    Datastore(ws, "lake").unregister()
    with pytest.raises(DatastoreNotFound, match="nowhere"):
        ws.set_default_datastore("nowhere")


def test_scripts_know_registered_datastores_and_the_chosen_default(steps):
    register(steps.workspace)
    steps.workspace.set_default_datastore("lake")
    local = OutputFileDatasetConfig("out", ("workspaceblobstore", "x")).as_upload()
    script = """
        import sys
        from azureml.core import Run
        workspace = Run.get_context().experiment.workspace
        print(sorted(workspace.datastores), workspace.get_default_datastore().name)
        open(sys.argv[1] + "/a", "w").write("x")
    """
    steps.run(script, arguments=[local])
    assert steps.lines == ["['lake', 'workspaceblobstore'] lake"]


def test_the_catalog_is_not_opened_for_declared_names(steps, monkeypatch):
    catalog = steps.folder / "no" / "catalog.db"
    config = {"catalog_connection_string": f"sqlite:///{catalog}", "datastores": {"a": {"kind": "local", "root": "/a"}}}
    monkeypatch.setattr(connections, "source", lambda _: config)
    assert Workspace().connect().datastore_name("A") == "a"
    assert not catalog.parent.exists()


def test_one_look_into_the_catalog_serves_every_name(ws, monkeypatch):
    register(ws)
    looks = []
    look = Catalog.list_datastores
    monkeypatch.setattr(Catalog, "list_datastores", lambda catalog: looks.append(catalog) or look(catalog))
    connected = ws.connect()
    assert [connected.datastore_name(each) for each in (None, "lake", "LAKE", None)] == [
        "workspaceblobstore",
        "lake",
        "lake",
        "workspaceblobstore",
    ]
    assert len(looks) == 1


def test_asking_for_the_default_makes_no_catalog(workspace, tmp_path):
    assert workspace.get_default_datastore().name == "workspaceblobstore"
    assert not list(tmp_path.rglob("catalog.db"))


@pytest.fixture
def account(azurite, monkeypatch):
    """Connection ``mine`` to an account of Azurite."""
    fields = ConnectionFields(
        conn_id="mine", conn_type="wasb", extra={"connection_string": azurite.connection_string()}
    )
    monkeypatch.setattr(connections, "reader", {"mine": fields}.__getitem__)
    return {"account_name": "first", "conn_id": "mine", "skip_validation": False}


@pytest.mark.slow
def test_a_container_is_looked_at_before_it_is_registered(ws, azurite, account):
    azurite.create_container("registered")
    with pytest.raises(StorageRefused, match="missing"):
        register(ws, container_name="missing", **account)
    with pytest.raises(InvalidConfiguration, match="'second'"):
        register(ws, container_name="registered", **{**account, "account_name": "second"})
    store = register(ws, container_name="registered", **account)

    (copy := ws.get_default_datastore()).workspace.connect().storage(None).write_bytes("d/a.txt", b"content")
    store.copy(copy.path("d/*.txt"), "there")
    assert store.workspace.connect().storage("lake").read_bytes("there/a.txt") == b"content"
    assert azurite.keys["first"] not in json.dumps(ws.connect().to_mapping()["registered"])


@pytest.mark.slow
def test_a_datastore_with_data_that_somebody_may_read_is_kept(ws, azurite, account):
    azurite.create_container("kept")
    store = register(ws, container_name="kept", **account)
    store.workspace.connect().storage("lake").write_bytes("a.csv", b"content")
    Dataset.File.from_files((store, "a.csv")).register(ws, "numbers")
    with pytest.raises(DatastoreInUse, match="dataset 'numbers' version 1"):
        store.unregister()
    with pytest.raises(DatastoreInUse, match="dataset 'numbers' version 1"):
        register(ws, container_name="elsewhere", overwrite=True)
    Dataset.get_by_name(ws, "numbers").unregister_all_versions()
    store.unregister()
