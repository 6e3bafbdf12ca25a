"""Signing in with an identity: azure-identity's credentials, and errors that name the connection."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_aml_data.errors import AmlDataError, StorageError, StorageRefused

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

_SCOPE = "https://storage.azure.com/.default"
_RENEW_SECONDS = 300.0  # before its end; azure-identity gives a new one from then on
_NEW_SECONDS = 60.0
"""A token that is refused so soon after signing in would be refused again."""
_REFUSED = re.compile("AADSTS|Unable to get authority configuration")  # Microsoft Entra ID's codes; no such tenant
_PASSING = re.compile("AADSTS900(33|55)")  # unavailable; throttled

for _chatty in (
    "azure.core",
    "azure.identity",
):  # twenty lines for every request and token, into the log of every task and trigger
    if logging.getLogger(_chatty).level == logging.NOTSET:
        logging.getLogger(_chatty).setLevel(logging.WARNING)


def client_secret(tenant: str, client: str, secret: str, more: Mapping[str, Any]) -> TokenCredential:
    """A service principal's.

    :param more: Further arguments of ``ClientSecretCredential``, such as ``authority`` for another cloud.
    """
    from azure.identity import ClientSecretCredential

    return ClientSecretCredential(tenant_id=tenant, client_id=client, client_secret=secret, **more)


def default_credential(managed_identity: str, workload_tenant: str, authority: str = "") -> TokenCredential:
    """Whatever the machine has: environment, workload identity, managed identity, a developer's login.

    :param managed_identity: Client id of a managed identity; empty: the machine's only one.
    :param workload_tenant: Tenant of a workload identity; empty: the one that the environment names.
    :param authority: Host that issues the tokens; empty: the one that the environment names, else the public cloud's.
    """
    from azure.identity import DefaultAzureCredential

    said: dict[str, Any] = {}
    if managed_identity:
        said["managed_identity_client_id"] = managed_identity
    if workload_tenant:
        said |= {"workload_identity_tenant_id": workload_tenant, "additionally_allowed_tenants": [workload_tenant]}
    if authority:
        said["authority"] = authority
    return DefaultAzureCredential(**said)


class Access:
    """The tokens of one account or workspace; a ``TokenCredential`` for the SDKs.

    Safe in threads.

    :param who: Whose tokens, as the first word of messages.
    :param refused: Raised when the identity is refused or there is none.
    :param failed: Raised when the service that issues tokens is out of reach.
    :ivar sign_in: Number of the sign-in that tokens come from; what keeps a token keeps this beside it.
    """

    def __init__(
        self,
        make: Callable[[], TokenCredential],
        who: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        refused: type[AmlDataError] = StorageRefused,
        failed: type[AmlDataError] = StorageError,
    ) -> None:
        self._make, self._who, self._clock = make, who, clock
        self._refused, self._failed = refused, failed
        self._lock = threading.Lock()
        self._credential: TokenCredential | None = None
        self._signed_in_at = 0.0
        self.sign_in = 0

    def __repr__(self) -> str:
        return f"Access({self._who!r})"

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        from azure.core.exceptions import AzureError

        try:
            return self._signed_in().get_token(*scopes, **options)
        except (AzureError, ValueError) as error:  # ValueError: a tenant or client id that cannot be one
            raise self._named(error) from None

    def renew(self, sign_in: int) -> bool:
        """Forget tokens that a service refuses although their time is not over: they were revoked, or its clock is ahead.

        :param sign_in: Where the refused token came from.
        :returns: Whether a new token may help; not when the refused one was new itself.
        """
        with self._lock:
            if sign_in == self.sign_in and self._clock() - self._signed_in_at < _NEW_SECONDS:
                return False
            if sign_in == self.sign_in:
                self._credential = None
                self.sign_in += 1
            return True

    def _signed_in(self) -> TokenCredential:
        with self._lock:
            if self._credential is None:
                self._credential, self._signed_in_at = self._make(), self._clock()
            return self._credential

    def _named(self, error: Exception) -> AmlDataError:
        first, *tried = [line.strip() for line in re.split(r"\n(?=\t)", str(error))]
        chain = getattr(self._credential, "credentials", None) if tried else None
        if chain is not None and len(tried) == len(chain):
            return self._refused(
                f"{self._who}: nobody to sign in as. The connection has no 'tenant_id', and for storage neither key nor SAS token, and "
                "DefaultAzureCredential found no identity on this machine: no AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, no "
                "workload or managed identity, nobody's login. What it tried is in the log above."
            )
        reason = (tried or [first])[-1].partition("\n")[0]
        if isinstance(error, ValueError) or (_REFUSED.search(reason) and not _PASSING.search(reason)):
            return self._refused(f"{self._who}: signing in was refused. {reason}")
        return self._failed(f"{self._who}: signing in failed. {reason}")


class ObstoreTokens:
    """Gives obstore the tokens of an account, a new one before the last ends.

    :ivar error: Why the last call failed: obstore keeps only the text of an exception.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self.error: AmlDataError | None = None

    def __call__(self) -> dict[str, Any]:
        try:
            token = self._access.get_token(_SCOPE)
        except (StorageRefused, StorageError) as error:
            self.error = error
            raise
        self.error = None
        left = max(token.expires_on - time.time(), 0.0)
        renewed = time.time() + max(left - _RENEW_SECONDS, left / 2)  # obstore asks again when this has passed
        return {"token": token.token, "expires_at": datetime.fromtimestamp(renewed, UTC)}
