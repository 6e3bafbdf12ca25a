"""The datastores of an Azure ML workspace, as configurations like those that a connection declares."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow_aml_data.core.azureml.refusals import WORKSPACES
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.storage.azure.sas import RenewedSas
from airflow_aml_data.core.storage.base import DatastoreConfig
from airflow_aml_data.errors import AzureMlNotFound, AzureMlRefused, UnsupportedDatastore

if TYPE_CHECKING:
    from airflow_aml_data.core.azureml.control_plane import ControlPlane

_KINDS = {
    "AzureBlob": ("azure_blob", "containerName", "container_name"),
    "AzureDataLakeGen2": ("azure_data_lake_gen2", "filesystem", "filesystem"),
    "AzureFile": ("azure_file", "fileShareName", "file_share_name"),
}
"""Azure ML's kind to ours, and what each calls the container."""
_ACCOUNT = {"accountName": "account_name", "endpoint": "endpoint", "protocol": "protocol"}
_EXPIRABLE = {"expirableSecret": True, "expireAfterHours": 1}


class AzureMlDatastores:
    """Each is listed once; its secret is asked for when it is opened.

    :param workspace: Where they are registered.
    """

    def __init__(self, workspace: ControlPlane) -> None:
        self._workspace = workspace
        self._opened: dict[str, DatastoreConfig] = {}

    @cached_property
    def _listed(self) -> Mapping[str, Mapping[str, Any]]:
        return {str(each["name"]): each["properties"] for each in self._workspace.pages("/datastores", WORKSPACES)}

    @cached_property
    def configs(self) -> Mapping[str, DatastoreConfig]:
        """Those of a kind that is offered, without credentials."""
        return {name: _config(name, each) for name, each in self._listed.items() if each["datastoreType"] in _KINDS}

    @property
    def opened(self) -> Mapping[str, DatastoreConfig]:
        """Those that were opened so far; with credentials."""
        return self._opened

    @property
    def default(self) -> str:
        """The name of the workspace's default datastore.

        :raises AzureMlNotFound: when none is.
        """
        found = next((name for name, each in self._listed.items() if each.get("isDefault")), None)
        if found is None:
            raise AzureMlNotFound("Datastore", "default", self._workspace.workspace_name, self._listed)
        return found

    def known_as(self, name: str) -> str | None:
        """The name as the workspace knows it; case does not count.

        :raises UnsupportedDatastore: for one that is registered there, and of a kind that is not offered.
        """
        known = next((each for each in self._listed if each.lower() == name.lower()), None)
        if known is not None and known not in self.configs:
            raise UnsupportedDatastore(
                f"Datastore {known!r} of Azure ML workspace {self._workspace.workspace_name!r} is of kind "
                f"{self._listed[known]['datastoreType']!r}. Kinds that are offered: {', '.join(_KINDS)}."
            )
        return known

    def open(self, name: str) -> DatastoreConfig:
        """What opens a datastore, with its credentials; those that end are renewed.

        :param name: As the workspace knows it.
        :raises AzureMlRefused: when the connection's identity may not read its secret.
        """
        if name not in self._opened:
            self._opened[name] = self._with_credentials(name)
        return self._opened[name]

    def _with_credentials(self, name: str) -> DatastoreConfig:
        config, said = self.configs[name], self._listed[name].get("credentials") or {}
        conn_id = self._workspace.connection.conn_id
        sas, login, password, extra = None, "", "", {}
        match said.get("credentialsType"):
            case "None":
                return _connected(config, self._workspace.connection)
            case "ServicePrincipal":
                login, password = said["clientId"], str(self._secret(name).get("clientSecret") or "")
                extra = {"tenant_id": said["tenantId"]}
                if said.get("authorityUrl"):
                    extra["client_secret_auth_config"] = {"authority": said["authorityUrl"]}
            case "AccountKey" | "Sas":
                secret = self._secret(name)
                password = str(secret.get("key") or "")
                if not password:
                    sas = RenewedSas(partial(self._sas, name), first=str(secret.get("sasToken") or ""))
                    extra = {"sas_token": sas()}
            case other:
                raise UnsupportedDatastore(
                    f"Datastore {name!r} of Azure ML workspace {self._workspace.workspace_name!r} has credentials of type {other!r}. "
                    "Allowed: None (identity), AccountKey, Sas, ServicePrincipal."
                )
        return _connected(
            config,
            ConnectionFields(conn_id=conn_id, conn_type="wasb", login=login, password=password, extra=extra),
            sas,
        )

    def _sas(self, name: str) -> str:
        return str(self._secret(name).get("sasToken") or "")

    def _secret(self, name: str) -> Mapping[str, Any]:
        try:
            return self._workspace.post(f"/datastores/{name}/listSecrets", WORKSPACES, _EXPIRABLE) or {}
        except AzureMlRefused as error:
            if error.status != 403:
                raise
            refused = AzureMlRefused(
                f"The secret of datastore {name!r} of Azure ML workspace {self._workspace.workspace_name!r} may not be read by the "
                f"identity of connection {self._workspace.connection.conn_id!r}. Give it the role 'AzureML Data Scientist' (permission "
                "Microsoft.MachineLearningServices/workspaces/datastores/listsecrets/action), declare the place in the connection's "
                f"'datastores' with a conn_id of its own, or make the datastore identity-based. {error}"
            )
            refused.status = error.status
            raise refused from None


def _config(name: str, properties: Mapping[str, Any]) -> DatastoreConfig:
    kind, theirs, ours = _KINDS[properties["datastoreType"]]
    options = {ours: properties[theirs]}
    options |= {key: properties[each] for each, key in _ACCOUNT.items() if properties.get(each)}
    return DatastoreConfig(name=name, kind=kind, options=options)


def _connected(config: DatastoreConfig, connection: ConnectionFields, sas: RenewedSas | None = None) -> DatastoreConfig:
    return DatastoreConfig(name=config.name, kind=config.kind, options=config.options, connection=connection, sas=sas)
