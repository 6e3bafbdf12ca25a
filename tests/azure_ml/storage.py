"""Containers of the workspace's storage accounts, as the service itself uses them: with their keys."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.azurite import Azurite
from tests.azurite.certificates import Certificates

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


class Storage:
    """Azurite's accounts."""

    def __init__(self, azurite: Azurite, certificates: Certificates) -> None:
        self._azurite, self._certificates = azurite, certificates

    def container(self, account: str, name: str) -> ContainerClient:
        from azure.storage.blob import ContainerClient  # takes half a second

        return ContainerClient(
            self._azurite.account_url(account),
            name,
            credential={"account_name": account, "account_key": self._azurite.keys[account]},
            connection_verify=str(self._certificates.ca_file),
            retry_total=0,
        )

    def make_container(self, account: str, name: str) -> None:
        """Make it, unless it is there."""
        from azure.core.exceptions import ResourceExistsError

        with suppress(ResourceExistsError), self.container(account, name) as client:
            client.create_container()

    def account_sas(self, account: str, key: str, seconds: float = 3600.0) -> str:
        """A SAS for containers and blobs of an account, with the question mark that the service puts before it."""
        from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

        return "?" + generate_account_sas(
            account,
            key,
            ResourceTypes(container=True, object=True),
            AccountSasPermissions.from_string("rwdlacu"),
            _in(seconds),
        )

    def container_sas(self, account: str, container: str, permissions: str = "rwlac") -> str:
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        key, allowed = self._azurite.keys[account], ContainerSasPermissions.from_string(permissions)
        return generate_container_sas(account, container, key, permission=allowed, expiry=_in(3600))

    def blob_url(self, account: str, container: str, path: str) -> str:
        """Where it can be read without any credential for an hour."""
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        key, allowed = self._azurite.keys[account], BlobSasPermissions(read=True)
        sas = generate_blob_sas(account, container, path, account_key=key, permission=allowed, expiry=_in(3600))
        return f"https://{account}.blob.core.windows.net/{container}/{path}?{sas}"


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
