"""``Workspace``, ``Datastore`` and ``DataPath``: the v1 nouns for where data lives.

They are values: building one reads nothing. Their names are looked up on the worker, or when a call
that moves data asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_aml_data.core import datastores
from airflow_aml_data.core.connect import ConnectedWorkspace, connect
from airflow_aml_data.core.connections import DEFAULT_CONN_ID
from airflow_aml_data.core.definition import StorePath
from airflow_aml_data.core.globs import compile_glob
from airflow_aml_data.core.identity import check_relative_path
from airflow_aml_data.core.listing import DatasetFiles, list_sources
from airflow_aml_data.core.lookup import dataset_names
from airflow_aml_data.core.storage.base import Placement
from airflow_aml_data.core.transfer import copy, download, upload
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration

if TYPE_CHECKING:
    from airflow_aml_data.core.datasets import RegisteredDataset


@dataclass(frozen=True, slots=True)
class Workspace:
    """The workspace that an Airflow connection of type ``azureml`` describes.

    >>> ws = Workspace()
    >>> ws.datastores["training_data"]
    Datastore(Workspace('azureml_default'), 'training_data')

    :param conn_id: Id of the connection. The default one need not exist: then the workspace is embedded,
        a folder and an SQLite catalog under ``$AIRFLOW_HOME``.

    Source: v1, ``azureml.core.Workspace``; the article's prerequisites.
    """

    conn_id: str = DEFAULT_CONN_ID
    config_path: str | None = field(default=None, kw_only=True)
    searches: bool = field(default=False, kw_only=True)

    def __repr__(self) -> str:
        return f"Workspace({self.conn_id!r})"

    @classmethod
    def from_config(cls, path: str | None = None, *, conn_id: str = DEFAULT_CONN_ID) -> Workspace:
        """The workspace that a v1 ``config.json`` names, with datastores and credentials from the connection.

        The file is read when the workspace is used, not now. Searched, as in v1: ``path`` itself, or for a
        folder ``.azureml/``, ``aml_config/`` and the folder, then its parents.

        :param path: File or folder; None: the working directory, where the file may also be absent.
        """
        return cls(conn_id, config_path=path, searches=True)

    def connect(self) -> ConnectedWorkspace:
        """Read the configuration and open the workspace."""
        return connect(self.conn_id, self.config_path, self.searches)

    @property
    def name(self) -> str:
        """The Azure ML workspace's name, or the connection's id when it names none."""
        config = self.connect().config
        return config.workspace_name or config.name

    @property
    def subscription_id(self) -> str:
        return self.connect().config.subscription_id

    @property
    def resource_group(self) -> str:
        return self.connect().config.resource_group

    @property
    def datastores(self) -> Mapping[str, Datastore]:
        """Datastores by name. Taking one by its name reads nothing; listing them reads connection and catalog, and asks Azure ML."""
        return _ByName(lambda name: Datastore(self, name), lambda: sorted(self.connect().datastores))

    @property
    def datasets(self) -> Mapping[str, RegisteredDataset]:
        """The latest version of each registered dataset, by name. Taking one by its name reads nothing."""
        from airflow_aml_data.core.datasets import RegisteredDataset

        return _ByName(
            lambda name: RegisteredDataset(self, name),
            lambda: dataset_names(self.connect()),
        )

    def get_default_datastore(self) -> Datastore:
        """The datastore that is used where none is named."""
        return Datastore(self)

    def set_default_datastore(self, name: str) -> None:
        """Make a datastore, declared or registered, the default one, now; it wins over the connection's ``default_datastore``.

        :raises DatastoreNotFound: naming the known ones.
        """
        datastores.set_default(self.connect(), name)


@dataclass(frozen=True, slots=True, repr=False)
class Datastore:
    """A named place for data.

    :param workspace: Where the name is declared.
    :param declared_name: None: the workspace's default datastore.

    Source: v1, ``azureml.core.Datastore``.
    """

    workspace: Workspace
    declared_name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.workspace, Workspace):
            raise InvalidDeclaration(f"Datastore wants a Workspace first, found {self.workspace!r}.")
        if self.declared_name is not None and (not isinstance(self.declared_name, str) or not self.declared_name):
            raise InvalidDeclaration(
                f"The name of a datastore is text that is not empty, found {self.declared_name!r}."
            )

    def __repr__(self) -> str:
        return f"Datastore({self.workspace!r}, {self.declared_name!r})"

    @classmethod
    def get(cls, workspace: Workspace, datastore_name: str) -> Datastore:
        """The datastore of that name. The name is looked up when data is moved."""
        return cls(workspace, datastore_name)

    @classmethod
    def get_default(cls, workspace: Workspace) -> Datastore:
        """The workspace's default datastore."""
        return cls(workspace)

    @classmethod
    def register_azure_blob_container(
        cls,
        workspace: Workspace,
        datastore_name: str,
        container_name: str,
        account_name: str,
        sas_token: str | None = None,
        account_key: str | None = None,
        protocol: str | None = None,
        endpoint: str | None = None,
        overwrite: bool = False,
        create_if_not_exists: bool = False,
        skip_validation: bool = False,
        blob_cache_timeout: int | None = None,
        grant_workspace_access: bool = False,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        *,
        conn_id: str | None = None,
    ) -> Datastore:
        """Register a blob container under a name, now. The catalog keeps the name and no secret.

        :param protocol: None: ``https``.
        :param endpoint: None: ``core.windows.net``.
        :param overwrite: Change the datastore that has the name already; refused where that would put data out of reach.
        :param skip_validation: Do not look at the container first.
        :param conn_id: Airflow connection with the credentials; None: identity-based access.
        :raises InvalidDeclaration: for ``sas_token``, ``account_key`` or ``create_if_not_exists``; for a name that is taken.

        The parameters after ``skip_validation`` are v1's, and change nothing.
        """
        datastores.refuse_secrets("azure_blob", sas_token=sas_token, account_key=account_key)
        datastores.refuse_creation(create_if_not_exists, "container")
        datastores.tell_unused(blob_cache_timeout=blob_cache_timeout, grant_workspace_access=grant_workspace_access)
        options = {"container_name": container_name, **_account(account_name, protocol, endpoint, conn_id)}
        return cls._register(workspace, datastore_name, "azure_blob", options, overwrite, skip_validation)

    @classmethod
    def register_azure_file_share(
        cls,
        workspace: Workspace,
        datastore_name: str,
        file_share_name: str,
        account_name: str,
        sas_token: str | None = None,
        account_key: str | None = None,
        protocol: str | None = None,
        endpoint: str | None = None,
        overwrite: bool = False,
        create_if_not_exists: bool = False,
        skip_validation: bool = False,
        *,
        conn_id: str | None = None,
    ) -> Datastore:
        """Register a file share under a name, now; see :meth:`register_azure_blob_container`."""
        datastores.refuse_secrets("azure_file", sas_token=sas_token, account_key=account_key)
        datastores.refuse_creation(create_if_not_exists, "share")
        options = {"file_share_name": file_share_name, **_account(account_name, protocol, endpoint, conn_id)}
        return cls._register(workspace, datastore_name, "azure_file", options, overwrite, skip_validation)

    @classmethod
    def register_azure_data_lake_gen2(
        cls,
        workspace: Workspace,
        datastore_name: str,
        filesystem: str,
        account_name: str,
        tenant_id: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        resource_url: str | None = None,
        authority_url: str | None = None,
        protocol: str | None = None,
        endpoint: str | None = None,
        overwrite: bool = False,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        grant_workspace_access: bool = False,
        *,
        conn_id: str | None = None,
    ) -> Datastore:
        """Register a file system of ADLS Gen2 under a name, now; see :meth:`register_azure_blob_container`.

        :raises InvalidDeclaration: for parts of a service principal, which belong into the connection.
        """
        datastores.refuse_secrets(
            "azure_data_lake_gen2",
            tenant_id=tenant_id,
            client_id=client_id,
            client_secret=client_secret,
            resource_url=resource_url,
            authority_url=authority_url,
        )
        datastores.tell_unused(grant_workspace_access=grant_workspace_access)
        options = {"filesystem": filesystem, **_account(account_name, protocol, endpoint, conn_id)}
        return cls._register(workspace, datastore_name, "azure_data_lake_gen2", options, overwrite, False)

    @classmethod
    def _register(
        cls, workspace: Workspace, name: str, kind: str, options: dict[str, Any], overwrite: bool, skip: bool
    ) -> Datastore:
        connected = workspace.connect()
        datastores.register(connected, name, kind, options, overwrite=overwrite, skip_validation=skip)
        return cls(workspace, name)

    def unregister(self) -> None:
        """Forget the name of a registered datastore, now; its data stays.

        :raises InvalidDeclaration: for one that the workspace's connection declares.
        :raises DatastoreInUse: while it is the default, or outputs or registered datasets lie on it.
        """
        datastores.unregister(self.workspace.connect(), self.name)

    @property
    def name(self) -> str:
        """Its name; for the default datastore this reads the workspace's connection and catalog."""
        return self.declared_name or self.workspace.connect().datastore_name(None)

    def path(self, path: str | None = None) -> DataPath:
        """A path on this datastore."""
        return DataPath(self, path)

    def upload(
        self,
        src_dir: str | Path,
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
        *,
        pattern: str | None = None,
    ) -> DataPath:
        """Copy the files of a local folder to this datastore, now.

        :param target_path: Folder on the datastore; None: its root.
        :param overwrite: False: an existing file is an error, found before anything is written.
        :param pattern: Only files whose path below ``src_dir`` matches this glob; None: all.
        :returns: The path they lie at.
        :raises FilesExist: when ``overwrite`` is False and a file is there.
        """
        root = Path(src_dir)
        if not root.is_dir():
            raise InvalidDeclaration(f"upload() wants a folder, and {str(root)!r} is none. For files: upload_files().")
        found = sorted(root.rglob("*"))
        for each in found:
            if not each.is_file() and (each.is_symlink() or not each.is_dir()):
                raise InvalidDeclaration(
                    f"{str(each)!r} is a link to a folder or to nothing, or no file at all, and would be left out. Remove or replace it."
                )
        files = [str(each) for each in found if each.is_file()]
        if pattern is not None:
            glob = compile_glob(pattern)
            files = [each for each in files if glob.fullmatch(Path(each).relative_to(root).as_posix())]
            if not files:
                raise FilesNotFound(f"No file below {str(root)!r} matches {pattern!r}.")
        return self.upload_files(files, str(root), target_path, overwrite, show_progress)

    def upload_files(
        self,
        files: Sequence[str | Path],
        relative_root: str | Path | None = None,
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> DataPath:
        """Copy local files to this datastore, now.

        :param relative_root: What to take off the files' paths; None: their common folder.
        :returns: The folder they lie in.
        """
        folder = upload(
            self.workspace.connect().storage(self.declared_name),
            [Path(each) for each in files],
            None if relative_root is None else Path(relative_root),
            target_path,
            overwrite=overwrite,
            show_progress=show_progress,
        )
        return self.path(folder)

    def copy(self, source: DataPath, target_path: str | None = None, overwrite: bool = False) -> DataPath:
        """Copy files of any datastore of the workspace to this one, now; inside one storage account the service copies.

        :param source: A file, a folder or a glob; below the target its files have the paths that a download gives them.
        :param target_path: Folder on this datastore; None: its root.
        :param overwrite: False: an existing file is an error, found before anything is written.
        :returns: The folder they lie in.
        :raises FilesExist: when ``overwrite`` is False and a file is there.
        :raises FilesNotFound: when the source has no file.
        """
        if not isinstance(source, DataPath) or source.datastore.workspace.conn_id != self.workspace.conn_id:
            raise InvalidDeclaration(
                f"copy() wants a DataPath on a datastore of workspace {self.workspace.conn_id!r}, found {source!r}."
            )
        connected = self.workspace.connect()
        origin = StorePath(connected.datastore_name(source.datastore.declared_name), source.path)
        files = list_sources(connected, [origin]).placements
        target = connected.storage(self.declared_name)
        return self.path(copy(files, connected.storage(origin.datastore), target, target_path, overwrite=overwrite))

    def download(
        self,
        target_path: str | Path,
        prefix: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> int:
        """Copy files of this datastore to a local folder, now.

        :param prefix: A folder or a file on the datastore; None: everything. Files keep this path below ``target_path``.
        :returns: How many files were copied.
        :raises FilesExist: when ``overwrite`` is False and a file is there, before anything is written.
        """
        connected = self.workspace.connect()
        storage = connected.storage(self.declared_name)
        found = sorted(storage.list_files(check_relative_path(prefix)), key=lambda each: each.path)
        files = DatasetFiles.of(((storage, tuple(Placement(each, each.path) for each in found)),))
        return len(download(files, Path(target_path), overwrite=overwrite, show_progress=show_progress))


@dataclass(frozen=True, slots=True, repr=False)
class DataPath:
    """A file, a folder or a glob on a datastore.

    :param path_on_datastore: None: the root. A leading ``/`` is dropped; ``..`` is refused.

    Source: v1, ``azureml.data.datapath.DataPath``.
    """

    datastore: Datastore
    path_on_datastore: str | None = None
    name: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.datastore, Datastore):
            raise InvalidDeclaration("datastore parameter is required.")
        object.__setattr__(self, "path_on_datastore", check_relative_path(self.path_on_datastore))

    @property
    def path(self) -> str:
        """The path, relative to the datastore's root; ``""`` for the root."""
        return self.path_on_datastore or ""

    def __repr__(self) -> str:
        return f"DataPath({self.datastore!r}, {self.path!r})"


def _account(
    account_name: str, protocol: str | None, endpoint: str | None, conn_id: str | None
) -> dict[str, str | None]:
    return {"account_name": account_name, "protocol": protocol, "endpoint": endpoint, "conn_id": conn_id}


class _ByName(Mapping[str, Any]):
    """Values by a name that is not looked up before somebody lists them."""

    def __init__(self, make: Callable[[str], Any], names: Callable[[], list[str]]) -> None:
        self._make, self._names = make, names

    def __getitem__(self, name: str) -> Any:
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        return name in self._names()
