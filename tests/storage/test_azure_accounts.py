"""Every way to sign in, at a real Azurite."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from obstore.exceptions import UnauthenticatedError
from obstore.store import AzureStore

from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.storage.azure import tokens
from airflow_aml_data.core.storage.azure.account import AzureAccount, azure_account, obstore_options
from airflow_aml_data.core.storage.azure.blob import BlobClient
from airflow_aml_data.core.storage.azure.rest import Container
from airflow_aml_data.core.storage.base import DatastoreConfig, StoredFile
from airflow_aml_data.core.storage.fetch import read_whole
from airflow_aml_data.core.storage.remote import RemoteStorage
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.core.storage.send import send
from airflow_aml_data.errors import AmlDataError, StorageError, StorageRefused
from tests.azurite import Azurite
from tests.azurite.cloud import Cloud
from tests.azurite.login import ASSERTION, CLIENT, IDENTITY_HEADER, SECRET, TENANT

pytestmark = pytest.mark.slow

_CONTAINER = "accounts"
_AZURE = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT}


@pytest.fixture(scope="module")
def container(azurite: Azurite, cloud: Cloud) -> None:
    """In both Azurites."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environment.items():
            patch.setenv(name, value)
        for each in (azurite, cloud.azurite):
            each.create_container(_CONTAINER)


@pytest.fixture(autouse=True)
def inside(cloud: Cloud, container: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """This process is in the cloud, and reaches nothing else."""
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    yield
    assert cloud.refused == []


def account(**fields: Any) -> AzureAccount:
    options = {"account_name": "first"}
    connection = ConnectionFields(conn_id="store", **({"conn_type": "wasb"} | fields)) if fields else None
    return azure_account(DatastoreConfig(name="d", kind="azure_blob", options=options, connection=connection), "blob")


def store_of(found: AzureAccount) -> Any:
    return AzureStore(**obstore_options(found, _CONTAINER), retry_config={"max_retries": 0})


def moves_a_blob(found: AzureAccount) -> bool:
    store = store_of(found)
    obstore.put(store, "folder/ä b.txt", b"content")
    return bytes(obstore.get(store, "folder/ä b.txt").bytes()) == b"content"


def sas(azurite: Azurite) -> str:
    return generate_account_sas(
        "first",
        account_key=azurite.keys["first"],
        resource_types=ResourceTypes(container=True, object=True),
        permission=AccountSasPermissions(read=True, write=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )


@pytest.mark.parametrize("protocol", ["http", "https"])
def test_keys_and_sas_tokens_work_over_http_and_https(azurite: Azurite, cloud: Cloud, protocol: str) -> None:
    server = azurite if protocol == "http" else cloud.azurite
    host, key = server.account_url("first"), server.keys["first"]

    assert moves_a_blob(account(host=host, password=key))
    assert moves_a_blob(account(host=host, extra={"sas_token": f"?{sas(server)}"}))
    assert moves_a_blob(account(extra={"connection_string": server.connection_string("first")}))
    assert moves_a_blob(
        account(extra={"connection_string": f"BlobEndpoint={host};SharedAccessSignature={sas(server)}"})
    )


@pytest.mark.parametrize("conn_type", ["wasb", "adls", "azure_fileshare"])
def test_a_connection_of_any_type_works_at_azures_own_address(cloud: Cloud, conn_type: str) -> None:
    key = cloud.azurite.keys["first"]
    host = {"host": "first"} if conn_type == "adls" else {"login": "first"}

    assert moves_a_blob(account(conn_type=conn_type, password=key, **host))
    assert moves_a_blob(account(conn_type=conn_type, extra={"sas_token": sas(cloud.azurite)}, **host))
    assert moves_a_blob(
        account(conn_type=conn_type, host="first", login=CLIENT, password=SECRET, extra={"tenant_id": TENANT})
    )


def test_credentials_in_the_environment_do_not_get_between_a_connection_and_its_account(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        **_AZURE,
        "AZURE_CLIENT_SECRET": "another",
        "AZURE_STORAGE_ACCOUNT_NAME": "second",
        "AZURE_STORAGE_ACCOUNT_KEY": cloud.azurite.keys["second"],
        "AZURE_STORAGE_SAS_KEY": "sig=x",
        "AZURE_STORAGE_ENDPOINT": "https://elsewhere",
        "AZURE_STORAGE_USE_EMULATOR": "true",
    }.items():
        monkeypatch.setenv(name, value)

    assert moves_a_blob(account(password=cloud.azurite.keys["first"]))
    assert moves_a_blob(account(extra={"sas_token": sas(cloud.azurite)}))
    assert moves_a_blob(account(login=CLIENT, password=SECRET, extra={"tenant_id": TENANT}))


def test_the_default_credential_takes_a_service_principal_from_the_environment(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**_AZURE, "AZURE_CLIENT_SECRET": SECRET}.items():
        monkeypatch.setenv(name, value)

    assert moves_a_blob(account())
    assert moves_a_blob(account(login="first"))
    assert cloud.login.issued[-1] == "secret"


@pytest.mark.parametrize(
    "environment",
    [
        {"IDENTITY_ENDPOINT": "{login}/msi/token", "IDENTITY_HEADER": IDENTITY_HEADER},
        {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "{login}"},
    ],
    ids=["app service", "virtual machine"],
)
def test_the_default_credential_takes_a_managed_identity(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(login=cloud.login.url))

    assert moves_a_blob(account())
    assert moves_a_blob(account(extra={"managed_identity_client_id": CLIENT, "workload_identity_tenant_id": TENANT}))
    assert cloud.login.issued[-2:] == ["managed", "managed"]


def test_the_default_credential_takes_a_workload_identity(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(ASSERTION)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AZURE_TENANT_ID", "another")
    monkeypatch.setenv("AZURE_CLIENT_ID", "another")

    assert moves_a_blob(account(extra={"managed_identity_client_id": CLIENT, "workload_identity_tenant_id": TENANT}))
    assert cloud.login.issued[-1] == "workload"


def test_a_long_transfer_gets_new_tokens(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud.login, "lifetime_seconds", 4)
    store = store_of(account(login=CLIENT, password=SECRET, extra={"tenant_id": TENANT}))
    before = len(cloud.login.issued)
    reads = 0

    while len(cloud.login.issued) < before + 3:
        obstore.put(store, "long.txt", str(reads).encode())
        reads += 1

    assert bytes(obstore.get(store, "long.txt").bytes()) == str(reads - 1).encode()
    assert reads > 8, "a token is not asked for again while it is good"


def test_a_token_that_ends_before_its_time_is_replaced_once_for_all_who_use_it(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = account(login=CLIENT, password=SECRET, extra={"tenant_id": TENANT})
    storage = RemoteStorage("d", BlobClient(Container(found, _CONTAINER)))
    local = [tmp_path / f"{number}.txt" for number in range(40)]
    for each in local:
        each.write_bytes(each.name.encode())
    monkeypatch.setattr(cloud.login, "good_seconds", 2)
    before = len(cloud.login.issued)

    storage.upload([(each, f"stale/{each.name}") for each in local], overwrite=True, progress=lambda *_: None)
    assert len(cloud.login.issued) == before + 1
    monkeypatch.setattr(tokens, "_NEW_SECONDS", 1.0)
    time.sleep(3.1)
    monkeypatch.setattr(cloud.login, "good_seconds", None)

    storage.upload([(each, f"stale/again/{each.name}") for each in local], overwrite=True, progress=lambda *_: None)
    assert len(list(storage.list_files("stale"))) == 80
    assert len(cloud.login.issued) == before + 2
    assert "the token is not accepted any more; signing in anew" in caplog.text


@pytest.mark.parametrize("action", ["list", "delete"])
def test_listing_and_deleting_replace_such_a_token_too(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    found = account(login=CLIENT, password=SECRET, extra={"tenant_id": TENANT})
    monkeypatch.setattr(cloud.login, "good_seconds", -5)
    access = found.token_credential()
    assert access is not None
    access.get_token("https://storage.azure.com/.default")
    monkeypatch.setattr(cloud.login, "good_seconds", None)
    monkeypatch.setattr(tokens, "_NEW_SECONDS", 0.0)

    storage = RemoteStorage("d", BlobClient(Container(found, _CONTAINER)))
    if action == "list":
        assert list(storage.list_files("nothing")) == []
    else:
        assert len(storage.delete_unchanged([StoredFile("nothing", 1, "e")])) == 1


def test_each_part_of_a_batch_has_the_token(cloud: Cloud, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = RemoteStorage(
        "d", BlobClient(Container(account(login=CLIENT, password=SECRET, extra={"tenant_id": TENANT}), _CONTAINER))
    )
    (tmp_path / "a").write_bytes(b"a")
    storage.upload([(tmp_path / "a", f"batch/{name}") for name in "abc"], overwrite=True, progress=lambda *_: None)
    (first, *others) = storage.list_files("batch")
    storage.write_bytes(first.path, b"b")

    done = storage.delete_unchanged([first, *others])

    assert sorted(each.outcome for each in done) == ["changed", "deleted", "deleted"]
    assert [each.path for each in storage.list_files("batch")] == [first.path]
    assert "Attempt" not in caplog.text


def test_a_new_token_that_is_refused_is_an_error_at_once(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cloud.login, "good_seconds", -5)
    found = account(login=CLIENT, password=SECRET, extra={"tenant_id": TENANT})
    storage = RemoteStorage("d", BlobClient(Container(found, _CONTAINER)))
    before = len(cloud.login.issued)
    for ask in (
        lambda: list(storage.list_files("x")),
        lambda: read_whole(storage.client, Requests(), StoredFile("x", 1, "")),
    ):
        with pytest.raises(StorageRefused, match=r"No access to (list|read)"):
            ask()
    assert len(cloud.login.issued) == before + 1
    assert "Attempt" not in caplog.text


@pytest.mark.parametrize("action", ["list", "read", "write"])
def test_a_certificate_that_nobody_here_signed_is_an_error_at_once(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, action: str
) -> None:
    for name in cloud.certificates.environment:
        monkeypatch.delenv(name)
    storage = RemoteStorage("d", BlobClient(Container(account(password=cloud.azurite.keys["first"]), _CONTAINER)))
    with pytest.raises(
        StorageRefused,
        match=r"certificate of https://first\.blob\..* is not trusted.*container 'accounts'.*SSL_CERT_FILE",
    ):
        if action == "list":
            list(storage.list_files(""))
        elif action == "read":
            read_whole(storage.client, Requests(), StoredFile("x", 1, ""))
        else:
            (tmp_path / "x").write_bytes(b"x")
            send(storage.client, [(str(tmp_path / "x"), "x")], {}, lambda *_: None, reads_back=False)
    assert "Attempt" not in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"password": "wrong"}, "signing in was refused. Authentication failed: AADSTS7000215: Invalid client secret"),
        (
            {"extra": {"tenant_id": "contoso.com"}},
            "signing in was refused. .* authority configuration for https://login.microsoftonline.com/contoso.com",
        ),
        ({"extra": {"tenant_id": "no tenant"}}, "signing in was refused. Invalid tenant"),
        ({"login": "nobody"}, "signing in was refused. .* AADSTS700016: Application was not found"),
        ({"login": "", "password": "", "extra": {}}, "nobody to sign in as. .* found no identity on this machine"),
    ],
)
def test_an_identity_that_is_refused_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    principal = {"login": CLIENT, "password": SECRET, "extra": {"tenant_id": TENANT}}

    error = failure(account(**(principal | fields)))

    assert isinstance(error, StorageRefused)
    assert str(error).startswith("Account 'first', connection 'store': ")
    with pytest.raises(StorageRefused, match=message):
        raise error


def test_a_wrong_secret_in_the_environment_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**_AZURE, "AZURE_CLIENT_SECRET": "wrong"}.items():
        monkeypatch.setenv(name, value)

    error = failure(account())

    assert isinstance(error, StorageRefused)
    assert str(error).startswith(
        "Account 'first': signing in was refused. EnvironmentCredential: Authentication failed: AADSTS7000215"
    )


def test_a_service_of_tokens_that_fails_is_worth_a_retry(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud.login, "broken", True)
    no_wait = {"retry_total": 0}

    error = failure(
        account(login=CLIENT, password=SECRET, extra={"tenant_id": TENANT, "client_secret_auth_config": no_wait})
    )

    assert isinstance(error, StorageError)
    with pytest.raises(StorageError, match=r"connection 'store': signing in failed\. .* 503"):
        raise error


def failure(found: AzureAccount) -> AmlDataError | None:
    """Why a request could not be signed; free of secrets."""
    options = obstore_options(found, _CONTAINER)
    with pytest.raises(UnauthenticatedError) as raised:
        obstore.get(AzureStore(**options, retry_config={"max_retries": 0}), "x")
    error: AmlDataError | None = options["credential_provider"].error
    assert SECRET not in f"{raised.value}{error!r}{options['credential_provider']!r}{found!r}"
    return error
