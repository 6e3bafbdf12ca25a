"""``Dataset``: where datasets are made, as in the SDK v1. Nothing is read."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_aml_data.core.datasets import FileDataset, RegisteredDataset, TabularDataset
from airflow_aml_data.core.definition import Definition, StorePath
from airflow_aml_data.core.formats import DelimitedFormat, ParquetFormat
from airflow_aml_data.core.globs import is_glob
from airflow_aml_data.core.identity import check_dataset_name
from airflow_aml_data.core.sampling import Sampling, is_template
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.core.workspace import DataPath, Datastore, Workspace
from airflow_aml_data.errors import InvalidDeclaration

if TYPE_CHECKING:
    import pandas as pd


class TabularDatasetFactory:
    """Factory of tabular datasets: ``Dataset.Tabular``."""

    @staticmethod
    def from_delimited_files(
        path: Any,
        validate: bool = True,
        infer_column_types: bool = True,
        separator: str = ",",
        header: bool = True,
        support_multi_line: bool = False,
        empty_as_string: bool = False,
        encoding: str = "utf8",
    ) -> TabularDataset:
        """Rows of delimited text files.

        :param path: A ``DataPath``, a ``(Datastore, str)`` tuple, or a list of them; folders and globs are fine.
        :param validate: v1's; nothing is read here whatever it says, an unreadable file shows when it is read.
        :param infer_column_types: False: every column is text.
        :param header: True: the first line of every file names the columns. False: ``Column1``, ``Column2``...
        :param support_multi_line: A quoted field may hold line breaks.
        :param empty_as_string: An empty field is ``""`` instead of null.
        :param encoding: One of ``utf8 iso88591 latin1 ascii utf16 utf32 utf8bom windows1252``.
        :raises InvalidDeclaration: for a path or an option that is none of these.

        Source: the article, "Use Dataset objects for preexisting data"; semantics section 5.
        """
        form = DelimitedFormat(
            separator=separator,
            header=header,
            encoding=encoding,
            support_multi_line=support_multi_line,
            empty_as_string=empty_as_string,
            infer_column_types=infer_column_types,
        )
        return TabularDataset(_data_paths(path), form)

    @staticmethod
    def from_parquet_files(path: Any, validate: bool = True) -> TabularDataset:
        """Rows of Parquet files; types are the files'.

        :param path: As in :meth:`from_delimited_files`.
        """
        return TabularDataset(_data_paths(path), ParquetFormat())

    @staticmethod
    def register_pandas_dataframe(
        dataframe: pd.DataFrame,
        target: Any,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        show_progress: bool = True,
        row_group_size: int | None = None,
        make_target_path_unique: bool = True,
    ) -> RegisteredDataset:
        """Store a DataFrame as a Parquet file and register it as the next version of a name, now.

        :param dataframe: Its index is not stored.
        :param target: A ``Datastore``, a ``DataPath`` or a ``(Datastore, str)`` tuple: the folder for the file.
        :param row_group_size: Rows of a row group; None: the writer's choice.
        :param make_target_path_unique: Put the file in a new folder below the target's.
        :raises FilesExist: without ``make_target_path_unique``, when the folder holds another such file.

        Source: v1, ``TabularDatasetFactory.register_pandas_dataframe``.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        where = _folder(target)
        folder = f"{where.path}/{uuid.uuid4()}".lstrip("/") if make_target_path_unique else where.path
        check_dataset_name(name)
        try:
            table = pa.Table.from_pandas(dataframe, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError, AttributeError) as error:
            raise InvalidDeclaration(f"The DataFrame cannot be stored as Parquet: {error}.") from error
        with tempfile.TemporaryDirectory(prefix="aml_data_") as scratch:
            file = Path(scratch, "part-00000.parquet")
            pq.write_table(table, file, row_group_size=row_group_size)
            stored = where.datastore.upload_files([file], scratch, folder, show_progress=show_progress)
        dataset = TabularDatasetFactory.from_parquet_files(stored)
        return dataset.register(where.datastore.workspace, name, description, tags, create_new_version=True)


class FileDatasetFactory:
    """Factory of file datasets: ``Dataset.File``."""

    @staticmethod
    def from_files(path: Any, validate: bool = True) -> FileDataset:
        """Files named by paths, folders and globs.

        :param path: A ``DataPath``, a ``(Datastore, str)`` tuple, or a list of them.
        :raises InvalidDeclaration: for anything else.

        Source: the article, "Use Dataset objects for preexisting data"; globs: semantics section 4.
        """
        return FileDataset(_data_paths(path))

    @staticmethod
    def upload_directory(
        src_dir: str | Path,
        target: Any,
        pattern: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> FileDataset:
        """Copy a local folder to a datastore, now, and describe it as a dataset.

        :param target: A ``Datastore``, a ``DataPath`` or a ``(Datastore, str)`` tuple: the folder for the files.
        :param pattern: Only files whose path below ``src_dir`` matches this glob, such as ``**/*.csv``; None: all.
        :param overwrite: False: an existing file with other content is an error, found before anything is written (v1
            kept the old one in silence). True: it is replaced.
        :raises FilesExist: when ``overwrite`` is False and another file is there.
        :raises FilesNotFound: when there is nothing to upload.

        Source: v1, ``FileDatasetFactory.upload_directory``.
        """
        where = _folder(target)
        where.datastore.upload(src_dir, where.path, overwrite, show_progress, pattern=pattern)
        return FileDataset((where,))


class Dataset:
    """Where datasets are made.

    >>> from airflow_aml_data import Datastore, DataPath, Dataset, Workspace
    >>> datastore = Datastore.get(Workspace(), "training_data")
    >>> iris = Dataset.Tabular.from_delimited_files(DataPath(datastore, "iris.csv"))
    >>> train, test = iris.take_sample(0.5, seed=42).random_split(percentage=0.8, seed=42)
    """

    Tabular = TabularDatasetFactory
    File = FileDatasetFactory

    @staticmethod
    def get_by_name(workspace: Workspace, name: str, version: int | str | None = "latest") -> RegisteredDataset:
        """A registered dataset. Name and version are looked up when it is used; a step pins the version it found.

        :param version: A number, ``"latest"`` or a template.
        """
        if not isinstance(name, str) or not name:
            raise InvalidDeclaration(f"The name of a registered dataset is text that is not empty, found {name!r}.")
        version = "latest" if version is None else version
        if version != "latest" and not is_template(version) and not str(version).isdecimal():
            raise InvalidDeclaration(f'Invalid value {version} for version. Version value must be number or "latest".')
        return RegisteredDataset(workspace, name, version)

    @staticmethod
    def get_by_id(workspace: Workspace, id: str) -> RegisteredDataset:  # noqa: A002  v1's name
        """A registered version by its ``id``. It is looked up when it is used.

        :param id: Of a registered version, or a template.
        :raises InvalidDeclaration: for something else than text.
        :raises DatasetIdNotFound: on use, when no registered version has the id.

        Source: v1, ``azureml.core.Dataset.get_by_id``.
        """
        if not isinstance(id, str) or not id:
            raise InvalidDeclaration(f"The id of a registered dataset is text that is not empty, found {id!r}.")
        return RegisteredDataset(workspace, None, declared_id=id)

    @staticmethod
    def get_all(workspace: Workspace) -> Mapping[str, RegisteredDataset]:
        """The latest version of each registered dataset, by name. Taking one by its name reads nothing.

        Source: v1, ``azureml.core.Dataset.get_all``.
        """
        return workspace.datasets


def from_definition(workspace: Workspace, content: Mapping[str, Any]) -> FileDataset | TabularDataset:
    """The dataset that a definition's JSON describes; how a script opens its direct inputs."""
    return _dataset(workspace, Definition.from_json(content))


def _dataset(workspace: Workspace, known: Definition) -> FileDataset | TabularDataset:
    sources = tuple(
        DataPath(Datastore(workspace, each.datastore), each.path) if isinstance(each, StorePath) else each
        for each in known.sources
    )
    operations = tuple(
        Sampling(probability=each.probability, seed=each.seed, complement=each.complement)
        if isinstance(each, Selection)
        else each
        for each in known.operations
    )
    if known.format is not None:
        return TabularDataset(
            sources,
            known.format,
            operations,
            include_path=known.include_path,
            partition_format=known.partition_format,
            timestamp_columns=(known.timestamp, known.partition_timestamp),
            in_workspace=workspace,
        )
    table = _dataset(workspace, known.made_of.table) if known.made_of else None
    return FileDataset(
        sources,
        operations,
        known.partition_format,
        made_of=table if isinstance(table, TabularDataset) else None,
        target=known.made_of.target if known.made_of else None,
        in_workspace=workspace,
    )


def _data_paths(path: Any) -> tuple[DataPath, ...]:
    each_path = path if isinstance(path, list) else [path]
    if not each_path:
        raise InvalidDeclaration(_wrong_path(path))
    paths = tuple(_data_path(each) for each in each_path)
    workspaces = {each.datastore.workspace.conn_id for each in paths}
    if len(workspaces) > 1:
        raise InvalidDeclaration(
            f"One dataset cannot span workspaces: its paths are in {', '.join(sorted(workspaces))}."
        )
    return paths


def _data_path(path: Any) -> DataPath:
    if isinstance(path, DataPath):
        return path
    if isinstance(path, tuple):
        if len(path) != 2 or not isinstance(path[0], Datastore) or not isinstance(path[1], str):
            raise InvalidDeclaration(
                "Invalid tuple for path. Please make sure the tuple consists of a datastore and a path/SQL query, "
                f"found {path!r}."
            )
        return DataPath(path[0], path[1])
    raise InvalidDeclaration(_wrong_path(path))


def _folder(target: Any) -> DataPath:
    where = target.path() if isinstance(target, Datastore) else _data_path(target)
    if is_glob(where.path):
        raise InvalidDeclaration(f"target is a folder to write to, and {where.path!r} holds a wildcard.")
    return where


def _wrong_path(path: Any) -> str:
    return (
        f"Invalid argument type for `path`. Give a DataPath, a (Datastore, str) tuple, or a non-empty list of them, found {path!r}. "
        "Local files are uploaded first: datastore.upload(src_dir, target_path)."
    )
