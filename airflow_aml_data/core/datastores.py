"""Registering datastores by name, beside those that the workspace's connection declares. Source: v1, ``azureml.core.Datastore``."""

from __future__ import annotations

import getpass
import logging
import re
from collections.abc import Mapping
from typing import Any

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.protocol import RunFile
from airflow_aml_data.core.storage.base import DatastoreConfig, check_kind
from airflow_aml_data.errors import InvalidDeclaration, InvalidName

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_]{1,255}")
_CONNECTION_TYPES = {"azure_blob": "wasb", "azure_data_lake_gen2": "adls", "azure_file": "azure_fileshare"}


def register(
    workspace: ConnectedWorkspace,
    name: str,
    kind: str,
    options: Mapping[str, Any],
    *,
    overwrite: bool,
    skip_validation: bool = False,
) -> str:
    """Write a datastore into the catalog, after a look at the store.

    :param options: As the workspace's connection would declare them; those that are None are left out.
    :returns: Its name, as the catalog knows it.
    :raises InvalidDeclaration: for a name the connection declares, or one that is registered when ``overwrite`` is False.
    :raises DatastoreInUse: when it would become another place, and outputs or registered datasets lie on it.
    """
    from airflow_aml_data.core.catalog import RegisteredDatastore

    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidName(f"Invalid datastore name {name!r}. The name can only be letters, digits and underscores.")
    _refuse_declared(workspace, name, "registered")
    check_kind(kind, name)
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        if not isinstance(value, str) or not value:
            raise InvalidDeclaration(f"Datastore {name!r}: {key} is text that is not empty, found {value!r}.")
    if not skip_validation:
        workspace.check_datastore(DatastoreConfig(name=name, kind=kind, options=given))
    workspace.catalog.register_datastore(
        RegisteredDatastore(name=name, kind=kind, options=given, changed_by=_who()), overwrite=overwrite
    )
    return name


def unregister(workspace: ConnectedWorkspace, name: str) -> None:
    """Forget a registered datastore; see :meth:`.Catalog.unregister_datastore`.

    :raises DatastoreNotFound: naming the known ones, declared ones too.
    """
    _refuse_declared(workspace, name, "unregistered")
    workspace.catalog.unregister_datastore(workspace.datastore_name(name), by=_who())


def set_default(workspace: ConnectedWorkspace, name: str) -> None:
    """Make a datastore the one that is used where none is named.

    :raises DatastoreNotFound: naming the known ones.
    """
    workspace.catalog.set_default_datastore(workspace.datastore_name(name), by=_who())


def refuse_secrets(kind: str, **given: Any) -> None:
    """Refuse v1's parameters for credentials: the catalog keeps none.

    :raises InvalidDeclaration: naming them, never their values.
    """
    if names := [name for name, value in given.items() if value is not None]:
        raise InvalidDeclaration(
            f"{', '.join(names)}: the catalog keeps no credentials. Put them into an Airflow connection of type "
            f'{_CONNECTION_TYPES[kind]!r}, and give its id: conn_id="...". Without one, access is identity-based.'
        )


def refuse_creation(create_if_not_exists: bool, what: str) -> None:
    """:raises InvalidDeclaration: when a container or share is to be made."""
    if create_if_not_exists:
        raise InvalidDeclaration(
            f"create_if_not_exists=True is not offered: registering makes no {what}. Make it in the storage account first, and "
            "leave the argument out."
        )


def tell_unused(**given: Any) -> None:
    """Say which of v1's parameters change nothing here."""
    if names := [name for name, value in given.items() if value]:
        log.warning("%s: of no effect here, there is no Azure ML service that would act on it.", ", ".join(names))


def _refuse_declared(workspace: ConnectedWorkspace, name: str, what: str) -> None:
    if workspace.declares(name):
        raise InvalidDeclaration(
            f"Datastore {name!r} is declared in connection {workspace.config.name!r} and cannot be {what}. Change the connection, or "
            "choose another name."
        )


def _who() -> str:
    step = RunFile.current()
    return step.id if step else getpass.getuser()
