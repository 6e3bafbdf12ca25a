"""The lifecycle policy of a storage account, which Azure's control plane keeps: another address than the data's, and other roles."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from airflow_aml_data.core.storage.azure.account import AzureAccount
from airflow_aml_data.core.storage.retry import Requests
from airflow_aml_data.errors import AmlDataError, InvalidConfiguration, MissingExtra, StorageError, StorageRefused

if TYPE_CHECKING:
    from azure.core.exceptions import HttpResponseError
    from azure.mgmt.storage import StorageManagementClient

T = TypeVar("T")

Action = Literal["read", "write"]

_sdk_log = logging.getLogger(f"{__name__}.requests")
_sdk_log.setLevel(logging.WARNING)  # twenty lines for each request otherwise

_API_VERSION = "2025-08-01"
"""The SDK's own is newer than what clouds other than the public one answer to."""
_POLICY = "default"  # the only name there is
_NO_POLICY = "ManagementPolicyNotFound"
_CLOUDS: Mapping[str, str] = {
    "core.windows.net": "AZURE_PUBLIC_CLOUD",
    "storage.azure.net": "AZURE_PUBLIC_CLOUD",
    "core.usgovcloudapi.net": "AZURE_US_GOVERNMENT",
    "core.chinacloudapi.cn": "AZURE_CHINA_CLOUD",
}
"""End of an account's host name to the SDK's name of its cloud."""
_CONNECT_SECONDS, _SILENT_SECONDS = 10.0, 60.0
_TRY_AGAIN = {408, 409, 425, 429}


class ManagementPolicies:
    """The one lifecycle policy that a storage account may have, as plain JSON: ``{"rules": [...]}``.

    Calls are retried, and raise :exc:`.StorageRefused` for what no retry cures, such as a missing role or account.

    :param account: Whose policy, and the identity to sign in with.
    :raises InvalidConfiguration: when subscription or resource group is missing, when the account is signed in to with a key or a SAS
        token, and for an account of a cloud that is not known.
    """

    def __init__(self, account: AzureAccount, *, subscription_id: str, resource_group: str) -> None:
        self.account, self.subscription_id, self.resource_group = account, subscription_id, resource_group
        for name, value in (("subscription_id", subscription_id), ("resource_group", resource_group)):
            if not value:
                raise InvalidConfiguration(
                    f"Nobody says in which {name} storage account {account.name!r} is, and its lifecycle policy has no other address. "
                    f"Give {name} here, or in the workspace's connection."
                )
        if account.token_credential() is None:
            connection = f"connection {account.conn_id!r}" if account.conn_id else "its datastore"
            raise InvalidConfiguration(
                f"The lifecycle policy of storage account {account.name!r} cannot be reached: {connection} has an account key or a SAS "
                "token, which are for data only. Needed: an identity (tenant_id with login and password, or none of them for the "
                f"machine's own) with {_needed('read')} and {_needed('write')}."
            )
        self._cloud = _cloud(account)

    def __str__(self) -> str:
        connection = f", connection {self.account.conn_id!r}" if self.account.conn_id else ""
        return (
            f"storage account {self.account.name!r} in resource group {self.resource_group!r} of subscription "
            f"{self.subscription_id!r}{connection}"
        )

    def __repr__(self) -> str:
        return f"<lifecycle policy of {self}>"

    def read(self) -> dict[str, Any]:
        """The policy as the service has it, every field of it; one without rules when the account has none."""

        def request(client: StorageManagementClient) -> Any:
            return client.management_policies.get(self.resource_group, self.account.name, _POLICY, cls=_content)

        return self._asked("read", request) or {"rules": []}

    def write(self, policy: Mapping[str, Any]) -> None:
        """Replace the whole policy. The service has no way to do so only if nobody else has."""
        content: Any = {"properties": {"policy": policy}}

        def request(client: StorageManagementClient) -> Any:
            return client.management_policies.create_or_update(
                self.resource_group, self.account.name, _POLICY, content, cls=_content
            )

        self._asked("write", request)

    def _asked(self, action: Action, request: Callable[[StorageManagementClient], T]) -> T | None:
        from azure.core.exceptions import AzureError, HttpResponseError

        def attempt() -> T | None:
            sign_in = self.account.sign_in
            try:
                with self._client() as client:
                    return request(client)
            except HttpResponseError as error:
                if error.status_code == 404 and _code(error) == _NO_POLICY:
                    return None
                raise self._failure(action, error, sign_in) from None
            except AzureError as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise self.account.not_trusted(self, "Azure's control plane") from None
                reason = type(error.inner_exception or error).__name__
                raise StorageError(
                    f"Azure's control plane does not answer ({reason}). It was asked for {self}."
                ) from None

        return Requests().one(f"Lifecycle policy of account {self.account.name!r}", attempt)

    def _client(self) -> StorageManagementClient:
        try:
            from azure.core import AzureClouds
            from azure.mgmt.storage import StorageManagementClient
        except ModuleNotFoundError:
            raise MissingExtra("A lifecycle policy", "azure") from None
        credential: Any = self.account.token_credential()
        return StorageManagementClient(
            credential,
            self.subscription_id,
            cloud_setting=AzureClouds[self._cloud],
            api_version=_API_VERSION,
            connection_timeout=_CONNECT_SECONDS,
            read_timeout=_SILENT_SECONDS,
            connection_verify=os.environ.get("SSL_CERT_FILE") or True,
            retry_total=0,
            logger=_sdk_log,
        )

    def _failure(self, action: Action, error: HttpResponseError, sign_in: int) -> AmlDataError:
        status = error.status_code or 0
        said = str(getattr(error.error, "message", "")).partition("\n")[0].rstrip(".")
        answered = f"It answered {status} {_code(error)}".rstrip() + (f": {said}" if said else "")
        if status == 401 and self.account.renew(sign_in):
            return StorageError(f"{self}: the token is not accepted any more; signing in anew. {answered}.")
        if status in (401, 403):
            return StorageRefused(
                f"No permission to {action} the lifecycle policy of {self}. Needed: {_needed(action)}; roles for data, such as "
                f"'Storage Blob Data Contributor', do not give it. {answered}."
            )
        if status == 404:
            return StorageRefused(
                f"There is no {self}. Correct subscription_id and resource_group: they are the storage account's, which need not be those "
                f"of the workspace. {answered}."
            )
        if status >= 500 or status in _TRY_AGAIN:
            busy = StorageError(f"{self}: the service is busy or failed. {answered}.")
            asked = str(getattr(error.response, "headers", {}).get("Retry-After", ""))
            busy.retry_after_seconds = float(asked) if asked.isdecimal() else None
            return busy
        return StorageRefused(f"Cannot {action} the lifecycle policy of {self}. {answered}.")


def _needed(action: Action) -> str:
    return f"role 'Storage Account Contributor' or the permission Microsoft.Storage/storageAccounts/managementPolicies/{action}"


def _content(answer: Any, *_: Any) -> dict[str, Any]:
    """The policy of an answer as it came: the SDK's models know only the fields of their day."""
    policy: dict[str, Any] = answer.http_response.json()["properties"]["policy"]
    return policy


def _code(error: HttpResponseError) -> str:
    return str(getattr(error.error, "code", None) or "")


def _cloud(account: AzureAccount) -> str:
    host = urlsplit(account.url).hostname or ""
    for end, cloud in _CLOUDS.items():
        if host.endswith(f".{end}"):
            return cloud
    raise InvalidConfiguration(
        f"Storage account {account.name!r} is at {host!r}, and nobody knows the control plane of that cloud. Known: hosts that end with "
        f"{', '.join(_CLOUDS)}. Emulators have no lifecycle policies."
    )
