"""Data assets of an Azure ML workspace: what they say, and how one is made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow_aml_data.errors import AzureMlRefused, InvalidDeclaration

if TYPE_CHECKING:
    from airflow_aml_data.core.azureml.control_plane import ControlPlane

AssetType = Literal["uri_folder", "uri_file", "mltable"]

_VERSIONS = "2023-04-01"
"""API version of data assets."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataAsset:
    """A version of a data asset.

    :param uri: Where the data is: ``azureml://datastores/...``, or another address of Azure storage or the web.
    :param created_at: When Azure ML got it; now for one that is to be made.
    """

    name: str
    version: int
    type: AssetType
    uri: str
    description: str
    tags: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetName:
    """A name in use.

    :param latest: The version that was made last; need not be a number.
    :param next: The least number above all that were given.
    :param type: Of all its versions.
    """

    latest: str
    next: int
    type: str
    is_archived: bool


def can_be_named(name: str) -> bool:
    """Whether Azure ML takes a name; ours may hold anything."""
    return bool(_NAME.fullmatch(name))


class DataAssets:
    """The data assets of a workspace.

    :param workspace: Asked anew at each call.
    """

    def __init__(self, workspace: ControlPlane) -> None:
        self._workspace = workspace

    def names(self) -> Iterator[str]:
        """The names of all that are not archived."""
        return (str(each["name"]) for each in self._workspace.pages("/data", _VERSIONS, listViewType="ActiveOnly"))

    def find_name(self, name: str) -> AssetName | None:
        """What is known of a name; None when it is not in use."""
        found = self._workspace.find(f"/data/{name}", _VERSIONS) if can_be_named(name) else None
        if found is None:
            return None
        said = found["properties"]
        following = str(said.get("nextVersion") or "1")
        return AssetName(
            latest=str(said.get("latestVersion") or ""),
            next=int(following) if following.isdecimal() else 1,
            type=str(said.get("dataType") or ""),
            is_archived=bool(said.get("isArchived")),
        )

    def find(self, name: str, version: int) -> DataAsset | None:
        """A version; None when there is none. One that is archived is found, as jobs find it."""
        found = self._workspace.find(f"/data/{name}/versions/{version}", _VERSIONS) if can_be_named(name) else None
        return None if found is None else _read(name, version, found)

    def latest(self, name: str) -> int | None:
        """The number of the version that was made last; None when the name is not in use, or archived.

        :raises InvalidDeclaration: when that version is no number, with those that there are.
        """
        known = self.find_name(name)
        if known is None or known.is_archived or not known.latest:
            return None
        if not known.latest.isdecimal():
            versions = ", ".join(
                str(each["name"]) for each in self._workspace.pages(f"/data/{name}/versions", _VERSIONS)
            )
            raise InvalidDeclaration(
                f"The latest version of data asset {name!r} in Azure ML workspace {self._workspace.workspace_name!r} is {known.latest!r}, "
                f"and versions of datasets are whole numbers. There are: {versions}. Name one that is a number, or register the data "
                "under the next number."
            )
        return int(known.latest)

    def put(self, asset: DataAsset, properties: Mapping[str, str]) -> None:
        """Create a version, or replace its description and tags.

        :raises InvalidDeclaration: when Azure ML has other data under this name and version.
        """
        body = {
            "dataType": asset.type,
            "dataUri": asset.uri,
            "description": asset.description,
            "tags": dict(asset.tags),
            "properties": dict(properties),
            "isAnonymous": False,
            "isArchived": False,
        }
        try:
            self._workspace.put(f"/data/{asset.name}/versions/{asset.version}", _VERSIONS, {"properties": body})
        except AzureMlRefused as error:
            if error.status not in (400, 409):
                raise
            raise InvalidDeclaration(
                f"Version {asset.version} of dataset {asset.name!r} cannot be a data asset of Azure ML workspace "
                f"{self._workspace.workspace_name!r}: {asset.uri!r} was refused, most likely because another path has that version there. "
                f"The catalog has it. Register the data under another name, or as a new version. {error}"
            ) from None

    def archive(self, name: str, archived: bool = True) -> None:
        """Hide a name with its versions, or show it again; without one, nothing is done."""
        found = self._workspace.find(f"/data/{name}", _VERSIONS) if can_be_named(name) else None
        if found is not None and bool(found["properties"].get("isArchived")) != archived:
            kept = {key: found["properties"].get(key) for key in ("dataType", "description", "tags", "properties")}
            body = {key: value for key, value in kept.items() if value is not None} | {"isArchived": archived}
            self._workspace.put(f"/data/{name}", _VERSIONS, {"properties": body})


def _read(name: str, version: int, found: Mapping[str, Any]) -> DataAsset:
    said = found["properties"]
    made = (found.get("systemData") or {}).get("createdAt")
    return DataAsset(
        name=name,
        version=version,
        type=said["dataType"],
        uri=said["dataUri"],
        description=said.get("description") or "",
        tags=said.get("tags") or {},
        created_at=datetime.fromisoformat(made) if made else datetime.now(UTC),
    )
