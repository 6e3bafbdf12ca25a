"""Registered datasets as data assets of Azure ML: the catalog has every one, Azure ML those that are one folder or one file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_aml_data.core.azureml.data_assets import AssetType, DataAsset, can_be_named
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, OutputSource, Source, StorePath, WebPath
from airflow_aml_data.core.listing import list_sources
from airflow_aml_data.core.lookup import data_assets
from airflow_aml_data.errors import DataChanged, FilesNotFound, InvalidDeclaration

if TYPE_CHECKING:
    from airflow_aml_data.core.catalog import DatasetVersion

log = logging.getLogger(__name__)

_PROPERTY = "airflow_aml_data."


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAsset:
    """How a dataset is told to Azure ML.

    :param least_version: Numbers below this one are taken there.
    :param is_archived: Whether its name is hidden there.
    """

    type: AssetType
    uri: str
    least_version: int
    is_archived: bool


def plan_asset(workspace: ConnectedWorkspace, name: str, definition: Definition) -> PlannedAsset | None:
    """Find out, before anything is registered, how a dataset is told to Azure ML.

    :returns: None without an Azure ML workspace, and for what is not one folder or file there: one line of the log says why.
    :raises InvalidDeclaration: when the name is that of another type of data there.
    """
    assets = data_assets(workspace)
    if assets is None:
        return None
    where = workspace.azureml.workspace_name
    try:
        if not can_be_named(name):
            raise _NotOne("its name is none that Azure ML takes")
        kind, uri = _as_one(workspace, definition)
    except _NotOne as reason:
        log.info("Dataset %r stays in the catalog, and is no data asset of %r: %s.", name, where, reason)
        return None
    known = assets.find_name(name)
    if known is None:
        return PlannedAsset(type=kind, uri=uri, least_version=1, is_archived=False)
    if known.type and known.type != kind:
        raise InvalidDeclaration(
            f"Dataset {name!r} is a {kind}, and all versions of data asset {name!r} of Azure ML workspace {where!r} are of type "
            f"{known.type!r}. Register it under another name."
        )
    return PlannedAsset(type=kind, uri=uri, least_version=known.next, is_archived=known.is_archived)


def publish_asset(workspace: ConnectedWorkspace, version: DatasetVersion, planned: PlannedAsset | None = None) -> None:
    """Tell Azure ML of a registered version: its data asset is made, or gets the description and tags of now.

    :param planned: What :func:`plan_asset` found out; None: it is found out now.
    :raises InvalidDeclaration: when Azure ML has other data under this name and version.
    """
    definition = Definition.from_json(version.definition)
    assets, planned = data_assets(workspace), planned or plan_asset(workspace, version.name, definition)
    if assets is None or planned is None:
        return
    if planned.is_archived:
        assets.archive(version.name, archived=False)
    asset = DataAsset(
        name=version.name,
        version=version.version,
        type=planned.type,
        uri=planned.uri,
        description=version.description,
        tags={key: str(value) for key, value in version.tags.items()},
        created_at=version.created_at,
    )
    assets.put(asset, _properties(version, definition))
    log.info("Version %s of %r is a data asset of Azure ML: %s.", asset.version, asset.name, asset.uri)


def withdraw_assets(workspace: ConnectedWorkspace, name: str) -> None:
    """Archive a name in Azure ML: jobs that have its versions go on."""
    if assets := data_assets(workspace):
        assets.archive(name)


def _properties(version: DatasetVersion, definition: Definition) -> dict[str, str]:
    """Where a version comes from, for an output of a step."""
    output = next(definition.outputs, None)
    if output is None:
        return {}
    found = {"manifest_digest": output.manifest_digest, "output_id": output.output_id}
    if version.producer is not None:
        found["step_run"] = version.producer.id
    return {f"{_PROPERTY}{key}": value for key, value in found.items()}


class _NotOne(Exception):
    """Why a dataset is not one folder or one file to Azure ML."""


def _as_one(workspace: ConnectedWorkspace, definition: Definition) -> tuple[AssetType, str]:
    if definition.made_of or definition.operations:
        raise _NotOne("it is a part of other data, or made of it")
    if len(definition.sources) != 1:
        raise _NotOne(f"it has {len(definition.sources)} paths")
    source = definition.sources[0]
    if isinstance(source, WebPath):
        return "uri_file", source.url
    is_file = _is_file(workspace, source)
    try:
        uri = workspace.azureml_uri(source.datastore, source.path)
    except InvalidDeclaration as error:
        raise _NotOne(str(error).rstrip(".")) from None
    return ("uri_file", uri) if is_file else ("uri_folder", f"{uri.rstrip('/')}/")


def _is_file(workspace: ConnectedWorkspace, source: Source) -> bool:
    """Whether a path is one file; else it is one folder."""
    if isinstance(source, StorePath):
        if source.is_file:
            return True
        first = next(iter(workspace.storage(source.datastore).list_files(source.path)), None)
        if first is None:
            raise _NotOne(f"there is no folder or file {source.path!r} on datastore {source.datastore!r}")
        return first.path == source.path
    if not isinstance(source, OutputSource) or source.path_glob or source.folder:
        raise _NotOne("it is a part of an output")
    try:
        files = list_sources(workspace, [source])
    except (DataChanged, FilesNotFound) as error:
        raise _NotOne(str(error).rstrip(".")) from None
    if not files.single_file and not files.whole_folder:
        raise _NotOne(f"the folder {source.path!r} holds other files too")
    return files.single_file
