"""What an Airflow connection says of a storage account. Nothing here asks a network."""

from __future__ import annotations

from typing import Any

import pytest
from azure.identity import ClientSecretCredential, DefaultAzureCredential

from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.storage.azure.account import AzureAccount, Service, azure_account
from airflow_aml_data.core.storage.base import DatastoreConfig
from airflow_aml_data.errors import InvalidConfiguration

KEY = "c2VjcmV0IGtleQ=="
SAS = "sv=2025-01-05&ss=b&sp=rl&sig=c2VjcmV0%3D"
CHINA = f"DefaultEndpointsProtocol=http;AccountName=first;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn"
SECRETS = (KEY, SAS, "c2VjcmV0", "hunter2")


def account(
    conn_type: str = "wasb",
    *,
    service: Service = "blob",
    options: dict[str, str] | None = None,
    **fields: Any,
) -> AzureAccount:
    connection = ConnectionFields(conn_id="store", conn_type=conn_type, **fields)
    found = azure_account(
        DatastoreConfig(name="data", kind="azure_blob", options=options or {}, connection=connection), service
    )
    assert not any(secret in repr(found) + repr(connection) for secret in SECRETS)
    return found


def made(found: AzureAccount) -> object:
    assert found.make_credential is not None
    return found.make_credential()


@pytest.mark.parametrize(
    ("conn_type", "fields"),
    [
        ("wasb", {"login": "First", "password": KEY}),
        ("wasb", {"host": "https://first.blob.core.windows.net/", "password": KEY}),
        ("wasb", {"host": "first.blob.core.windows.net", "login": "ignored", "password": KEY}),
        ("wasb", {"host": "https://first.dfs.core.windows.net", "extra": {"shared_access_key": KEY}}),
        ("wasb", {"host": "a directory", "login": "first", "extra": {"account_key": KEY}}),
        ("wasb", {"login": "first", "extra": {"extra__wasb__shared_access_key": KEY}}),
        ("wasb", {"extra": {"connection_string": f"AccountName=first;AccountKey={KEY}"}}),
        ("wasb", {"extra": {"connection_string": f"BlobEndpoint=https://first.blob.core.windows.net;AccountName=first;AccountKey={KEY};"}}),
        ("wasb", {"extra": {"connection_string": f"DfsEndpoint=https://first.dfs.core.windows.net/;accountname=first;accountkey={KEY}"}}),
        ("adls", {"host": "first", "login": "somebody", "password": KEY}),
        ("adls", {"host": "https://first.dfs.core.windows.net", "password": KEY}),
        ("adls", {"password": KEY, "extra": {"account_url": "https://first.dfs.core.windows.net"}}),
        ("adls", {"extra": {"extra__adls__connection_string": f"AccountName=first;AccountKey={KEY}"}}),
        ("azure_fileshare", {"login": "first", "password": KEY}),
        ("azure_fileshare", {"login": "https://first.file.core.windows.net", "password": KEY}),
        ("azure_fileshare", {"extra": {"connection_string": f"FileEndpoint=https://first.file.core.windows.net/;AccountName=first;AccountKey={KEY}"}}),
    ],
)  # fmt: skip
def test_every_way_to_write_an_account_and_its_key_is_one_account(conn_type: str, fields: dict[str, Any]) -> None:
    for service in ("blob", "file"):
        expected = AzureAccount(
            name="first", url=f"https://first.{service}.core.windows.net", conn_id="store", account_key=KEY
        )
        assert account(conn_type, service=service, **fields) == expected
    assert expected.token_credential() is None


@pytest.mark.parametrize(
    ("fields", "name", "url"),
    [
        ({"host": "http://127.0.0.1:10000/first", "password": KEY}, "first", "http://127.0.0.1:10000/first"),
        ({"host": "http://azurite:10000/first/", "password": KEY}, "first", "http://azurite:10000/first"),
        (
            {"host": "https://first.z12.blob.storage.azure.net", "password": KEY},
            "first",
            "https://first.z12.blob.storage.azure.net",
        ),
        (
            {"host": "https://first.privatelink.blob.core.windows.net:444", "password": KEY},
            "first",
            "https://first.privatelink.blob.core.windows.net:444",
        ),
        (
            {"extra": {"connection_string": CHINA}},
            "first",
            "http://first.blob.core.chinacloudapi.cn",
        ),
        (
            {
                "extra": {
                    "connection_string": f"AccountName=first;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:1/first;FileEndpoint=http://127.0.0.1:2/first"
                }
            },
            "first",
            "http://127.0.0.1:1/first",
        ),
        (
            {"extra": {"connection_string": "UseDevelopmentStorage=true"}},
            "devstoreaccount1",
            "http://127.0.0.1:10000/devstoreaccount1",
        ),
    ],
)
def test_addresses_outside_the_public_cloud_are_taken_as_they_are(fields: dict[str, Any], name: str, url: str) -> None:
    found = account(**fields)

    assert (found.name, found.url) == (name, url)


@pytest.mark.parametrize(
    ("conn_type", "fields"),
    [
        ("wasb", {"login": "first", "extra": {"sas_token": SAS}}),
        ("wasb", {"login": "first", "password": "hunter2", "extra": {"sas_token": f"?{SAS}"}}),
        ("wasb", {"login": "other", "extra": {"sas_token": f"https://first.blob.core.windows.net/?{SAS}"}}),
        ("wasb", {"extra": {"sas_token": f"https://first.blob.core.windows.net/container?{SAS}"}}),
        ("wasb", {"host": f"https://first.blob.core.windows.net/?{SAS}"}),
        ("wasb", {"login": "first", "password": f"?{SAS}"}),
        ("wasb", {"extra": {"connection_string": f"BlobEndpoint=https://first.blob.core.windows.net/;SharedAccessSignature={SAS}"}}),
        ("adls", {"host": "first", "password": SAS}),
        ("azure_fileshare", {"login": "first", "password": "hunter2", "extra": {"sas_token": f"?{SAS}"}}),
    ],
)  # fmt: skip
def test_a_sas_token_is_read_wherever_the_hooks_take_one(conn_type: str, fields: dict[str, Any]) -> None:
    assert account(conn_type, **fields) == AzureAccount(
        name="first", url="https://first.blob.core.windows.net", conn_id="store", sas_token=SAS
    )


@pytest.mark.parametrize(
    ("conn_type", "extra"),
    [
        ("wasb", {"client_secret_auth_config": {"authority": "https://login.chinacloudapi.cn"}}),
        ("adls", {"proxies": {"https": "http://proxy:1"}}),
        ("azure_fileshare", {}),
    ],
)
def test_a_service_principal_has_its_client_id_as_login(conn_type: str, extra: dict[str, Any]) -> None:
    found = account(conn_type, host="first", login="client", password="hunter2", extra={"tenant_id": "tenant", **extra})

    assert (found.name, found.account_key, found.sas_token) == ("first", "", "")
    assert isinstance(made(found), ClientSecretCredential)
    assert found.token_credential() is found.token_credential()


def test_without_key_and_token_the_default_credential_is_used() -> None:
    found = account(
        login="first", extra={"managed_identity_client_id": "client", "workload_identity_tenant_id": "tenant"}
    )

    assert isinstance(made(found), DefaultAzureCredential)


def test_a_datastore_without_connection_uses_the_default_credential() -> None:
    options = {"account_name": "first", "endpoint": "core.usgovcloudapi.net"}

    found = azure_account(DatastoreConfig(name="data", kind="azure_file", options=options), "file")

    assert (found.name, found.url) == ("first", "https://first.file.core.usgovcloudapi.net")
    assert isinstance(made(found), DefaultAzureCredential)


def test_one_identity_serves_the_accounts_that_datastores_name() -> None:
    fields = {"login": "client", "password": "hunter2", "extra": {"tenant_id": "tenant"}}

    assert account(options={"account_name": "first"}, **fields).url == "https://first.blob.core.windows.net"
    assert account(options={"account_name": "second"}, **fields).url == "https://second.blob.core.windows.net"


def test_a_connection_string_without_credentials_is_anonymous() -> None:
    found = account(extra={"connection_string": "AccountName=first"})

    assert (found.account_key, found.sas_token, found.token_credential()) == ("", "", None)


@pytest.mark.parametrize(
    ("conn_type", "options", "fields", "message"),
    [
        ("http", {}, {"login": "first"}, "is of type 'http'. Allowed: wasb, adls, azure_fileshare"),
        ("azure_data_lake", {}, {"login": "first"}, "is of type 'azure_data_lake'. Allowed"),
        ("wasb", {}, {"password": KEY}, "names no storage account"),
        ("adls", {}, {"login": "client", "password": KEY}, "names no storage account"),
        ("wasb", {}, {"login": "client", "password": "hunter2", "extra": {"tenant_id": "t"}}, "names no storage account"),
        ("wasb", {"account_name": "second"}, {"login": "first", "password": KEY}, "is for account 'first', .* 'account_name' is 'second'"),
        ("wasb", {}, {"login": "me@example", "password": KEY}, "gives 'me@example' as the storage account. Allowed: its name"),
        ("wasb", {}, {"login": "first", "password": "hunter2!"}, "'password' is neither an account key"),
        ("wasb", {}, {"login": "first", "extra": {"sas_token": "hunter2"}}, "'sas_token' holds no signature"),
        ("wasb", {}, {"login": "first", "extra": {"sas_token": 5}}, "'sas_token' must be text, found int"),
        ("wasb", {}, {"host": "first", "extra": {"tenant_id": "t"}}, "has 'tenant_id' and no login"),
        ("wasb", {}, {"host": "first", "login": "c", "extra": {"tenant_id": "t"}}, "has 'tenant_id' and no password"),
        ("wasb", {}, {"extra": {"connection_string": f"AccountKey={KEY}"}}, "'connection_string' has no AccountName"),
        ("wasb", {}, {"extra": {"connection_string": "hunter2"}}, "'connection_string' has no AccountName"),
        ("wasb", {}, {"host": "http://127.0.0.1:1/first"}, "http://127.0.0.1:1/first. Tokens are sent over https only"),
    ],
)  # fmt: skip
def test_a_connection_that_cannot_work_is_one_clear_error(
    conn_type: str, options: dict[str, str], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message) as raised:
        account(conn_type, options=options, **fields)

    assert "'store'" in str(raised.value)
    assert not any(secret in str(raised.value) for secret in SECRETS)


def test_a_datastore_with_neither_connection_nor_account_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="which has no 'conn_id', names no storage account"):
        azure_account(DatastoreConfig(name="data", kind="azure_blob", options={}), "blob")
