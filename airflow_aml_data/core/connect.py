"""From the name of a workspace to its parts: configuration, storages, catalog."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_aml_data.core import connections
from airflow_aml_data.core.configuration import (
    IDENTITY,
    WorkspaceConfig,
    datastores_mapping,
    embedded_home,
    names_workspace,
    read_config_json,
    read_datastores,
)
from airflow_aml_data.core.connections import DEFAULT_CONN_ID, ConnectionFields
from airflow_aml_data.core.protocol import RunFile
from airflow_aml_data.core.storage.base import DatastoreConfig, Storage, open_storage
from airflow_aml_data.errors import (
    AmlDataError,
    DatastoreNotFound,
    InvalidConfiguration,
    InvalidDeclaration,
    MissingExtra,
    NotOffered,
    WorkspaceNotFound,
)

if TYPE_CHECKING:
    from airflow_aml_data.core.azureml.control_plane import ControlPlane
    from airflow_aml_data.core.azureml.datastores import AzureMlDatastores
    from airflow_aml_data.core.catalog import Catalog

log = logging.getLogger(__name__)

SAFE_IN_URI = "/!$&'()*+,;=:@~"
"""What may stand in an address as it is, beside letters, digits and ``_.-``."""

_TOLD_TO_SCRIPTS = ("connections", "registered", "chosen_default", "is_connected")


class ConnectedWorkspace:
    """A workspace with its parts, each opened when it is first used.

    :param config: From :func:`find_config`.
    """

    def __init__(self, config: WorkspaceConfig) -> None:
        self.config = config
        self._storages: dict[str, Storage] = {}

    def __repr__(self) -> str:
        return f"ConnectedWorkspace({self.config.name!r})"

    @cached_property
    def catalog(self) -> Catalog:
        if self.config.is_in_job:
            raise NotOffered(
                "An Azure ML job reaches the files of its step's inputs, not the workspace's catalog and datastores. Give the step what it "
                "reads as an input, and take it from Run.get_context().input_datasets; write results to outputs, and register them "
                "with register_on_complete()."
            )
        from airflow_aml_data.core.catalog import Catalog  # SQLAlchemy: not before someone asks

        return Catalog(self.config.catalog_connection_string)

    @cached_property
    def azureml(self) -> ControlPlane:
        """The Azure ML workspace that the connection names.

        :raises InvalidConfiguration: when it names none.
        :raises MissingExtra: when what this needs is not installed.
        """
        config = self.config
        if not config.is_connected:
            missing = [key for key in IDENTITY if not getattr(config, key)]
            raise InvalidConfiguration(
                f"Connection {config.name!r} names no Azure ML workspace: "
                + (f"it has no {' and no '.join(missing)}. " if missing else "only config.json does. ")
                + f"Give {', '.join(IDENTITY)} in the connection, and who signs in: login, password and 'tenant_id', or nothing for the "
                "identity of the machine."
            )
        try:
            from airflow_aml_data.core.azureml.control_plane import ControlPlane
        except ModuleNotFoundError:
            raise MissingExtra("An Azure ML workspace", "azureml") from None
        return ControlPlane(config.sign_in, **{key: getattr(config, key) for key in IDENTITY})

    @cached_property
    def _in_catalog(self) -> tuple[Mapping[str, DatastoreConfig], str]:
        """Registered datastores and the chosen default, by one look into the catalog; a script was told them."""
        if self.config.registered is not None:
            return self.config.registered, self.config.chosen_default
        return self._look_into_catalog()

    def _look_into_catalog(self) -> tuple[Mapping[str, DatastoreConfig], str]:
        known = self.catalog.list_datastores()
        registered = {
            each.name: DatastoreConfig(name=each.name, kind=each.kind, options=each.options)
            for each in known
            if each.kind
        }
        return registered, next((each.name for each in known if each.is_default), "")

    @cached_property
    def _in_azureml(self) -> AzureMlDatastores | None:
        """What Azure ML knows; None where the connection names no workspace of it. Nothing is asked yet."""
        if not self.config.is_connected:
            return None
        from airflow_aml_data.core.azureml.datastores import AzureMlDatastores

        return AzureMlDatastores(self.azureml)

    @property
    def _own_datastores(self) -> Mapping[str, DatastoreConfig]:
        """Those that the connection declares, then those registered in the catalog under another name."""
        declared = self.config.datastores
        names = {each.lower() for each in declared}
        registered, _ = self._in_catalog
        return {**declared, **{name: each for name, each in registered.items() if name.lower() not in names}}

    @property
    def datastores(self) -> Mapping[str, DatastoreConfig]:
        """All datastores, in order: declared in the connection, registered in the catalog, known to Azure ML only.

        One of Azure ML that is the same place as one before it is that one.
        """
        own = self._own_datastores
        if self._in_azureml is None:
            return own
        names, places = {each.lower() for each in own}, set(self._own_places.values())
        theirs = {
            name: each
            for name, each in self._in_azureml.configs.items()
            if name.lower() not in names and self._azureml_places[name] not in places
        }
        return {**own, **theirs}

    def declares(self, name: str) -> bool:
        """Whether the connection declares a datastore of that name; the catalog is not asked."""
        return _known_as(name, self.config.datastores) is not None

    def datastore_name(self, name: str | None) -> str:
        """The name of a datastore as it is known; None is the default one. Names are case-insensitive, as in v1.

        Azure ML is asked for a name that neither the connection nor the catalog knows.

        :raises DatastoreNotFound: naming the known ones.
        """
        if name is None:
            _, chosen = self._in_catalog
            name = chosen or self.config.default_datastore
        if not name and self._in_azureml is not None:
            name = self._in_azureml.default
        known = _known_as(name, self.config.datastores) or _known_as(name, self._own_datastores)
        if known is None and self.config.registered is not None and (self.config.is_in_job or find_spec("sqlalchemy")):
            self._in_catalog = self._look_into_catalog()  # the script may have registered it itself
            known = _known_as(name, self._own_datastores)
        if known is None and self._in_azureml is not None:
            known = self._in_azureml.known_as(name)
            if known is not None:
                place = self._azureml_places[known]
                known = next((own for own, each in self._own_places.items() if each and each == place), known)
        if known is None:
            raise DatastoreNotFound(name, self.datastores)
        return known

    def azureml_datastore(self, name: str) -> str:
        """The name under which jobs of Azure ML reach a datastore.

        :param name: As this workspace knows it.
        :raises InvalidDeclaration: when Azure ML does not know the place.
        """
        known = self.datastore_name(name)
        workspace, theirs = self.azureml.workspace_name, self._azureml_places
        if known not in self._own_datastores:
            return known
        place = self._own_places[known]
        same = [each for each, there in theirs.items() if there and there == place]
        if same:
            return known if known in same else same[0]
        why = "is a folder of this machine" if place is None else f"is not registered there: {place}"
        raise InvalidDeclaration(
            f"Jobs of Azure ML workspace {workspace!r} cannot reach datastore {known!r}: it {why}. They reach: "
            f"{', '.join(theirs) or 'none'}. Use one of these, or register the place in that workspace."
        )

    def azureml_uri(self, datastore: str, path: str) -> str:
        """The address under which jobs of Azure ML reach a path on a datastore.

        :raises InvalidDeclaration: when Azure ML does not know the place.
        """
        return f"azureml://datastores/{self.azureml_datastore(datastore)}/paths/{quote(path, safe=SAFE_IN_URI)}"

    def datastore_at(self, location: str) -> str | None:
        """The first datastore that has a place.

        :param location: As :func:`.azure_location` gives it.
        """
        for name, place in self._own_places.items():
            if place == location:
                return name
        return next((name for name, place in self.datastore_places().items() if place == location), None)

    def datastore_places(self) -> Mapping[str, str | None]:
        """Each datastore and where it is in Azure, found without opening it; None: elsewhere, or nobody can tell."""
        if self._in_azureml is None:
            return self._own_places
        return {name: {**self._azureml_places, **self._own_places}[name] for name in self.datastores}

    def locations(self) -> Mapping[str, str]:
        """Each datastore and where it is, as :attr:`.Storage.location` says; those in Azure are not opened."""
        return {name: place or self.storage(name).location for name, place in self.datastore_places().items()}

    @cached_property
    def _own_places(self) -> Mapping[str, str | None]:
        return {name: self._place(each) for name, each in self._own_datastores.items()}

    @cached_property
    def _azureml_places(self) -> Mapping[str, str | None]:
        """Of each datastore that Azure ML knows, by its name there."""
        found = self._in_azureml.configs if self._in_azureml else {}
        return {name: self._place(each) for name, each in found.items()}

    def _place(self, config: DatastoreConfig) -> str | None:
        from airflow_aml_data.core.storage.azure.addresses import azure_location

        try:
            return azure_location(self._with_connection(config))
        except InvalidConfiguration as error:
            log.warning("No address leads to datastore %r: %s", config.name, error)
            return None

    def storage(self, name: str | None) -> Storage:
        known = self.datastore_name(name)
        if known not in self._storages:
            self._storages[known] = open_storage(self.datastore_config(known))
        return self._storages[known]

    def datastore_config(self, name: str) -> DatastoreConfig:
        """What opens a datastore, in another process too; holds credentials."""
        known = self.config.datastores.get(name) or self._own_datastores.get(name)
        if known is None and self._in_azureml is not None:
            return self._in_azureml.open(name)
        return self._with_connection(known or self.datastores[name])

    def check_datastore(self, config: DatastoreConfig) -> str:
        """Say in a few words what a datastore is that this workspace does not know yet, or raise."""
        return open_storage(self._with_connection(config)).check()

    def to_mapping(self) -> dict[str, Any]:
        """The configuration for a script, with what the Airflow connections of its datastores hold; for private files only.

        A connection that cannot be read is left out, with a warning: the script may not need it.
        """
        read, own = {}, self._own_datastores
        for conn_id in {str(each.options["conn_id"]) for each in own.values() if "conn_id" in each.options}:
            try:
                read[conn_id] = asdict(self._connection(conn_id))
            except InvalidConfiguration as error:
                log.warning("The step's script gets no access to a datastore: %s", error)
        registered, chosen = self._in_catalog
        opened = self._in_azureml.opened if self._in_azureml else {}
        for name, config in opened.items():
            read[f"{self.config.name}/{name}"] = asdict(config.portable())["connection"]
        theirs = {
            name: replace(each, options={**each.options, "conn_id": f"{self.config.name}/{name}"}, connection=None)
            for name, each in opened.items()
        }
        told = {
            "connections": read,
            "registered": datastores_mapping({**registered, **theirs}),
            "chosen_default": chosen,
            "is_connected": self.config.is_connected,
        }
        return self.config.to_mapping() | told

    def _with_connection(self, config: DatastoreConfig) -> DatastoreConfig:
        conn_id = config.options.get("conn_id")
        if conn_id is None:
            return config
        if not isinstance(conn_id, str):
            raise InvalidConfiguration(
                f"Datastore {config.name!r}: 'conn_id' must be text, found {type(conn_id).__name__}."
            )
        return replace(config, connection=self._connection(conn_id))

    def _connection(self, conn_id: str) -> ConnectionFields:
        return self.config.connections.get(conn_id) or connections.reader(conn_id)

    def check(self) -> tuple[bool, str]:
        """Whether everything works, and one sentence that says what does and what does not."""
        works, fails = [], []
        datastores: Iterable[str] = self.config.datastores
        try:
            works.append(self.catalog.check())
            datastores = self._own_datastores
        except AmlDataError as error:
            fails.append(str(error))
        try:
            works += [self.azureml.check()] if self.config.is_connected else []
            datastores = dict.fromkeys([*datastores, self.datastore_name(None)])
        except AmlDataError as error:
            fails.append(str(error))
        stores = []
        for name in datastores:
            try:
                stores.append(self.storage(name).check())
            except AmlDataError as error:
                fails.append(f"{name} ({error})")
        works = [*stores, *works]
        sentence = f"Works: {'; '.join(works) or 'nothing'}"
        return not fails, sentence + (f". Does not work: {'; '.join(fails)}" if fails else "") + "."


def connect(conn_id: str = DEFAULT_CONN_ID, config_path: str | None = None, search: bool = False) -> ConnectedWorkspace:
    """Open a workspace by the id of its Airflow connection.

    Inside a step, the configuration is the one the step was started with. Without a connection of the
    default id, it is the embedded workspace: a folder and an SQLite catalog under ``$AIRFLOW_HOME``.

    :param search: Also look for v1's ``config.json``, from ``config_path`` or the working directory upwards.
    :raises WorkspaceNotFound: when no connection has that id, or no config.json is where one was named.
    """
    identity = read_config_json(config_path) if search else {}
    step = RunFile.current()
    in_step = step is not None and step.conn_id == conn_id
    found = step.workspace if step and in_step else connections.source(conn_id)
    if found is None and conn_id != DEFAULT_CONN_ID:
        raise WorkspaceNotFound(
            f"There is no Airflow connection {conn_id!r}. Create one of type 'azureml', "
            f"or use the default {DEFAULT_CONN_ID!r}, which works without one."
        )
    config = dict(found or {})
    if in_step and config.get("in_job"):
        return ConnectedWorkspace(WorkspaceConfig.in_job(conn_id, config))
    told = {key: config.pop(key, None) for key in _TOLD_TO_SCRIPTS} if in_step else {}
    is_connected = told["is_connected"] if in_step else names_workspace(config)
    for key, value in identity.items():
        if config.get(key, value) not in (value, "", None):
            raise InvalidConfiguration(
                f"config.json says {key} = {value!r}, connection {conn_id!r} says {config[key]!r}. They must name one workspace."
            )
        config[key] = value
    made = WorkspaceConfig.from_mapping(conn_id, config, embedded_home(), is_connected=is_connected)
    return ConnectedWorkspace(replace(made, **_from_worker(conn_id, told)) if in_step else made)


def _from_worker(conn_id: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """What :meth:`ConnectedWorkspace.to_mapping` adds to a configuration, for a script."""
    return {
        "connections": {each: ConnectionFields(**fields) for each, fields in (told["connections"] or {}).items()},
        "registered": read_datastores(conn_id, told["registered"]),
        "chosen_default": told["chosen_default"] or "",
    }


def _known_as(name: str, datastores: Iterable[str]) -> str | None:
    return next((known for known in datastores if known.lower() == name.lower()), None)
