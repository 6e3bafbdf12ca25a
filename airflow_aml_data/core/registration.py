"""Names for datasets: what every dataset can be asked about its registration, and how it gets one."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, OutputSource, WebPath
from airflow_aml_data.core.identity import check_dataset_name, check_tags
from airflow_aml_data.core.listing import list_sources
from airflow_aml_data.core.lookup import data_assets
from airflow_aml_data.core.publishing import plan_asset, publish_asset, withdraw_assets
from airflow_aml_data.errors import DatasetExists, DatasetNotFound, FilesNotFound, InvalidDeclaration

if TYPE_CHECKING:
    from airflow_aml_data.core.catalog import DatasetVersion
    from airflow_aml_data.core.datasets import RegisteredDataset
    from airflow_aml_data.core.workspace import Workspace

log = logging.getLogger(__name__)


class RegistrationCalls:
    """The registration of a dataset, as in the SDK v1.

    Each property looks the dataset up anew. A dataset that is not registered has none of them; neither has one that
    was made of a registered dataset, by ``take_sample`` for example.
    """

    __slots__ = ()

    @property
    def workspace(self) -> Workspace:
        """The workspace the data belongs to."""
        raise NotImplementedError

    def definition(self, workspace: ConnectedWorkspace, run_key: str | None = None) -> Definition:
        """Settle names, versions and seeds."""
        raise NotImplementedError

    def _look_up(self) -> DatasetVersion | None:
        """The registered version this is; None for a dataset that is not registered."""
        raise NotImplementedError

    def _as_registered(self, workspace: Workspace, version: DatasetVersion) -> RegisteredDataset:
        raise NotImplementedError

    @property
    def id(self) -> str | None:
        """The id of the registered version, for ``Dataset.get_by_id``; None for a dataset that is not registered."""
        found = self._look_up()
        return found.dataset_id if found else None

    @property
    def name(self) -> str | None:
        """The name it is registered under; None for a dataset that is not registered."""
        found = self._look_up()
        return found.name if found else None

    @property
    def version(self) -> int | None:
        """The number of the registered version; None for a dataset that is not registered."""
        found = self._look_up()
        return found.version if found else None

    @property
    def description(self) -> str | None:
        """The description of the registered version, ``""`` when it has none; None when it is not registered."""
        found = self._look_up()
        return found.description if found else None

    @property
    def tags(self) -> dict[str, str]:
        """A copy of the tags of the registered version; none for a dataset that is not registered."""
        found = self._look_up()
        return dict(found.tags) if found else {}

    def register(
        self,
        workspace: Workspace,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        create_new_version: bool = False,
    ) -> RegisteredDataset:
        """Give the dataset a name in the workspace, now. Data is not copied; files that do not exist yet are no error.

        :param create_new_version: True: a known name gets one more version, unless its latest one has the same
            definition and the same files (paths, sizes, etags). Then that version is what is returned, and a
            description and tags given here replace its own. v1 added no version either when only content changed.
        :raises DatasetExists: when the name is taken and ``create_new_version`` is False.
        :raises InvalidDeclaration: for an empty name, or a dataset whose data is in another workspace.
        :raises DataChanged: when it reads an output that is not committed.

        Source: v1, semantics section 11.
        """
        from airflow_aml_data.core.catalog import NewDatasetVersion

        check_dataset_name(name)
        own_tags = check_tags(tags)
        connected = self.workspace.connect()
        definition = replace(self.definition(connected), registered=None)
        _check_workspace(definition, self.workspace, workspace)
        new = NewDatasetVersion(
            name=name,
            definition=definition.to_json(),
            description=description or "",
            tags=own_tags,
            output_id=next((each.output_id for each in definition.outputs), None),
            content_digest=content_digest(connected, definition),
        )
        target = workspace.connect()
        if not create_new_version:
            _refuse_taken(target, name)
        planned = plan_asset(target, name, definition)
        made = target.catalog.register_dataset(
            new, create_new_version=create_new_version, least_version=planned.least_version if planned else 1
        )
        if planned:
            publish_asset(target, made, planned)
        log.info("The dataset is version %s of %r.", made.version, name)
        return self._as_registered(workspace, made)

    def update(self, description: str | None = None, tags: Mapping[str, str] | None = None) -> RegisteredDataset:
        """Replace the description or the tags of the registered version, now.

        :param description: None keeps it, ``""`` clears it.
        :param tags: None keeps them; otherwise they replace all tags, so ``{}`` clears them.
        :raises InvalidDeclaration: for a dataset that is not registered.

        Source: v1, semantics section 11.
        """
        found = self._registered("update")
        own_tags = None if tags is None else check_tags(tags)
        connected = self.workspace.connect()
        changed = connected.catalog.update_dataset(found.name, found.version, description=description, tags=own_tags)
        return self._told(connected, changed)

    def add_tags(self, tags: Mapping[str, str] | None = None) -> RegisteredDataset:
        """Add tags to the registered version, now.

        :raises InvalidDeclaration: for a key that has another value already, and then none is added; or for a dataset
            that is not registered.

        Source: v1, semantics section 11.
        """
        found = self._registered("add_tags")
        connected = self.workspace.connect()
        return self._told(connected, connected.catalog.add_dataset_tags(found.name, found.version, check_tags(tags)))

    def remove_tags(self, tags: Collection[str] | None = None) -> RegisteredDataset:
        """Remove tags from the registered version, now.

        :param tags: Their keys. One that the dataset does not have is no error.
        :raises InvalidDeclaration: for a dataset that is not registered.

        Source: v1, semantics section 11.
        """
        if isinstance(tags, str) or not isinstance(tags, Collection | None):
            raise InvalidDeclaration(f"remove_tags() wants a list of keys, found {tags!r}.")
        found = self._registered("remove_tags")
        connected = self.workspace.connect()
        return self._told(
            connected, connected.catalog.remove_dataset_tags(found.name, found.version, tuple(tags or ()))
        )

    def unregister_all_versions(self) -> None:
        """Take the name away from all its versions, now. Data stays; the name is free and starts at version 1 again.

        Single versions cannot be unregistered, as in v1.

        :raises InvalidDeclaration: for a dataset that is not registered.

        Source: v1, semantics section 11.
        """
        found = self._registered("unregister_all_versions")
        connected = self.workspace.connect()
        connected.catalog.unregister_all_versions(found.name)
        withdraw_assets(connected, found.name)

    def _told(self, workspace: ConnectedWorkspace, changed: DatasetVersion) -> RegisteredDataset:
        """The version, of which Azure ML has been told."""
        publish_asset(workspace, changed)
        return self._as_registered(self.workspace, changed)

    def _registered(self, call: str) -> DatasetVersion:
        found = self._look_up()
        if found is None:
            raise InvalidDeclaration(
                f"{call}() changes a registered dataset, and this one has not been registered: {self!r}. Call it on what "
                "register(workspace, name) or Dataset.get_by_name(workspace, name) returns."
            )
        connected = self.workspace.connect()
        if found.version not in {each.version for each in _catalog_versions(connected, found.name)}:
            raise InvalidDeclaration(
                f"{call}() changes what the catalog has, and version {found.version} of {found.name!r} is a data asset of Azure ML "
                f"workspace {connected.azureml.workspace_name!r} alone. Change it there, or register() it here under a name."
            )
        return found


def content_digest(workspace: ConnectedWorkspace, definition: Definition) -> str | None:
    """A digest of the files a dataset reads, as they stand now: path, size and etag of each, nothing of their content.

    Committed outputs count by the digest of their manifest, and are not looked at.

    :returns: None when some of the files do not exist, or their store cannot tell when they change.
    """
    digest = sha256()
    for each in definition.read_sources:
        if isinstance(each, OutputSource):
            digest.update(f"{each.output_id}\0{each.manifest_digest}\n".encode())
            continue
        try:
            groups = list_sources(workspace, [each]).groups
        except FilesNotFound:
            return None
        for source, placements in groups:
            for file, _ in placements:
                if not file.etag:
                    return None
                line = f"{source.name}\0{file.path}\0{file.size_bytes}\0{file.etag}\n"
                digest.update(line.encode(errors="surrogatepass"))
    return digest.hexdigest()


def _catalog_versions(workspace: ConnectedWorkspace, name: str) -> list[DatasetVersion]:
    try:
        return workspace.catalog.list_dataset_versions(name)
    except DatasetNotFound:
        return []


def _refuse_taken(workspace: ConnectedWorkspace, name: str) -> None:
    """:raises DatasetExists: when Azure ML has a data asset of that name."""
    assets = data_assets(workspace)
    known = assets.find_name(name) if assets else None
    if known and not known.is_archived:
        raise DatasetExists(name)


def _check_workspace(definition: Definition, home: Workspace, workspace: Workspace) -> None:
    if home.conn_id != workspace.conn_id and not all(isinstance(each, WebPath) for each in definition.read_sources):
        raise InvalidDeclaration(
            f"The dataset's data is in workspace {home.conn_id!r}, so it cannot be registered in {workspace.conn_id!r}: "
            f"its datastores are known only there. Register it in {home.conn_id!r}."
        )
