"""The clouds of Azure, and the identity that a connection of type ``azureml`` signs in with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.storage.azure.tokens import client_secret, default_credential

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

CONN_TYPE = "azureml"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureCloud:
    """Where a cloud's services are.

    :param sdk_name: How Azure ML's own client calls it.
    :param management: Host of the control plane.
    :param audience: Of tokens for it.
    :param authority: Host that issues tokens.
    :param studio: Host of Azure ML's pages, and the audience of tokens for its regional services.
    """

    sdk_name: str
    management: str
    audience: str
    authority: str
    studio: str


CLOUDS: Mapping[str, AzureCloud] = {
    "public": AzureCloud(
        sdk_name="AzureCloud",
        management="management.azure.com",
        audience="https://management.azure.com",
        authority="login.microsoftonline.com",
        studio="ml.azure.com",
    ),
    "us_government": AzureCloud(
        sdk_name="AzureUSGovernment",
        management="management.usgovcloudapi.net",
        audience="https://management.core.usgovcloudapi.net",
        authority="login.microsoftonline.us",
        studio="ml.azure.us",
    ),
    "china": AzureCloud(
        sdk_name="AzureChinaCloud",
        management="management.chinacloudapi.cn",
        audience="https://management.chinacloudapi.cn",
        authority="login.chinacloudapi.cn",
        studio="ml.azure.cn",
    ),
}
"""By the value of the connection's ``cloud``."""


def cloud_of(connection: ConnectionFields) -> AzureCloud:
    """The cloud that a connection of type ``azureml`` names."""
    return CLOUDS[connection.extra.get("cloud") or "public"]


def workspace_identity(connection: ConnectionFields) -> Callable[[], TokenCredential]:
    """Makes the credential of a connection of type ``azureml``, for its workspace and for datastores that have none.

    A service principal has ``tenant_id``, login and password; without them it is the identity of the machine.
    """
    extra = connection.extra
    authority = "" if extra.get("cloud", "public") == "public" else cloud_of(connection).authority
    if tenant := extra.get("tenant_id"):
        more = {"authority": authority} if authority else {}
        return partial(client_secret, tenant, connection.login, connection.password, more)
    identity, workload = (extra.get(key, "") for key in ("managed_identity_client_id", "workload_identity_tenant_id"))
    return partial(default_credential, identity, workload, authority)
