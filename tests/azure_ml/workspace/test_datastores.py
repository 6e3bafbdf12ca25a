"""Datastores that only the Azure ML workspace knows, and those that both know."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_aml_data import Datastore, Workspace
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.storage.azure.account import azure_account
from airflow_aml_data.core.storage.azure.sas import RenewedSas
from airflow_aml_data.errors import AzureMlRefused, DatastoreNotFound, InvalidDeclaration, UnsupportedDatastore
from tests.azure_ml import AzureMl
from tests.azure_ml.workspace.connected import connect
from tests.azurite.login import SECRET

pytestmark = pytest.mark.slow


def secrets_asked(azure_ml: AzureMl) -> int:
    return sum(each.path.endswith("/listSecrets") for each in azure_ml.requests)


def round_trip(store: Datastore, folder: Path) -> str:
    """What comes back of a file that is stored."""
    source, target = folder / "source", folder / "target"
    source.mkdir()
    (source / "a.txt").write_text("content")
    store.upload(source, "there", overwrite=True)
    store.download(target, "there", overwrite=True)
    return (target / "there" / "a.txt").read_text()


@pytest.mark.parametrize("kind", ["AzureBlob", "AzureDataLakeGen2"])
@pytest.mark.parametrize("credentials", ["AccountKey", "Sas", "ServicePrincipal", "None"])
def test_files_of_a_datastore_are_reached_with_its_own_credentials(
    azure_ml: AzureMl, connected: Workspace, tmp_path: Path, kind: Any, credentials: Any
) -> None:
    azure_ml.add_blob_datastore("theirs", "second", "theirs", credentials, kind=kind)

    assert round_trip(Datastore.get(connected, "Theirs"), tmp_path) == "content"
    assert secrets_asked(azure_ml) == (0 if credentials == "None" else 2), "once for each call, which connects anew"


def test_a_key_that_is_told_instead_of_a_signature_is_used(
    azure_ml: AzureMl, connected: Workspace, tmp_path: Path
) -> None:
    azure_ml.secrets_are = "AccountKey"
    azure_ml.add_blob_datastore("theirs", "second", "theirs")

    assert round_trip(Datastore.get(connected, "theirs"), tmp_path) == "content"


def test_a_signature_is_asked_for_again_before_it_ends(azure_ml: AzureMl, connected: Workspace, tmp_path: Path) -> None:
    azure_ml.secrets_seconds = 3.0
    azure_ml.add_blob_datastore("theirs", "second", "theirs")
    workspace = connected.connect()
    storage = workspace.storage("theirs")

    for number in range(4):
        storage.write_bytes(f"signatures/{number}", b"content")  # by our own requests
        assert storage.read_bytes(f"signatures/{number}") == b"content"  # by obstore
        time.sleep(1.2)

    assert secrets_asked(azure_ml) >= 3


def test_a_signature_that_is_refused_early_is_replaced_once() -> None:
    now = [1000.0]
    given = iter(["?sv=1&se=1970-01-01T02:00:00Z&sig=a", "sv=1&se=1970-01-01T03:00:00Z&sig=b"])
    sas = RenewedSas(lambda: next(given), clock=lambda: now[0])

    assert sas().endswith("sig=a")
    assert not sas.renew(sas.sign_in), "it is new: another one would be refused too"
    now[0] += 120.0
    assert sas.renew(sas.sign_in)
    assert sas().endswith("sig=b")


def test_what_goes_to_another_process_has_the_signature_of_now(azure_ml: AzureMl, connected: Workspace) -> None:
    azure_ml.secrets_seconds = 2.0
    azure_ml.add_blob_datastore("theirs", "second", "theirs")
    config = connected.connect().datastore_config("theirs")
    first = azure_account(config.portable(), "blob").sas()
    time.sleep(1.2)

    later = azure_account(config.portable(), "blob").sas()

    assert first and later and first != later
    assert later not in repr(config) + repr(azure_account(config, "blob"))


def test_a_script_gets_the_datastores_that_its_step_has_opened(
    azure_ml: AzureMl, connected: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure_ml.add_blob_datastore("theirs", "second", "theirs")
    worker = connected.connect()
    worker.storage("theirs").write_bytes("for/script", b"content")
    told = json.loads(json.dumps(worker.to_mapping()))
    asked = secrets_asked(azure_ml)

    script = ConnectedWorkspace(as_script(told))

    assert script.storage("theirs").read_bytes("for/script") == b"content"
    assert secrets_asked(azure_ml) == asked


def as_script(told: dict[str, Any]) -> Any:
    from dataclasses import replace

    from airflow_aml_data.core.configuration import WorkspaceConfig, embedded_home
    from airflow_aml_data.core.connect import _from_worker

    more = {key: told.pop(key) for key in ("connections", "registered", "chosen_default", "is_connected")}
    made = WorkspaceConfig.from_mapping("azureml_default", told, embedded_home(), is_connected=more["is_connected"])
    return replace(made, **_from_worker("azureml_default", more))


def test_without_declared_datastores_the_default_is_that_of_azure_ml(azure_ml: AzureMl, connected: Workspace) -> None:
    azure_ml.add_blob_datastore("theirs", "second", "theirs")
    azure_ml.page_size = 1

    assert connected.get_default_datastore().name == "workspaceblobstore"
    assert sorted(connected.datastores) == ["theirs", "workspaceartifactstore", "workspaceblobstore"]


def test_declared_and_registered_datastores_come_first_and_azure_ml_is_not_asked(
    azure_ml: AzureMl, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = {"Theirs": {"kind": "local", "root": str(tmp_path / "declared")}}
    workspace = connect(monkeypatch, datastores=declared)
    Datastore.register_azure_blob_container(workspace, "registered", "somewhere", "first", skip_validation=True)
    azure_ml.add_blob_datastore("theirs", "second", "theirs")
    azure_ml.requests.clear()
    opened = workspace.connect()

    assert (opened.datastore_name("theirs"), opened.datastore_name(None)) == ("Theirs", "Theirs")
    assert opened.datastore_name("REGISTERED") == "registered"
    assert azure_ml.requests == []
    assert "theirs" not in opened.datastores


def test_a_default_datastore_may_be_one_of_azure_ml(
    azure_ml: AzureMl, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = {"here": {"kind": "local", "root": str(tmp_path / "declared")}}
    workspace = connect(monkeypatch, datastores=declared, default_datastore="workspaceartifactstore")
    assert workspace.get_default_datastore().name == "workspaceartifactstore"


def test_a_place_that_both_know_is_one_datastore(
    azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lake = {"kind": "azure_data_lake_gen2", "filesystem": "shared", "account_name": "second"}
    declared = {"mine": lake, "here": {"kind": "local", "root": str(tmp_path / "declared")}}
    azure_ml.add_blob_datastore("theirs", "second", "shared")
    azure_ml.add_blob_datastore("other", "first", "other")
    workspace = connect(monkeypatch, datastores=declared).connect()

    assert workspace.datastore_name("theirs") == "mine"
    assert "theirs" not in workspace.datastores
    assert workspace.datastore_at("https://second.blob.core.windows.net/shared") == "mine"
    assert workspace.azureml_datastore("mine") == "theirs"
    assert workspace.azureml_datastore("OTHER") == "other"
    with pytest.raises(
        InvalidDeclaration, match=r"'team' cannot reach datastore 'here': it is a folder.*theirs, other"
    ):
        workspace.azureml_datastore("here")


def test_a_place_that_azure_ml_does_not_know_is_out_of_reach_for_its_jobs(
    azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = {"kind": "azure_blob", "container_name": "unknown", "account_name": "second"}
    workspace = connect(monkeypatch, datastores={"mine": blobs}).connect()
    with pytest.raises(
        InvalidDeclaration, match=r"'mine': it is not registered there: https://second\..*/unknown\. They"
    ):
        workspace.azureml_datastore("mine")


def test_a_datastore_of_azure_ml_may_be_made_the_default_one(azure_ml: AzureMl, connected: Workspace) -> None:
    connected.set_default_datastore("WorkspaceArtifactStore")
    assert connected.get_default_datastore().name == "workspaceartifactstore"


def test_where_datastores_are_is_known_without_their_secrets(azure_ml: AzureMl, connected: Workspace) -> None:
    assert connected.connect().locations()["workspaceartifactstore"] == "https://first.blob.core.windows.net/azureml"
    assert secrets_asked(azure_ml) == 0


def test_a_declared_datastore_may_use_the_identity_of_the_workspace(
    azure_ml: AzureMl, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    azure_ml.storage.make_container("second", "declared")
    blobs = {"kind": "azure_blob", "container_name": "declared", "account_name": "second", "conn_id": "azureml_default"}
    workspace = connect(monkeypatch, datastores={"mine": blobs})
    assert round_trip(Datastore.get(workspace, "mine"), tmp_path) == "content"
    assert azure_ml.requests == []


def test_an_address_leads_to_a_datastore_of_azure_ml(azure_ml: AzureMl, connected: Workspace) -> None:
    azure_ml.add_blob_datastore("theirs", "second", "theirs")
    assert connected.connect().datastore_at("https://second.blob.core.windows.net/theirs") == "theirs"


def test_a_name_that_nobody_knows_is_refused_with_all_that_are_known(azure_ml: AzureMl, connected: Workspace) -> None:
    with pytest.raises(
        DatastoreNotFound, match=r"'workspaceblobstor' does not exist.*workspaceartifactstore, workspaceblobstore"
    ):
        connected.connect().datastore_name("workspaceblobstor")


def test_a_kind_that_is_not_offered_is_refused(azure_ml: AzureMl, connected: Workspace) -> None:
    azure_ml.datastores["gen1"] = {
        **azure_ml.datastores["workspaceblobstore"],
        "datastoreType": "OneLake",
        "isDefault": False,
        "artifact": {"artifactType": "LakeHouse", "artifactName": "a"},
        "oneLakeWorkspaceName": "w",
    }
    for key in ("accountName", "containerName", "protocol", "resourceGroup", "subscriptionId"):
        del azure_ml.datastores["gen1"][key]

    assert "gen1" not in connected.datastores
    with pytest.raises(
        UnsupportedDatastore, match=r"'gen1' of Azure ML workspace 'team' is of kind 'OneLake'. Kinds that"
    ):
        connected.connect().datastore_name("gen1")


def test_a_file_share_is_declared_as_azure_ml_says(azure_ml: AzureMl, connected: Workspace) -> None:
    key = azure_ml.azurite.keys["second"]
    azure_ml.datastores["share"] = {
        **azure_ml.datastores["workspaceblobstore"],
        "datastoreType": "AzureFile",
        "fileShareName": "team",
        "accountName": "second",
        "isDefault": False,
    }
    del azure_ml.datastores["share"]["containerName"]
    azure_ml.secrets["share"] = {"secretsType": "AccountKey", "key": key}

    config = connected.connect().datastore_config("share")

    assert (config.kind, config.options["file_share_name"]) == ("azure_file", "team")
    account = azure_account(config, "file")
    assert (account.url, account.sas()[:3]) == ("https://second.file.core.windows.net", "se=")


def test_a_secret_that_may_not_be_read_is_an_error_that_names_the_role(azure_ml: AzureMl, connected: Workspace) -> None:
    azure_ml.may.remove("listSecrets")
    with pytest.raises(
        AzureMlRefused, match=r"secret of datastore 'workspaceblobstore'.*'azureml_default'.*AzureML Data Scientist"
    ) as caught:
        connected.connect().storage("workspaceblobstore")
    assert SECRET not in str(caught.value)


def test_lists_of_datastores_that_may_not_be_read_are_an_error_that_names_the_role(
    azure_ml: AzureMl, connected: Workspace
) -> None:
    azure_ml.may.remove("datastores/read")
    with pytest.raises(
        AzureMlRefused, match=r"no permission to read '/datastores'. Needed: role 'AzureML Data Scientist'"
    ):
        connected.connect().datastore_name("theirs")
