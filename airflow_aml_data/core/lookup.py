"""Which registered version a name stands for: the catalog's, or a data asset that only Azure ML knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.errors import DatasetNotFound

if TYPE_CHECKING:
    from airflow_aml_data.core.azureml.data_assets import DataAsset, DataAssets
    from airflow_aml_data.core.catalog import DatasetVersion


def data_assets(workspace: ConnectedWorkspace) -> DataAssets | None:
    """The data assets of the connected Azure ML workspace; None without one."""
    if not workspace.config.is_connected:
        return None
    from airflow_aml_data.core.azureml.data_assets import DataAssets

    return DataAssets(workspace.azureml)


def look_up(workspace: ConnectedWorkspace, name: str, version: int | str | None) -> DatasetVersion | DataAsset:
    """A version of a name: what the catalog has; else, or as the latest one when it is newer, what Azure ML has.

    :param version: A number, ``"latest"`` or None for that.
    :raises DatasetNotFound: when neither has it.
    :raises InvalidDeclaration: for another kind of version, here or in Azure ML.
    """
    assets = data_assets(workspace)
    try:
        found = workspace.catalog.get_dataset(name, version)
    except DatasetNotFound as error:
        asset = None
        if assets is not None:
            number = assets.latest(name) if error.version == "latest" else int(error.version)
            asset = None if number is None else assets.find(name, number)
        if asset is None:
            where = workspace.azureml.workspace_name if assets else ""
            raise DatasetNotFound(name, error.version, error.known, azureml=where) from None
        return asset
    if assets is not None and version in (None, "latest"):
        newest = assets.find_name(name)
        if newest and not newest.is_archived and newest.latest.isdecimal() and int(newest.latest) > found.version:
            return assets.find(name, int(newest.latest)) or found
    return found


def dataset_names(workspace: ConnectedWorkspace) -> list[str]:
    """Every name that something is registered under, here or in Azure ML."""
    assets = data_assets(workspace)
    names = {each.name for each in workspace.catalog.list_datasets()}
    return sorted(names | set(assets.names() if assets else ()))
