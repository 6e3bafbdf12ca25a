"""Azure's control plane under its real host names, as far as lifecycle policies need it: as strict as what Azure publishes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.azure_management.published import API_VERSIONS, problems
from tests.azurite.certificates import Certificates
from tests.azurite.cloud import running_proxy
from tests.azurite.login import CLIENT, SECRET, TENANT, Login, running_login
from tests.azurite.servers import CLOUDS, Answer, Asked, Refusal, running_json_server

SUBSCRIPTION = "33333333-3333-3333-3333-333333333333"
GROUP = "data"

_PATH = re.compile(
    r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/Microsoft\.Storage/storageAccounts/([^/]+)/managementPolicies/default"
)


@dataclass
class AzureManagement:
    """A running control plane with the storage accounts ``first`` and ``second``, which have no policy yet.

    :param policies: Account to its policy, as the service keeps it.
    :param requests: Host, method and account of every request that it took.
    :param may: What the client may do.
    :param failures: Status and headers that the next requests are answered with.
    :param takes_tokens: Whether it takes those that the service for them has issued for it.
    :param meddle: What another writer makes of a policy just after it was written.
    :param refused: Addresses that somebody wanted to reach and that are not part of it.
    """

    certificates: Certificates
    login: Login
    proxy_url: str = ""
    policies: dict[str, Any] = field(default_factory=lambda: {"first": None, "second": None})
    requests: list[str] = field(default_factory=list)
    may: set[str] = field(default_factory=lambda: {"GET", "PUT"})
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    takes_tokens: bool = True
    meddle: Callable[[dict[str, Any]], dict[str, Any]] = dict
    refused: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return self.certificates.environment | {"HTTPS_PROXY": self.proxy_url, "NO_PROXY": "127.0.0.1,localhost"}

    def reset(self) -> None:
        """As it was when it was started."""
        vars(self).update(vars(AzureManagement(self.certificates, self.login, self.proxy_url, refused=self.refused)))

    def answer(self, asked: Asked) -> Answer:
        """The answer, with the resource.

        :raises Refusal: for everything that Azure would not take.
        """
        parts, method = urlsplit(asked.url), asked.method
        if not self.takes_tokens or self.login.scopes.get(asked.token) != CLOUDS[asked.host][1]:
            raise Refusal(401, "InvalidAuthenticationToken", "The access token is missing, or for something else.")
        found = _PATH.fullmatch(parts.path)
        if not found or method not in ("GET", "PUT"):
            raise Refusal(400, "InvalidResourceType", f"{method} {parts.path} is nothing that exists.")
        if (
            parse_qs(parts.query).keys() != {"api-version"}
            or parse_qs(parts.query)["api-version"][0] not in API_VERSIONS
        ):
            raise Refusal(400, "InvalidApiVersionParameter", f"api-version is wrong in {parts.query!r}.")
        subscription, group, account = found.groups()
        if subscription != SUBSCRIPTION:
            raise Refusal(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
        if group != GROUP:
            raise Refusal(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
        if account not in self.policies:
            raise Refusal(404, "ResourceNotFound", f"The Resource '{account}' was not found.")
        if method not in self.may:
            raise Refusal(403, "AuthorizationFailed", f"The client '{CLIENT}' does not have authorization.")
        self.requests.append(f"{asked.host} {method} {account}")
        if self.failures:
            status, headers = self.failures.pop(0)
            raise Refusal(status, "ServerBusy", "Later.", headers)
        if method == "PUT":
            content = json.loads(asked.body)
            if wrong := problems(content):
                raise Refusal(400, "InvalidRequestPropertyValue", "; ".join(wrong))
            self.policies[account] = self.meddle(content["properties"]["policy"])
        if self.policies[account] is None:
            raise Refusal(404, "ManagementPolicyNotFound", f"No ManagementPolicy found for account {account}.")
        return Answer(
            {
                "id": parts.path,
                "name": "DefaultManagementPolicy",
                "type": "Microsoft.Storage/storageAccounts/managementPolicies",
                "properties": {"policy": self.policies[account], "lastModifiedTime": "2026-11-01T00:00:00.0000000Z"},
            }
        )


def principal(host: str = "first", **extra: Any) -> dict[str, Any]:
    """A ``wasb`` connection of the client that the control plane knows."""
    return {
        "conn_type": "wasb",
        "host": host,
        "login": CLIENT,
        "password": SECRET,
        "extra": {"tenant_id": TENANT, **extra},
    }


def airflow_workspace(connection: Mapping[str, Any] | None = None, **more: Any) -> dict[str, str]:
    """Environment variables for a workspace with a datastore ``scratch`` in account ``first``; the default one, ``main``, is there too.

    :param connection: Of account ``first``; None: one with an identity that the control plane knows.
    :param more: Into the extra of the workspace's connection.
    """
    from tests.storage.stores import airflow_connections, blob_store  # takes half a second

    stores = {
        "main": blob_store("main", "store"),
        "scratch": blob_store("scratch", "store"),
        "lake": {"kind": "azure_data_lake_gen2", "filesystem": "lake", "conn_id": "store"},
        "other": blob_store("scratch", "second"),
        "main_again": blob_store("main", "store"),
        "scratch_again": blob_store("scratch", "store"),
        "share": {"kind": "azure_file", "file_share_name": "team", "conn_id": "store"},
        "folder": {"kind": "local", "root": "/tmp"},
    }
    connections = airflow_connections(stores, store=connection or principal(), second=principal("second"))
    workspace = json.loads(connections["AIRFLOW_CONN_AZUREML_DEFAULT"])
    workspace["extra"] |= {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, **more}
    connections["AIRFLOW_CONN_AZUREML_DEFAULT"] = json.dumps(workspace)
    return connections


@contextmanager
def running_management(folder: Path) -> Iterator[AzureManagement]:
    """One of its own, in memory, behind a proxy that leads to it and to nothing else.

    :param folder: For its certificates.
    """
    certificates = Certificates.make(folder)
    with running_login(certificates) as login:
        management = AzureManagement(certificates, login)
        with running_json_server(certificates, management.answer) as url:
            routes = {f"{host}:443": url for host in CLOUDS} | {f"{each}:443": login.url for each, _ in CLOUDS.values()}
            with running_proxy(routes, management.refused) as management.proxy_url:
                yield management
    if management.refused:
        raise AssertionError(f"Somebody wanted to reach {management.refused}.")
