"""What an Azure ML workspace holds, and what tests set."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from tests.azure_ml.job import Job
from tests.azure_ml.names import long_uri, resource_id
from tests.azure_ml.storage import Storage
from tests.azurite import Azurite
from tests.azurite.certificates import Certificates
from tests.azurite.login import CLIENT, SECRET, TENANT, Login

BLOB_CONTAINER = "azureml-blobstore-44444444-4444-4444-4444-444444444444"
PERMISSIONS = frozenset(
    [
        *(f"{kind}/read" for kind in ("workspaces", "datastores", "data", "environments", "computes", "codes", "jobs")),
        *(f"{kind}/write" for kind in ("datastores", "data", "environments", "codes", "jobs")),
        *("listSecrets", "jobs/cancel", "history/read", "history/write"),
    ]
)
"""Everything that a client may do."""


@dataclass(kw_only=True)
class Request:
    """What somebody asked.

    :param path: Without the query.
    :param body: As JSON has it; None without one.
    :param status: What it was answered with.
    """

    host: str
    method: str
    path: str
    query: Mapping[str, str]
    body: Any = None
    status: int = 0

    @property
    def api_version(self) -> str:
        return self.query.get("api-version", "")


@dataclass(frozen=True)
class Failure:
    """How a request is answered instead.

    :param path: Pattern that its path has; any path when empty.
    :param method: Of the request; any when empty.
    :param done: Whether it is carried out all the same, and only its answer lost.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = ""
    method: str = ""
    done: bool = False


class Hold:
    """Where jobs wait until a test lets them go on."""

    def __init__(self) -> None:
        self._status, self._changed = "", threading.Condition()

    def at(self, status: Literal["Queued", "Running"]) -> None:
        """Let jobs wait in this status; Running ones have not started their command."""
        with self._changed:
            self._status = status

    def release(self) -> None:
        """Let them go on, and no others wait."""
        with self._changed:
            self._status = ""
            self._changed.notify_all()

    def wait(self, status: str, ended: threading.Event) -> None:
        """Wait as long as jobs are to wait in this status, or until one was told to end."""
        with self._changed:
            while self._status == status and not ended.is_set():
                self._changed.wait(0.05)


def _computes() -> dict[str, Any]:
    scale = {"minNodeCount": 0, "maxNodeCount": 4, "nodeIdleTimeBeforeScaleDown": "PT2M"}
    properties = {"vmSize": "STANDARD_DS3_V2", "vmPriority": "Dedicated", "scaleSettings": scale, "osType": "Linux"}
    return {
        "cpu-cluster": {
            "computeType": "AmlCompute",
            "computeLocation": "eastus",
            "provisioningState": "Succeeded",
            "disableLocalAuth": True,
            "properties": properties,
        }
    }


def _environments() -> dict[str, dict[str, Any]]:
    image = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04"
    return {"sklearn": {"1": {"image": image, "isAnonymous": False, "isArchived": False, "osType": "Linux"}}}


@dataclass
class State:
    """What the service knows. Everything may be changed by tests.

    :param requests: Everything that was asked.
    :param unrouted: Of these, what is nothing that it knows.
    :param violations: Where requests or answers are not of the published types.
    :param refused: Addresses that somebody wanted to reach and that are not part of it.
    :param jobs: Name to job.
    :param datastores: Name to properties, without secrets.
    :param secrets: Name of a datastore to its secrets.
    :param computes: Name to properties.
    :param environments: Name to versions to properties, oldest first.
    :param data: The same.
    :param containers: Kind and name of an asset to what all of its versions have in common.
    :param codes: Name to versions to properties.
    :param system_data: ARM id to who made it, and when.
    :param may: What clients may do, of ``PERMISSIONS``.
    :param failures: How the next requests that match are answered instead.
    :param secrets_are: What is told of a datastore with an account key: a SAS, as the real service does, or the key.
    :param secrets_seconds: How long such a SAS is good.
    :param page_size: How many items a list has before it continues on a next page.
    :param hold: Where jobs wait.
    """

    azurite: Azurite
    login: Login
    certificates: Certificates
    folder: Path
    proxy_url: str = ""
    refused: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    unrouted: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    datastores: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    computes: dict[str, dict[str, Any]] = field(default_factory=_computes)
    environments: dict[str, dict[str, dict[str, Any]]] = field(default_factory=_environments)
    data: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    containers: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    codes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    system_data: dict[str, dict[str, str]] = field(default_factory=dict)
    may: set[str] = field(default_factory=lambda: set(PERMISSIONS))
    failures: list[Failure] = field(default_factory=list)
    secrets_are: Literal["Sas", "AccountKey"] = "Sas"
    secrets_seconds: float = 3600.0
    page_size: int = 30
    hold: Hold = field(default_factory=Hold)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.storage = Storage(self.azurite, self.certificates)
        self.add_blob_datastore("workspaceblobstore", container=BLOB_CONTAINER)
        self.add_blob_datastore("workspaceartifactstore", container="azureml")
        for each in self.datastores.values():
            each["serviceDataAccessAuthIdentity"] = "WorkspaceSystemAssignedIdentity"
        self.datastores["workspaceblobstore"]["isDefault"] = True

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it, and nothing else."""
        proxies = {"HTTPS_PROXY": self.proxy_url, "HTTP_PROXY": self.proxy_url, "NO_PROXY": "127.0.0.1,localhost"}
        return self.certificates.environment | proxies | {name.lower(): value for name, value in proxies.items()}

    def add_blob_datastore(
        self,
        name: str,
        account: str = "first",
        container: str | None = None,
        credentials: Literal["AccountKey", "Sas", "ServicePrincipal", "None"] = "AccountKey",
        *,
        kind: Literal["AzureBlob", "AzureDataLakeGen2"] = "AzureBlob",
    ) -> None:
        """Register a datastore, whose container is made when it is missing.

        :param container: Also the file system of a data lake; None: named like the datastore.
        """
        container = container or name.replace("_", "-")
        self.storage.make_container(account, container)
        of_kind = {"AzureBlob": "containerName", "AzureDataLakeGen2": "filesystem"}
        known: dict[str, Any] = {"credentialsType": credentials}
        if credentials == "ServicePrincipal":
            known |= {"tenantId": TENANT, "clientId": CLIENT, "authorityUrl": "https://login.microsoftonline.com"}
        self.datastores[name] = datastore_properties(
            {
                "datastoreType": kind,
                "accountName": account,
                of_kind[kind]: container,
                "endpoint": "core.windows.net",
                "protocol": "https",
                "credentials": known,
            }
        )
        secrets = {
            "AccountKey": lambda: {"key": self.azurite.keys[account]},
            "Sas": lambda: {"sasToken": self.storage.account_sas(account, self.azurite.keys[account])},
            "ServicePrincipal": lambda: {"clientSecret": SECRET},
        }
        if credentials in secrets:
            self.secrets[name] = {"secretsType": credentials, **secrets[credentials]()}

    def add_data_asset(
        self, name: str, uri: str, version: str | None = None, kind: str = "uri_folder", **properties: Any
    ) -> str:
        """Register a version of a data asset, and say which.

        :param version: None: the next one.
        """
        versions = self.data.setdefault(name, {})
        version = version or next_version(versions)
        defaults = {"isAnonymous": False, "isArchived": False, "tags": {}, "properties": {}}
        versions[version] = {**defaults, **properties, "dataType": kind, "dataUri": long_uri(uri)}
        self.container("data", name, dataType=kind)
        self.made(resource_id("data", name, "versions", version))
        return version

    def container(self, kind: str, name: str, **properties: Any) -> dict[str, Any]:
        """What all versions of an asset have in common."""
        return self.containers.setdefault((kind, name), {"isArchived": False, **properties})

    def made(self, id_: str) -> dict[str, str]:
        """Who made a resource, and when: now, when it is new."""
        made = {"createdAt": now(), "createdBy": "A client", "createdByType": "Application"}
        return self.system_data.setdefault(id_, made)

    def check(self) -> None:
        """See that all was as it is to be.

        :raises AssertionError: when somebody wanted to go elsewhere, asked for what is not known, or broke the published types.
        """
        with self.lock:
            found = {each: getattr(self, each) for each in ("refused", "unrouted", "violations")}
        if wrong := {name: each for name, each in found.items() if each}:
            raise AssertionError(f"Azure ML was not used as it is to be: {wrong}")


def datastore_properties(sent: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a datastore as the service keeps them: without secrets."""
    credentials = {name: value for name, value in sent["credentials"].items() if name != "secrets"}
    defaults = {"description": None, "tags": {}, "properties": None, "isDefault": False}
    identity = {"serviceDataAccessAuthIdentity": "None"}
    return {**defaults, **identity, "subscriptionId": None, "resourceGroup": None, **sent, "credentials": credentials}


def next_version(versions: Mapping[str, Any]) -> str:
    """The largest number among the versions, plus 1."""
    return str(max((int(each) for each in versions if each.isdecimal()), default=0) + 1)


def now(later: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + later).isoformat()
