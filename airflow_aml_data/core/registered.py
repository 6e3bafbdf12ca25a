"""Registered datasets as the catalog keeps them; data assets that only Azure ML knows, as if it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_aml_data.core.azureml.data_assets import DataAsset
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition
from airflow_aml_data.core.identity import definition_id
from airflow_aml_data.core.lookup import look_up
from airflow_aml_data.core.mltable import read_mltable
from airflow_aml_data.core.paths import asset_sources, declared_sources

if TYPE_CHECKING:
    from airflow_aml_data.core.catalog import DatasetVersion


def find_registered(workspace: ConnectedWorkspace, name: str, version: int | str | None) -> DatasetVersion:
    """A registered version.

    A data asset of type ``uri_folder`` is the files of its folder, a ``uri_file`` that file, an ``mltable`` its table.

    :raises DatasetNotFound: when neither the catalog nor Azure ML has it.
    """
    from airflow_aml_data.core.catalog import DatasetVersion  # SQLAlchemy: not before someone asks

    found = look_up(workspace, name, version)
    if not isinstance(found, DataAsset):
        return found
    definition = _definition(workspace, found).to_json()
    return DatasetVersion(
        name=found.name,
        version=found.version,
        definition=definition,
        description=found.description,
        tags=found.tags,
        dataset_id=definition_id({**definition, "registered": [found.name, found.version]}),
        created_at=found.created_at,
    )


def _definition(workspace: ConnectedWorkspace, asset: DataAsset) -> Definition:
    if asset.type == "mltable":
        return read_mltable(workspace, declared_sources(asset.uri)[0])
    return Definition(sources=asset_sources(workspace, asset))
