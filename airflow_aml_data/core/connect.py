"""From the name of a workspace to its parts: configuration, storages, catalog."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_aml_data.core import connections
from airflow_aml_data.core.connections import DEFAULT_CONN_ID, ConnectionFields
from airflow_aml_data.core.protocol import RunFile
from airflow_aml_data.core.storage.base import DatastoreConfig, Storage, check_kind, open_storage
from airflow_aml_data.errors import AmlDataError, DatastoreNotFound, InvalidConfiguration, NotOffered, WorkspaceNotFound

if TYPE_CHECKING:
    from airflow_aml_data.core.catalog import Catalog

log = logging.getLogger(__name__)

_IDENTITY = ("subscription_id", "resource_group", "workspace_name")
_MOUNT_FALLBACKS = ("download", "fail")
_CONFIG_FOLDERS = (".azureml", "aml_config", ".")
_TOLD_TO_SCRIPTS = ("connections", "registered", "chosen_default")
_EMBEDDED_DATASTORE = "workspaceblobstore"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceConfig:
    """What a connection says about a workspace; the keys are those of the connection's extra.

    :param datastores: Datastore name to its kind and options.
    :param catalog_connection_string: SQLAlchemy URL of the catalog; holds a password, so never in a repr.
    :param mount_fallback: What becomes of inputs and outputs in mount mode where a machine cannot mount stores that are not on
        it: ``"download"``, with a warning, or ``"fail"``.
    :param connections: Airflow connections of the datastores, for scripts, which cannot read them; empty on the worker.
    :param registered: Datastores the catalog knew when a step was started, for its script; None on the worker, which asks the catalog.
    :param chosen_default: The default datastore the catalog knew then.
    :param is_in_job: Whether this is an Azure ML job, which reaches the files of its inputs, and neither the catalog nor anything else.
    """

    name: str
    datastores: Mapping[str, DatastoreConfig]
    default_datastore: str
    catalog_connection_string: str = field(repr=False)
    mount_fallback: str = "download"
    connections: Mapping[str, ConnectionFields] = field(default_factory=dict, repr=False)
    registered: Mapping[str, DatastoreConfig] | None = None
    chosen_default: str = ""
    is_in_job: bool = False
    subscription_id: str = ""
    resource_group: str = ""
    workspace_name: str = ""

    @classmethod
    def from_mapping(cls, name: str, config: Mapping[str, Any], home: Path) -> WorkspaceConfig:
        """Check a configuration and fill in what it leaves out from the embedded workspace in ``home``.

        :param name: The connection's id, for messages.
        :raises InvalidConfiguration: naming the unknown key, or the type found and the type wanted.
        """
        allowed = ("datastores", "default_datastore", "catalog_connection_string", "mount_fallback", *_IDENTITY)
        for key, value in config.items():
            if key not in allowed:
                raise InvalidConfiguration(
                    f"Connection {name!r} has unknown key {key!r}. Allowed: {', '.join(allowed)}."
                )
            if key != "datastores" and not isinstance(value, str | None):
                raise InvalidConfiguration(f"Connection {name!r}: {key!r} must be text, found {type(value).__name__}.")
        texts: dict[str, Any] = {key: config.get(key) or "" for key in allowed if key != "datastores"}
        stores = _datastores(name, config.get("datastores")) or {
            _EMBEDDED_DATASTORE: DatastoreConfig(
                name=_EMBEDDED_DATASTORE,
                kind="local",
                options={"root": str(home / "datastores" / _EMBEDDED_DATASTORE)},
            )
        }
        texts["default_datastore"] = texts["default_datastore"] or next(iter(stores))
        if texts["default_datastore"] not in stores:
            raise InvalidConfiguration(
                f"Connection {name!r}: 'default_datastore' is {texts['default_datastore']!r}, which is not among its "
                f"datastores: {', '.join(stores)}."
            )
        texts["catalog_connection_string"] = texts["catalog_connection_string"] or f"sqlite:///{home / 'catalog.db'}"
        texts["mount_fallback"] = texts["mount_fallback"] or _MOUNT_FALLBACKS[0]
        if texts["mount_fallback"] not in _MOUNT_FALLBACKS:
            raise InvalidConfiguration(
                f"Connection {name!r}: 'mount_fallback' is {texts['mount_fallback']!r}. Allowed: {', '.join(_MOUNT_FALLBACKS)}."
            )
        return cls(name=name, datastores=stores, **texts)

    @classmethod
    def in_job(cls, name: str, told: Mapping[str, Any]) -> WorkspaceConfig:
        """What a job was told of its workspace: the datastores of its inputs."""
        stores = {
            store: DatastoreConfig(
                name=store, kind=options["kind"], options={key: each for key, each in options.items() if key != "kind"}
            )
            for store, options in told["datastores"].items()
        }
        return cls(
            name=name,
            datastores=stores,
            default_datastore=next(iter(stores), ""),
            catalog_connection_string="",
            registered={},
            is_in_job=True,
        )

    def to_mapping(self) -> dict[str, Any]:
        """The configuration as :meth:`from_mapping` takes it; holds credentials, so for private files only."""
        return {
            "datastores": _mapping(self.datastores),
            "default_datastore": self.default_datastore,
            "catalog_connection_string": self.catalog_connection_string,
            "mount_fallback": self.mount_fallback,
            **{key: getattr(self, key) for key in _IDENTITY},
        }


class ConnectedWorkspace:
    """A workspace with its parts, each opened when it is first used.

    :param config: From :func:`find_config`.
    """

    def __init__(self, config: WorkspaceConfig) -> None:
        self.config = config
        self._storages: dict[str, Storage] = {}
        self._places: dict[str, str | None] | None = None

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

    @property
    def datastores(self) -> Mapping[str, DatastoreConfig]:
        """All datastores, in order: those that the connection declares, then those registered under another name."""
        declared = self.config.datastores
        names = {each.lower() for each in declared}
        registered, _ = self._in_catalog
        return {**declared, **{name: each for name, each in registered.items() if name.lower() not in names}}

    def declares(self, name: str) -> bool:
        """Whether the connection declares a datastore of that name; the catalog is not asked."""
        return _known_as(name, self.config.datastores) is not None

    def datastore_name(self, name: str | None) -> str:
        """The name of a datastore as it is known; None is the default one. Names are case-insensitive, as in v1.

        :raises DatastoreNotFound: naming the known ones.
        """
        if name is None:
            _, chosen = self._in_catalog
            name = chosen or self.config.default_datastore
        known = _known_as(name, self.config.datastores) or _known_as(name, self.datastores)
        if known is None and self.config.registered is not None and (self.config.is_in_job or find_spec("sqlalchemy")):
            self._in_catalog = self._look_into_catalog()  # the script may have registered it itself
            known = _known_as(name, self.datastores)
        if known is None:
            raise DatastoreNotFound(name, self.datastores)
        return known

    def datastore_at(self, location: str) -> str | None:
        """The first datastore that has a place.

        :param location: As :func:`.azure_location` gives it.
        """
        return next((name for name, place in self.datastore_places().items() if place == location), None)

    def datastore_places(self) -> Mapping[str, str | None]:
        """Each datastore and where it is in Azure, found without opening it; None: elsewhere, or nobody can tell."""
        if self._places is None:
            self._places = {name: self._place(each) for name, each in self.datastores.items()}
        return self._places

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
        return self._with_connection(self.config.datastores.get(name) or self.datastores[name])

    def check_datastore(self, config: DatastoreConfig) -> str:
        """Say in a few words what a datastore is that this workspace does not know yet, or raise."""
        return open_storage(self._with_connection(config)).check()

    def to_mapping(self) -> dict[str, Any]:
        """The configuration for a script, with what the Airflow connections of its datastores hold; for private files only.

        A connection that cannot be read is left out, with a warning: the script may not need it.
        """
        read = {}
        for conn_id in {str(each.options["conn_id"]) for each in self.datastores.values() if "conn_id" in each.options}:
            try:
                read[conn_id] = asdict(self._connection(conn_id))
            except InvalidConfiguration as error:
                log.warning("The step's script gets no access to a datastore: %s", error)
        registered, chosen = self._in_catalog
        told = {"connections": read, "registered": _mapping(registered), "chosen_default": chosen}
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
        catalog, datastores = "", self.config.datastores
        try:
            catalog = self.catalog.check()
            datastores = self.datastores
        except AmlDataError as error:
            fails.append(str(error))
        for name in datastores:
            try:
                works.append(self.storage(name).check())
            except AmlDataError as error:
                fails.append(f"{name} ({error})")
        works += [catalog] if catalog else []
        sentence = f"Works: {'; '.join(works) or 'nothing'}"
        return not fails, sentence + (f". Does not work: {'; '.join(fails)}" if fails else "") + "."


def connect(conn_id: str = DEFAULT_CONN_ID, config_path: str | None = None, search: bool = False) -> ConnectedWorkspace:
    """Open a workspace by the id of its Airflow connection.

    Inside a step, the configuration is the one the step was started with. Without a connection of the
    default id, it is the embedded workspace: a folder and an SQLite catalog under ``$AIRFLOW_HOME``.

    :param search: Also look for v1's ``config.json``, from ``config_path`` or the working directory upwards.
    :raises WorkspaceNotFound: when no connection has that id, or no config.json is where one was named.
    """
    identity = _read_config_json(config_path) if search else {}
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
    for key, value in identity.items():
        if config.get(key, value) not in (value, "", None):
            raise InvalidConfiguration(
                f"config.json says {key} = {value!r}, connection {conn_id!r} says {config[key]!r}. They must name one workspace."
            )
        config[key] = value
    made = WorkspaceConfig.from_mapping(conn_id, config, embedded_home())
    return ConnectedWorkspace(replace(made, **_from_worker(conn_id, told)) if in_step else made)


def _from_worker(conn_id: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """What :meth:`ConnectedWorkspace.to_mapping` adds to a configuration, for a script."""
    return {
        "connections": {each: ConnectionFields(**fields) for each, fields in (told["connections"] or {}).items()},
        "registered": _datastores(conn_id, told["registered"]),
        "chosen_default": told["chosen_default"] or "",
    }


def _known_as(name: str, datastores: Iterable[str]) -> str | None:
    return next((known for known in datastores if known.lower() == name.lower()), None)


def _mapping(datastores: Mapping[str, DatastoreConfig]) -> dict[str, Any]:
    return {each.name: {"kind": each.kind, **_retention(each), **each.options} for each in datastores.values()}


def _retention(datastore: DatastoreConfig) -> dict[str, int]:
    return {} if datastore.retention_days is None else {"retention_days": datastore.retention_days}


def embedded_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the embedded workspace."""
    return Path(environ.get("AIRFLOW_HOME") or "~/airflow").expanduser() / "azureml_workspace"


def _datastores(name: str, declared: Any) -> dict[str, DatastoreConfig]:
    if declared is None or declared == "":
        return {}
    if isinstance(declared, str):  # the connection form's text box
        try:
            declared = json.loads(declared)
        except json.JSONDecodeError as error:
            raise InvalidConfiguration(f"Connection {name!r}: 'datastores' is not JSON: {error}.") from error
    example = '{"mystore": {"kind": "local", "root": "/data"}}'
    if not isinstance(declared, Mapping) or not all(isinstance(each, Mapping) for each in declared.values()):
        raise InvalidConfiguration(
            f"Connection {name!r}: 'datastores' must map a name to its kind and options, as in {example}."
        )
    stores = {}
    lower: set[str] = set()
    for store, options in declared.items():
        kind = options.get("kind")
        if not isinstance(kind, str):
            raise InvalidConfiguration(f"Connection {name!r}: datastore {store!r} lacks 'kind'. Example: {example}.")
        check_kind(kind, store)
        if not isinstance(store, str) or store.lower() in lower:
            raise InvalidConfiguration(
                f"Connection {name!r} has two datastores {store!r}: their names differ at most in upper and lower case, which do not count."
            )
        lower.add(store.lower())
        days = options.get("retention_days")
        if days is not None and not (isinstance(days, int) and days >= 1):
            raise InvalidConfiguration(
                f"Connection {name!r}: retention_days of datastore {store!r} is {days!r}. Allowed: a whole number of days, 1 and more."
            )
        its_own = {key: each for key, each in options.items() if key not in ("kind", "retention_days")}
        stores[store] = DatastoreConfig(name=store, kind=kind, options=its_own, retention_days=days)
    return stores


def _read_config_json(path: str | None) -> dict[str, str]:
    file = _find_config_json(Path(path or "."))
    if file is None:
        if path is None:
            return {}
        raise WorkspaceNotFound(
            f"The workspace configuration file config.json, could not be found in {Path(path).absolute()} or its parent "
            "directories. Write it there with subscription_id, resource_group and workspace_name, or leave out the path "
            f"to use the Airflow connection {DEFAULT_CONN_ID!r}."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{file} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InvalidConfiguration(f"{file} must hold one JSON object with {', '.join(_IDENTITY)}.")
    for key in content:
        if key not in _IDENTITY:
            raise InvalidConfiguration(f"{file} has unknown key {key!r}. Allowed: {', '.join(_IDENTITY)}.")
    for key in _IDENTITY:
        if not isinstance(content.get(key), str) or not content[key]:
            raise InvalidConfiguration(f"{file}: {key!r} must be text, found {content.get(key)!r}.")
    return content


def _find_config_json(start: Path) -> Path | None:
    """v1's order: the file itself, or for a folder ``.azureml``, ``aml_config`` and itself, then its parents."""
    start = start.absolute()
    if start.is_file():
        return start
    for folder in (start, *start.parents):
        for inner in _CONFIG_FOLDERS:
            if (file := folder / inner / "config.json").is_file():
                return file
    return None
