"""The only reader of Airflow connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.connections import DEFAULT_CONN_ID, ConnectionFields
from airflow_aml_data.core.workspace import Workspace
from airflow_aml_data.errors import AmlDataError, InvalidConfiguration

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

CONN_TYPE = "azureml"


class AmlWorkspaceHook(BaseHook):
    """Turn an ``azureml`` connection into a workspace.

    Building a hook reads nothing.

    :param azureml_conn_id: Airflow connection of type ``azureml``. The default one need not exist: then the
        workspace is embedded, a folder and an SQLite catalog under ``$AIRFLOW_HOME``.
    """

    conn_name_attr = "azureml_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONN_TYPE
    hook_name = "Azure ML workspace"

    def __init__(self, azureml_conn_id: str = DEFAULT_CONN_ID) -> None:
        super().__init__()
        self.azureml_conn_id = azureml_conn_id

    def get_conn(self) -> ConnectedWorkspace:
        """The workspace with its datastores and catalog, each opened when it is used."""
        return Workspace(self.azureml_conn_id).connect()

    def get_ml_client(self) -> MLClient:
        """Azure ML's own client for the workspace that the connection names, signed in as the connection says.

        :raises InvalidConfiguration: when it names none.
        :raises MissingExtra: when azure-ai-ml is not installed.
        """
        return self.get_conn().azureml.ml_client()

    def test_connection(self) -> tuple[bool, str]:
        """Whether everything works, and one sentence that says what does and what does not."""
        try:
            return self.get_conn().check()
        except AmlDataError as error:
            return False, str(error)


def find_configuration(conn_id: str) -> Mapping[str, Any] | None:
    """The configuration a connection holds, or None when there is no such connection.

    :raises InvalidConfiguration: when the connection is of another type.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None
    if connection.conn_type != CONN_TYPE:
        raise InvalidConfiguration(
            f"Connection {conn_id!r} is of type {connection.conn_type!r}; a workspace needs one of type {CONN_TYPE!r}."
        )
    config = {key: value for key, value in connection.extra_dejson.items() if value not in (None, "")}
    for key, standard, value in (
        ("client_id", "login", connection.login),
        ("client_secret", "password", connection.password),
    ):
        if key in config:
            raise InvalidConfiguration(
                f"Connection {conn_id!r} has {key!r} in its extra. Its place is the field {standard!r}."
            )
        if value:
            config[key] = value
    catalog_conn_id = config.pop("catalog_conn_id", None)
    if catalog_conn_id:
        if "catalog_connection_string" in config:
            raise InvalidConfiguration(
                f"Connection {conn_id!r} has both 'catalog_conn_id' and 'catalog_connection_string'. Keep one of them."
            )
        config["catalog_connection_string"] = _database_url(conn_id, catalog_conn_id)
    return config


def read_connection(conn_id: str) -> ConnectionFields:
    """The Airflow connection that a datastore names.

    :raises InvalidConfiguration: when there is none.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise InvalidConfiguration(
            f"A datastore names the Airflow connection {conn_id!r} as its 'conn_id', and there is no such connection."
        ) from error
    return ConnectionFields(
        conn_id=conn_id,
        conn_type=connection.conn_type or "",
        host=connection.host or "",
        login=connection.login or "",
        password=connection.password or "",
        extra=connection.extra_dejson,
    )


def _database_url(conn_id: str, catalog_conn_id: str) -> str:
    try:
        database = BaseHook.get_connection(catalog_conn_id)
    except AirflowNotFoundException as error:
        raise InvalidConfiguration(
            f"Connection {conn_id!r}: 'catalog_conn_id' names {catalog_conn_id!r}, and there is no such connection."
        ) from error
    if database.conn_type != "postgres":
        raise InvalidConfiguration(
            f"Connection {conn_id!r}: 'catalog_conn_id' must name a connection of type 'postgres', "
            f"{catalog_conn_id!r} is of type {database.conn_type!r}."
        )
    from sqlalchemy import URL

    url = URL.create(
        "postgresql",
        username=database.login or None,
        password=database.password or None,
        host=database.host or None,
        port=database.port,
        database=database.schema or None,
    )
    return url.render_as_string(hide_password=False)
