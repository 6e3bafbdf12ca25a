"""Datastores that name Airflow connections of the microsoft-azure provider."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import AzureStore

from airflow_aml_data import Workspace
from airflow_aml_data.core.configuration import WorkspaceConfig, embedded_home
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.storage.azure.account import ACCOUNT_OPTIONS, AzureAccount, azure_account, obstore_options
from airflow_aml_data.core.storage.base import KINDS, DatastoreConfig, Kind
from airflow_aml_data.errors import InvalidConfiguration, StorageRefused
from airflow_aml_data.hooks.workspace import AmlWorkspaceHook, read_connection
from airflow_aml_data.provider_info import get_provider_info
from tests.azurite import Azurite

KEY = "c2VjcmV0IGtleQ=="
SAS = "sv=2025-01-05&ss=bf&srt=sco&sp=rl&se=2030-01-01&sig=c2VjcmV0%3D"
CHINA = f"AccountName=first;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn"
PRINCIPAL: dict[str, Any] = {"login": "client", "password": "secret", "extra": {"tenant_id": "tenant"}}


class Account:
    """A datastore that shows the account it was opened with."""

    def __init__(self, config: DatastoreConfig) -> None:
        self.config = config
        self.account = azure_account(config, "blob")

    def check(self) -> str:
        options = obstore_options(self.account, self.config.options["container_name"])
        try:
            obstore.list(AzureStore(**options, retry_config={"max_retries": 0})).collect()
        except BaseError as error:
            raise StorageRefused(f"{self.account!r}: {type(error).__name__}") from None
        return f"{self.config.name} ({self.account!r})"


@pytest.fixture(autouse=True)
def kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "account", Kind(f"{__name__}:Account", "obstore", "azure"))


def declare(monkeypatch: pytest.MonkeyPatch, **stores: dict[str, Any]) -> None:
    datastores = {name: {"kind": "account", **options} for name, options in stores.items()}
    monkeypatch.setenv(
        "AIRFLOW_CONN_AZUREML_DEFAULT", json.dumps({"conn_type": "azureml", "extra": {"datastores": datastores}})
    )


def account(connected: ConnectedWorkspace, name: str) -> AzureAccount:
    store = connected.storage(name)
    assert isinstance(store, Account)
    return store.account


def test_each_type_of_connection_is_read_from_airflow(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_WASB", f"wasb://first:{KEY.replace('=', '%3D')}@")
    monkeypatch.setenv("AIRFLOW_CONN_MY_ADLS", json.dumps({"conn_type": "adls", "host": "first", "password": KEY}))
    extra = {"extra__azure_fileshare__connection_string": f"AccountName=first;AccountKey={KEY}"}
    monkeypatch.setenv("AIRFLOW_CONN_MY_SHARE", json.dumps({"conn_type": "azure_fileshare", "extra": extra}))
    conn_ids = ("my_wasb", "my_adls", "my_share")
    declare(monkeypatch, **{conn_id: {"conn_id": conn_id} for conn_id in conn_ids})

    connected = workspace.connect()

    for conn_id in conn_ids:
        assert account(connected, conn_id) == AzureAccount(
            name="first", url="https://first.blob.core.windows.net", conn_id=conn_id, account_key=KEY
        )


def test_a_missing_connection_hurts_only_who_uses_it(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_WASB", f"wasb://first:{KEY.replace('=', '%3D')}@")
    declare(monkeypatch, good={"conn_id": "my_wasb"}, bad={"conn_id": "nowhere"}, odd={"conn_id": 5})

    connected = workspace.connect()

    assert account(connected, "good").name == "first"
    with pytest.raises(InvalidConfiguration, match=r"names the Airflow connection 'nowhere' .* no such connection"):
        connected.storage("bad")
    with pytest.raises(InvalidConfiguration, match="Datastore 'odd': 'conn_id' must be text, found int"):
        connected.storage("odd")


def test_a_step_carries_the_connections_that_its_script_cannot_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MY_WASB", f"wasb://first:{KEY.replace('=', '%3D')}@")
    declare(monkeypatch, good={"conn_id": "my_wasb"}, bad={"conn_id": "nowhere"})

    with caplog.at_level(logging.WARNING):
        carried = json.loads(json.dumps(workspace.connect().to_mapping()))

    assert "gets no access to a datastore: " in caplog.text
    assert "'nowhere'" in caplog.text
    read = {name: ConnectionFields(**fields) for name, fields in carried.pop("connections").items()}
    monkeypatch.delenv("AIRFLOW_CONN_MY_WASB")
    assert (carried.pop("registered"), carried.pop("chosen_default"), carried.pop("is_connected")) == ({}, "", False)
    config = replace(WorkspaceConfig.from_mapping("azureml_default", carried, embedded_home()), connections=read)
    assert account(ConnectedWorkspace(config), "good").account_key == KEY
    assert KEY not in repr(config) + caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("conn_type", "fields"),
    [
        ("wasb", {"login": "first", "password": KEY}),
        ("wasb", {"host": "first.blob.core.windows.net", "login": "x", "extra": {"shared_access_key": KEY}}),
        ("wasb", {"host": "directory", "login": "first", "extra": {"extra__wasb__account_key": KEY}}),
        ("wasb", {"login": "first", "password": KEY, "extra": {"sas_token": f"?{SAS}"}}),
        ("wasb", {"login": "other", "extra": {"sas_token": f"https://first.blob.core.windows.net/?{SAS}"}}),
        ("wasb", {"host": "https://first.blob.core.windows.net", **PRINCIPAL}),
        ("wasb", {"login": "first"}),
        ("wasb", {"login": "x", "password": "y", "extra": {"connection_string": CHINA}}),
        ("wasb", {"extra": {"connection_string": f"BlobEndpoint=http://127.0.0.1:1/first;AccountName=first;AccountKey={KEY}"}}),
        ("wasb", {"extra": {"connection_string": "UseDevelopmentStorage=true"}}),
        ("adls", {"host": "first", "login": "x", "password": KEY}),
        ("adls", {"host": "first", **PRINCIPAL}),
        ("adls", {"password": KEY, "extra": {"account_url": "https://first.dfs.core.windows.net"}}),
        ("adls", {"extra": {"connection_string": f"AccountName=first;AccountKey={KEY}"}}),
        ("azure_fileshare", {"login": "first", "password": KEY}),
        ("azure_fileshare", {"login": "https://first.file.core.windows.net", "password": KEY}),
        ("azure_fileshare", {"login": "first", "password": KEY, "extra": {"sas_token": SAS}}),
        ("azure_fileshare", {"login": "first"}),
        ("azure_fileshare", {"extra": {"connection_string": f"FileEndpoint=https://first.file.core.windows.net/;SharedAccessSignature={SAS}"}}),
    ],
)  # fmt: skip
def test_a_connection_means_what_it_means_to_the_providers_hooks(
    monkeypatch: pytest.MonkeyPatch, conn_type: str, fields: dict[str, Any]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": conn_type, **fields}))
    theirs = client_of_the_hook(conn_type)

    config = DatastoreConfig(name="d", kind="azure_blob", options={}, connection=read_connection("store"))
    ours = azure_account(config, "file" if conn_type == "azure_fileshare" else "blob")

    assert ours.url == theirs.url.replace(".dfs.", ".blob.").partition("?")[0].rstrip("/")
    credential = theirs.credential
    if ours.account_key:
        assert (ours.account_key, ours.name) == (credential.account_key, credential.account_name)
    elif ours.sas_token:
        assert ours.sas_token in (theirs.url.partition("?")[2], str(getattr(credential, "signature", "")).lstrip("?"))
    else:
        assert ours.make_credential is not None
        assert type(ours.make_credential()) is type(credential)


def client_of_the_hook(conn_type: str) -> Any:
    if conn_type == "wasb":
        from airflow.providers.microsoft.azure.hooks.wasb import WasbHook

        return WasbHook("store").get_conn()
    if conn_type == "adls":
        from airflow.providers.microsoft.azure.hooks.data_lake import AzureDataLakeStorageV2Hook

        return AzureDataLakeStorageV2Hook("store").get_conn()
    from airflow.providers.microsoft.azure.hooks.fileshare import AzureFileShareHook

    return AzureFileShareHook(azure_fileshare_conn_id="store").share_service_client


@pytest.mark.slow
def test_the_test_button_says_for_each_datastore_what_works(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, azurite: Azurite
) -> None:
    azurite.create_container("button")
    key = {"good": azurite.keys["first"], "bad": azurite.keys["second"]}
    for name in ("good", "bad"):
        fields = {"conn_type": "wasb", "host": azurite.account_url("first"), "password": key[name]}
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))
    conn_ids = ("good", "bad", "missing")
    declare(monkeypatch, **{each: {"conn_id": each, "container_name": "button"} for each in conn_ids})

    works, sentence = AmlWorkspaceHook().test_connection()

    assert not works
    good, _, rest = sentence.partition("Does not work: ")
    assert good.startswith("Works: good (AzureAccount(name='first'")
    bad, missing = rest.split("; ")
    assert bad.startswith("bad (")
    assert missing.startswith("missing (A datastore names the Airflow connection 'missing'")
    assert not any(each in sentence for each in key.values())


def test_the_form_shows_a_datastore_of_each_kind() -> None:
    said: str = get_provider_info()["connection-types"][0]["conn-fields"]["datastores"]["description"]
    example, _ = json.JSONDecoder().raw_decode(said, said.index("{"))

    assert [each.pop("kind") for each in example.values()] == [
        "local",
        "azure_blob",
        "azure_data_lake_gen2",
        "azure_file",
    ]
    local, *azure = (set(each) for each in example.values())
    assert local == {"root"}
    assert [each - set(ACCOUNT_OPTIONS) for each in azure] == [
        {"container_name"},
        {"filesystem"},
        {"file_share_name"},
    ]
