"""``Model``: files registered under a name, as v1's tutorials end. Here a model is a registered file dataset."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_aml_data.core.definition import Definition, StorePath
from airflow_aml_data.core.factory import Dataset
from airflow_aml_data.core.files import find_files
from airflow_aml_data.core.identity import check_dataset_name, check_relative_path
from airflow_aml_data.core.transfer import download
from airflow_aml_data.core.workspace import Workspace
from airflow_aml_data.errors import FilesNotFound, NotOffered

if TYPE_CHECKING:
    from airflow_aml_data.core.catalog import DatasetVersion

_FOLDER = "azureml-models"
"""Where models lie: on the default datastore, and below the working directory after ``get_model_path``. Source: v1."""


class Model:
    """A version of a registered model.

    ``Dataset.get_by_name(workspace, name, version)`` reads the same files: models and datasets share their names.

    :param name: Its name, or ``name:version``.
    :param version: A number; None: the latest.
    :param id: v1's other way to say it: ``name:version``.
    :raises DatasetNotFound: when there is none, at once as in v1.

    Source: v1, ``azureml.core.Model``.
    """

    def __init__(
        self,
        workspace: Workspace,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 - v1's word
        version: int | str | None = None,
    ) -> None:
        found, _, in_name = check_dataset_name(name or id or "").partition(":")
        self._describe(
            workspace, workspace.connect().catalog.get_dataset(found, (in_name or None) if version is None else version)
        )

    def _describe(self, workspace: Workspace, row: DatasetVersion) -> None:
        self.workspace = workspace
        self.name, self.version = row.name, row.version
        self.description, self.tags = row.description, dict(row.tags)
        self.created_time = row.created_at

    def __repr__(self) -> str:
        return f"Model(name={self.name!r}, version={self.version})"

    @property
    def id(self) -> str:
        """``name:version``."""
        return f"{self.name}:{self.version}"

    @staticmethod
    def register(
        workspace: Workspace,
        model_path: str | Path,
        model_name: str,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        **more: Any,
    ) -> Model:
        """Copy a local file or folder to the default datastore and register it as the next version of a model, now.

        :param properties: Become tags, too.
        :param more: What v1 knows about serving models (``model_framework``, ``datasets``, ``child_paths`` and so on):
            each becomes a tag.
        :raises FilesNotFound: when there is nothing at ``model_path``.
        """
        check_dataset_name(model_name)
        path = Path(model_path)
        files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        if not files:
            raise FilesNotFound(f"There is no file at {str(path)!r} to register as model {model_name!r}.")
        target = f"{_FOLDER}/{model_name}/{uuid.uuid4().hex}"
        datastore = workspace.get_default_datastore()
        datastore.upload_files(files, path.parent, target, show_progress=False)
        described = {
            **(properties or {}),
            **(tags or {}),
            **{key: each for key, each in more.items() if each is not None},
        }
        made = Dataset.File.from_files((datastore, f"{target}/{path.name}")).register(
            workspace,
            model_name,
            description=description,
            tags={key: str(each) for key, each in described.items()},
            create_new_version=True,
        )
        return Model(workspace, model_name, version=made.version)

    @staticmethod
    def list(workspace: Workspace, name: str | None = None, latest: bool = False, **more: Any) -> list[Model]:
        """The models that were registered as such, by name, each with its versions from the latest down.

        :param name: Only the model of that name.
        :param latest: Only the latest version of each.
        :raises NotOffered: for another of v1's filters.
        """
        if more:
            raise NotOffered(
                f"Model.list takes name and latest, not {', '.join(more)}. Filter what it returns by .tags."
            )
        catalog, found = workspace.connect().catalog, []
        for row in catalog.list_datasets():
            if name in (None, row.name) and _is_model(row.definition):
                for each in [row] if latest else reversed(catalog.list_dataset_versions(row.name)):
                    model = Model.__new__(Model)
                    model._describe(workspace, each)
                    found.append(model)
        return found

    @staticmethod
    def get_model_path(model_name: str, version: int | str | None = None, _workspace: Workspace | None = None) -> str:
        """The local path of a model's file or folder, copied below ``azureml-models/name/version``.

        :param version: None: the latest.
        """
        model = Model(_workspace or Workspace(), model_name, version=version)
        return model.download(Path(_FOLDER, check_relative_path(model.name), str(model.version)), exist_ok=True)

    def download(self, target_dir: str | Path = ".", exist_ok: bool = False, **more: Any) -> str:
        """Copy the model to a local folder.

        :param exist_ok: False: files that are there are an error, and nothing is written. True: they are replaced.
        :returns: The path of its file, or of its folder.
        :raises FilesExist: when ``exist_ok`` is False and a file is there.
        """
        data = Dataset.get_by_name(self.workspace, self.name, self.version)
        connected = self.workspace.connect()
        files = find_files(connected, definition := data.definition(connected))
        named = [Path(each.path).name for each in definition.sources[:1] if isinstance(each, StorePath)]
        name = named[0] if named else check_relative_path(self.name)
        folder = Path(target_dir) if files.single_file else Path(target_dir, name)
        copies = download(files, folder, overwrite=exist_ok)
        return copies[0] if files.single_file else str(folder.absolute())


def _is_model(definition: Mapping[str, Any]) -> bool:
    sources = Definition.from_json(definition).sources[:1]
    return any(isinstance(each, StorePath) and each.path.startswith(f"{_FOLDER}/") for each in sources)
