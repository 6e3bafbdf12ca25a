"""The unmodified SDK of Azure ML takes the emulator for the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.azure_ml import LONG, WORKSPACE, AzureMl, Failure

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

pytestmark = pytest.mark.slow


def test_the_workspace_has_a_default_datastore_a_compute_and_an_environment(client: MLClient) -> None:
    assert client.workspaces.get(WORKSPACE).discovery_url == "https://eastus.api.azureml.ms/discovery"
    assert client.datastores.get_default().name == "workspaceblobstore"
    assert {each.name for each in client.datastores.list()} == {"workspaceblobstore", "workspaceartifactstore"}
    assert client.compute.get("cpu-cluster").type == "amlcompute"
    assert [each.name for each in client.compute.list()] == ["cpu-cluster"]
    assert client.environments.get("sklearn", label="latest").version == "1"


def test_secrets_of_a_datastore_are_a_sas_that_opens_its_container(azure_ml: AzureMl, client: MLClient) -> None:
    from azure.storage.blob import ContainerClient

    azure_ml.add_blob_datastore("training_data", "second", "training")
    sas = client.datastores.get("training_data", include_secrets=True).credentials.sas_token
    with ContainerClient("https://second.blob.core.windows.net", "training", sas) as container:
        container.upload_blob("a", b"1", overwrite=True)
        assert [each.name for each in container.list_blobs()] == ["a"]


def test_secrets_end(azure_ml: AzureMl, client: MLClient) -> None:
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import ContainerClient

    azure_ml.secrets_seconds = -60
    azure_ml.add_blob_datastore("training_data", "second", "training")
    sas = client.datastores.get("training_data", include_secrets=True).credentials.sas_token
    with (
        ContainerClient("https://second.blob.core.windows.net", "training", sas, retry_total=0) as container,
        pytest.raises(HttpResponseError) as caught,
    ):
        container.get_container_properties()
    assert caught.value.status_code == 403


@pytest.mark.parametrize("credentials", ["Sas", "ServicePrincipal", "None"])
def test_datastores_know_other_credentials(azure_ml: AzureMl, client: MLClient, credentials: Any) -> None:
    azure_ml.add_blob_datastore("lake", credentials=credentials, kind="AzureDataLakeGen2")
    found = client.datastores.get("lake", include_secrets=True)
    assert (found.filesystem, found.account_name) == ("lake", "first")
    told = {"Sas": "sas_token", "ServicePrincipal": "client_secret"}.get(credentials)
    secrets = {key: value for key, value in azure_ml.secrets.get("lake", {}).items() if key != "secretsType"}
    assert [getattr(found.credentials, told)] == list(secrets.values()) if told else secrets == {}


def test_secrets_can_be_keys(azure_ml: AzureMl, client: MLClient) -> None:
    azure_ml.secrets_are = "AccountKey"
    found = client.datastores.get("workspaceblobstore", include_secrets=True).credentials
    assert found.account_key == azure_ml.azurite.keys["first"]


def test_a_datastore_that_was_put_is_there(client: MLClient) -> None:
    from azure.ai.ml.entities import AccountKeyConfiguration, AzureBlobDatastore

    client.datastores.create_or_update(
        AzureBlobDatastore(
            name="mine",
            account_name="first",
            container_name="mine",
            credentials=AccountKeyConfiguration(account_key="a2V5"),
        )
    )
    assert client.datastores.get("mine").container_name == "mine"


def test_versions_of_data_count_and_the_latest_is_the_last(azure_ml: AzureMl, client: MLClient) -> None:
    from azure.ai.ml.entities import Data

    azure_ml.add_data_asset("numbers", "azureml://datastores/workspaceblobstore/paths/one/")
    made = client.data.create_or_update(
        Data(name="numbers", type="uri_folder", path="azureml://datastores/workspaceblobstore/paths/two/")
    )
    assert (made.version, made.path) == ("2", f"{LONG}datastores/workspaceblobstore/paths/two/")
    assert client.data.get("numbers", label="latest").version == "2"
    client.data.archive("numbers", version="2")
    assert [each.version for each in client.data.list("numbers")] == ["1"]
    client.data.archive("numbers")
    assert list(client.data.list()) == []


def test_lists_have_pages(azure_ml: AzureMl, client: MLClient) -> None:
    azure_ml.page_size = 2
    for number in range(5):
        azure_ml.add_data_asset("numbers", f"azureml://datastores/workspaceblobstore/paths/{number}/")
    assert [each.version for each in client.data.list("numbers")] == ["5", "4", "3", "2", "1"]


def test_a_permission_that_was_taken_away_is_missed(azure_ml: AzureMl, client: MLClient) -> None:
    from azure.core.exceptions import HttpResponseError

    azure_ml.may -= {"datastores/read"}
    with pytest.raises(HttpResponseError, match="AuthorizationFailed") as caught:
        client.datastores.get("workspaceblobstore")
    assert caught.value.status_code == 403


def test_a_failure_is_answered_once(azure_ml: AzureMl, client: MLClient) -> None:
    from azure.core.exceptions import HttpResponseError

    azure_ml.failures = [Failure(500, path="/computes/")]
    client.datastores.get("workspaceblobstore")
    with pytest.raises(HttpResponseError) as caught:
        client.compute.get("cpu-cluster")
    assert caught.value.status_code == 500
    assert client.compute.get("cpu-cluster").name == "cpu-cluster"


def test_what_does_not_exist_is_not_found(client: MLClient) -> None:
    from azure.core.exceptions import ResourceNotFoundError

    for get in (client.datastores.get, client.compute.get, client.jobs.get):
        with pytest.raises(ResourceNotFoundError):
            get("nothing")
