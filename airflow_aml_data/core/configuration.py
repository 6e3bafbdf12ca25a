"""What a connection of type ``azureml`` says, and v1's ``config.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_aml_data.core.connections import DEFAULT_CONN_ID, ConnectionFields
from airflow_aml_data.core.storage.base import DatastoreConfig, check_kind
from airflow_aml_data.errors import InvalidConfiguration, WorkspaceNotFound

IDENTITY = ("subscription_id", "resource_group", "workspace_name")
"""The keys that name an Azure ML workspace."""
_SIGN_IN = (
    "tenant_id",
    "client_id",
    "client_secret",
    "managed_identity_client_id",
    "workload_identity_tenant_id",
    "cloud",
)
_CLOUD_NAMES = ("public", "us_government", "china")
_MOUNT_FALLBACKS = ("download", "fail")
_CONFIG_FOLDERS = (".azureml", "aml_config", ".")
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
    :param is_connected: Whether the connection, not only a ``config.json``, names the Azure ML workspace: then it is asked for what the
        catalog does not know.
    :param is_in_job: Whether this is an Azure ML job, which reaches the files of its inputs, and neither the catalog nor anything else.
    :param client_id: Of a service principal, with ``tenant_id`` and ``client_secret``; empty: the machine's identity.
    :param cloud: ``public``, ``us_government`` or ``china``.
    """

    name: str
    datastores: Mapping[str, DatastoreConfig]
    default_datastore: str
    catalog_connection_string: str = field(repr=False)
    mount_fallback: str = "download"
    connections: Mapping[str, ConnectionFields] = field(default_factory=dict, repr=False)
    registered: Mapping[str, DatastoreConfig] | None = None
    chosen_default: str = ""
    subscription_id: str = ""
    resource_group: str = ""
    workspace_name: str = ""
    is_connected: bool = False
    is_in_job: bool = False
    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    managed_identity_client_id: str = ""
    workload_identity_tenant_id: str = ""
    cloud: str = "public"

    @classmethod
    def from_mapping(
        cls, name: str, config: Mapping[str, Any], home: Path, *, is_connected: bool | None = None
    ) -> WorkspaceConfig:
        """Check a configuration and fill in what it leaves out from the embedded workspace in ``home``.

        :param name: The connection's id, for messages.
        :param is_connected: None: whether the configuration names all of an Azure ML workspace.
        :raises InvalidConfiguration: naming the unknown key, or the type found and the type wanted.
        """
        texts = _texts(name, config)
        if is_connected is None:
            is_connected = names_workspace(config)
        stores = read_datastores(name, config.get("datastores"))
        if not stores and not is_connected:
            root = str(home / "datastores" / _EMBEDDED_DATASTORE)
            stores[_EMBEDDED_DATASTORE] = DatastoreConfig(
                name=_EMBEDDED_DATASTORE, kind="local", options={"root": root}
            )
        default = texts["default_datastore"] = texts["default_datastore"] or next(iter(stores), "")
        if default not in stores and not is_connected:  # else it may be one of the Azure ML workspace
            raise InvalidConfiguration(
                f"Connection {name!r}: 'default_datastore' is {default!r}, which is not among its datastores: {', '.join(stores)}."
            )
        texts["catalog_connection_string"] = texts["catalog_connection_string"] or f"sqlite:///{home / 'catalog.db'}"
        return cls(name=name, datastores=stores, is_connected=is_connected, **texts)

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

    @property
    def sign_in(self) -> ConnectionFields:
        """Whom to be for the Azure ML workspace; the fields of the connection that say so."""
        said = {key: getattr(self, key) for key in _SIGN_IN if key not in ("client_id", "client_secret")}
        return ConnectionFields(
            conn_id=self.name,
            conn_type="azureml",
            login=self.client_id,
            password=self.client_secret,
            extra={key: value for key, value in said.items() if value},
        )

    def to_mapping(self) -> dict[str, Any]:
        """The configuration as :meth:`from_mapping` takes it; holds credentials, so for private files only."""
        return {
            "datastores": datastores_mapping(self.datastores),
            "default_datastore": self.default_datastore,
            "catalog_connection_string": self.catalog_connection_string,
            "mount_fallback": self.mount_fallback,
            **{key: getattr(self, key) for key in (*IDENTITY, *_SIGN_IN)},
        }


def embedded_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the embedded workspace."""
    return Path(environ.get("AIRFLOW_HOME") or "~/airflow").expanduser() / "azureml_workspace"


def datastores_mapping(datastores: Mapping[str, DatastoreConfig]) -> dict[str, Any]:
    """Datastores as a connection declares them, without what their own connections hold."""
    return {each.name: {"kind": each.kind, **_retention(each), **each.options} for each in datastores.values()}


def _retention(datastore: DatastoreConfig) -> dict[str, int]:
    return {} if datastore.retention_days is None else {"retention_days": datastore.retention_days}


def read_datastores(name: str, declared: Any) -> dict[str, DatastoreConfig]:
    """The datastores that a connection declares, as a mapping or as JSON text.

    :raises InvalidConfiguration, UnsupportedDatastore: naming the connection.
    """
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


def read_config_json(path: str | None) -> dict[str, str]:
    """What v1's ``config.json`` says, which is looked for from a path, or the working directory, upwards; nothing without one.

    :raises WorkspaceNotFound: when a path is given and there is none.
    """
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
        raise InvalidConfiguration(f"{file} must hold one JSON object with {', '.join(IDENTITY)}.")
    for key in content:
        if key not in IDENTITY:
            raise InvalidConfiguration(f"{file} has unknown key {key!r}. Allowed: {', '.join(IDENTITY)}.")
    for key in IDENTITY:
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


def names_workspace(config: Mapping[str, Any]) -> bool:
    """Whether a configuration names all of an Azure ML workspace."""
    return all(config.get(key) for key in IDENTITY)


def _texts(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of a configuration but ``datastores``, checked; empty where it says nothing."""
    texts = ("default_datastore", "catalog_connection_string", "mount_fallback", *IDENTITY, *_SIGN_IN)
    for key, value in config.items():
        if key != "datastores" and key not in texts:
            raise InvalidConfiguration(
                f"Connection {name!r} has unknown key {key!r}. Allowed: {', '.join(('datastores', *texts))}."
            )
        if key != "datastores" and not isinstance(value, str | None):
            raise InvalidConfiguration(f"Connection {name!r}: {key!r} must be text, found {type(value).__name__}.")
    found = {key: config.get(key) or "" for key in texts}
    for key, allowed in (("mount_fallback", _MOUNT_FALLBACKS), ("cloud", _CLOUD_NAMES)):
        found[key] = found[key] or allowed[0]
        if found[key] not in allowed:
            raise InvalidConfiguration(
                f"Connection {name!r}: {key!r} is {found[key]!r}. Allowed: {', '.join(allowed)}."
            )
    _check_principal(name, found)
    return found


def _check_principal(name: str, found: Mapping[str, str]) -> None:
    principal = {"login": "client_id", "password": "client_secret", "'tenant_id'": "tenant_id"}
    missing = [shown for shown, key in principal.items() if not found[key]]
    if missing and len(missing) < len(principal):
        has = [each for each in principal if each not in missing]
        raise InvalidConfiguration(
            f"Connection {name!r} has {' and '.join(has)}, and no {' and no '.join(missing)}. A service principal has its client id as "
            "login, its client secret as password, and its tenant as 'tenant_id'; without all three, the identity of the machine signs in."
        )
