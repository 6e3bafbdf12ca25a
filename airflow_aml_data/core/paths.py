"""What a dataset can be made of, as its author writes it: paths on datastores, public addresses, and v2's ``azureml:`` forms.

Source: v1, semantics section 4; the forms of v2, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from airflow_aml_data.core.azureml.data_assets import DataAsset
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, OutputSource, Source, StorePath, WebPath
from airflow_aml_data.core.identity import check_relative_path
from airflow_aml_data.core.lookup import look_up
from airflow_aml_data.core.sampling import is_template
from airflow_aml_data.core.storage.azure.addresses import read_address
from airflow_aml_data.core.storage.web import check_url
from airflow_aml_data.core.workspace import DataPath, Datastore, Workspace
from airflow_aml_data.errors import InvalidDeclaration

_AZURE_STORAGE = re.compile(r"(wasb|abfs)s?://", re.IGNORECASE)
_GEN1 = re.compile(r"adl://", re.IGNORECASE)
_WEB = re.compile(r"https?://", re.IGNORECASE)
_SHORT = re.compile(r"azureml://datastores/([^/]+)/paths/(.*)", re.DOTALL)
_LONG = re.compile(
    r"azureml://subscriptions/([^/]+)/resourcegroups/([^/]+)(?:/providers/[^/]+)?/workspaces/([^/]+)/datastores/([^/]+)/paths/(.*)",
    re.DOTALL | re.IGNORECASE,
)
_ASSET = re.compile(r"azureml:(?!/)([^/:@]+)(?::([^/:@]+)|@(latest))")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspacePath:
    """v2's long address of a path, which also names the workspace; that name is checked when the path is used."""

    subscription_id: str
    resource_group: str
    workspace_name: str
    datastore: str
    path: str


@dataclass(frozen=True, slots=True)
class RegisteredPath:
    """v2's ``azureml:name:version``: the files of a registered dataset, looked up when they are used.

    :param version: A number, ``"latest"`` or a template.
    """

    name: str
    version: int | str


@dataclass(frozen=True, slots=True)
class AzurePath:
    """An address of Azure storage that only a datastore can read; which one is looked up when it is used."""

    address: str


DeclaredSource = DataPath | WebPath | WorkspacePath | RegisteredPath | AzurePath | OutputSource


def declared_sources(path: Any) -> tuple[DeclaredSource, ...]:
    """The ``path`` argument of a dataset.

    :param path: A ``DataPath``, a ``(Datastore, str)`` tuple, text that begins with ``http://``, ``https://``, ``wasbs://``,
        ``abfss://`` or ``azureml:``, or a list of them; addresses on the web and paths on datastores do not mix.
    :raises InvalidDeclaration: for anything else, with v1's words.
    """
    each_path = path if isinstance(path, list) else [path]
    sources = tuple(_declared_source(each) for each in each_path)
    if not sources:
        raise InvalidDeclaration(_wrong_path(path))
    if len({isinstance(each, WebPath) for each in sources}) > 1:
        raise InvalidDeclaration(_wrong_path(path, "Public addresses and paths on datastores do not mix. "))
    workspaces = {each.datastore.workspace.conn_id for each in sources if isinstance(each, DataPath)}
    if any(isinstance(each, WorkspacePath | RegisteredPath | AzurePath) for each in sources):
        workspaces.add(Workspace().conn_id)
    if len(workspaces) > 1:
        raise InvalidDeclaration(
            f"One dataset cannot span workspaces: its paths are in {', '.join(sorted(workspaces))}."
        )
    return sources


def settled_sources(
    workspace: ConnectedWorkspace, sources: Sequence[DeclaredSource], *, is_file: bool = False
) -> tuple[Source, ...]:
    """Sources with every name looked up.

    :param is_file: Paths name files for certain: nothing is listed.
    :raises DatasetNotFound, DatastoreNotFound: for a name the workspace does not know.
    :raises InvalidDeclaration: for a path in another workspace.
    """
    return tuple(found for each in sources for found in _settled(workspace, each, is_file))


def _declared_source(path: Any) -> DeclaredSource:
    match path:
        case DataPath():
            return path
        case (Datastore() as datastore, str(relative)):
            return DataPath(datastore, relative)
        case tuple():
            raise InvalidDeclaration(
                "Invalid tuple for path. Please make sure the tuple consists of a datastore and a path/SQL query, "
                f"found {path!r}."
            )
        case str() if _WEB.match(path):
            return WebPath(path if is_template(path) else check_url(path))
        case str() if path.startswith("azureml:"):
            return _v2_source(path)
        case str() if _AZURE_STORAGE.match(path):
            if not is_template(path):
                read_address(path)  # it can be
            return AzurePath(path)
        case str() if _GEN1.match(path):
            raise InvalidDeclaration(
                f"{path!r} is in Azure Data Lake Storage Gen1, which was retired on 29 February 2024. Move the data to Gen2, and "
                "give its address there: abfss://FILESYSTEM@ACCOUNT.dfs.core.windows.net/PATH."
            )
    raise InvalidDeclaration(_wrong_path(path))


def _v2_source(path: str) -> DeclaredSource:
    if found := _SHORT.fullmatch(path):
        return DataPath(Datastore(Workspace(), found[1]), unquote(found[2]))
    if found := _LONG.fullmatch(path):
        subscription, group, workspace, datastore, relative = found.groups()
        return WorkspacePath(
            subscription_id=subscription,
            resource_group=group,
            workspace_name=workspace,
            datastore=datastore,
            path=check_relative_path(unquote(relative)),
        )
    found = _ASSET.fullmatch(path)
    version = found and (found[2] or found[3])
    if not found or not version or not (version == "latest" or is_template(version) or version.isdecimal()):
        raise InvalidDeclaration(
            f"{path!r} is no address this release reads. Allowed: azureml://datastores/NAME/paths/PATH, the same after "
            "azureml://subscriptions/ID/resourcegroups/NAME/workspaces/NAME, azureml:DATASET:NUMBER and azureml:DATASET@latest."
        )
    return RegisteredPath(found[1], version)


def _settled(workspace: ConnectedWorkspace, source: DeclaredSource, is_file: bool) -> Iterator[Source]:
    match source:
        case DataPath():
            yield StorePath(workspace.datastore_name(source.datastore.declared_name), source.path, is_file)
        case WorkspacePath():
            _check_workspace(workspace, source)
            yield StorePath(workspace.datastore_name(source.datastore), source.path, is_file)
        case RegisteredPath():
            yield from _registered_sources(workspace, source)
        case WebPath(url):
            checked = check_url(url)
            yield _on_datastore(workspace, checked, is_file) or WebPath(checked)
        case AzurePath(address):
            found = _on_datastore(workspace, address, is_file)
            if found is None:
                raise _no_datastore(workspace, address)
            yield found
        case OutputSource():
            yield source


def _on_datastore(workspace: ConnectedWorkspace, address: str, is_file: bool) -> StorePath | None:
    """The path that an address names on the first datastore that has the place; None without such a datastore."""
    place = read_address(address)
    datastore = workspace.datastore_at(place.location) if place else None
    if place is None or datastore is None:
        return None
    if "//" in place.path or place.path.startswith("/"):
        raise InvalidDeclaration(
            f"{address!r} holds an empty name between two slashes, which no path on a datastore does. Leave one slash out, or "
            "rename the blob."
        )
    return StorePath(datastore, check_relative_path(place.path), is_file)


def _no_datastore(workspace: ConnectedWorkspace, address: str) -> InvalidDeclaration:
    places = workspace.datastore_places()
    listed = ", ".join(f"{name} ({place or 'not in Azure'})" for name, place in places.items())
    return InvalidDeclaration(
        f"{address!r} is an address of Azure storage, and none of the workspace's datastores has the place: {listed}. Declare one "
        f"under 'datastores' in connection {workspace.config.name!r}, such as "
        '{"mystore": {"kind": "azure_blob", "container_name": "CONTAINER", "conn_id": "AIRFLOW_CONNECTION"}}, or register one with '
        "Datastore.register_azure_blob_container()."
    )


def _check_workspace(workspace: ConnectedWorkspace, source: WorkspacePath) -> None:
    for key in ("subscription_id", "resource_group", "workspace_name"):
        here, there = getattr(workspace.config, key), getattr(source, key)
        if here and here.lower() != there.lower():
            raise InvalidDeclaration(
                f"The address of {source.path!r} names {key} {there!r}, and connection {workspace.config.name!r} is of {here!r}. "
                "Use a connection of that workspace, or declare the datastore in this one: azureml://datastores/NAME/paths/PATH."
            )


def asset_sources(workspace: ConnectedWorkspace, asset: DataAsset) -> tuple[Source, ...]:
    """Where the files of a data asset are that only Azure ML knows.

    :raises InvalidDeclaration: for one that is a table, or that no datastore reaches.
    """
    if asset.type == "mltable":
        raise _no_list_of_files(asset.name, asset.version)
    return settled_sources(workspace, declared_sources(asset.uri), is_file=asset.type == "uri_file")


def _registered_sources(workspace: ConnectedWorkspace, asset: RegisteredPath) -> tuple[Source, ...]:
    found = look_up(workspace, asset.name, asset.version)
    if isinstance(found, DataAsset):
        return asset_sources(workspace, found)
    known = Definition.from_json(found.definition)
    if known.is_tabular or known.made_of or known.operations:
        raise _no_list_of_files(asset.name, asset.version)
    return known.sources


def _no_list_of_files(name: str, version: int | str) -> InvalidDeclaration:
    return InvalidDeclaration(
        f"Dataset {name!r} version {version} is more than a list of files: a table, or files that were chosen. "
        "Take it as it is: Dataset.get_by_name(workspace, name, version)."
    )


def _wrong_path(path: Any, hint: str = "") -> str:
    return (
        "Invalid argument type for `path`. Give a DataPath, a (Datastore, str) tuple, a http(s), wasbs or abfss URL, v2's azureml: form, "
        f"or a non-empty list of them, found {path!r}. {hint}"
        "Local files are uploaded first: datastore.upload(src_dir, target_path)."
    )
