"""``Dataset``: where datasets are made, as in the SDK v1. Nothing is read."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_aml_data.core.datasets import FileDataset, MLTableDataset, RegisteredDataset, TabularDataset
from airflow_aml_data.core.definition import Definition, StorePath
from airflow_aml_data.core.formats import (
    DataType,
    DelimitedFormat,
    JsonLinesFormat,
    ParquetFormat,
    PromoteHeadersBehavior,
    TableFormat,
)
from airflow_aml_data.core.globs import is_glob
from airflow_aml_data.core.identity import check_dataset_name
from airflow_aml_data.core.partition import as_partition_format
from airflow_aml_data.core.paths import declared_sources
from airflow_aml_data.core.protocol import RunFile
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
        include_path: bool = False,
        infer_column_types: bool = True,
        set_column_types: Mapping[str, DataType] | None = None,
        separator: str = ",",
        header: bool | str | PromoteHeadersBehavior = True,
        partition_format: str | None = None,
        support_multi_line: bool = False,
        empty_as_string: bool = False,
        encoding: str = "utf8",
        *,
        type_conflict: Literal["widen", "raise"] = "widen",
    ) -> TabularDataset:
        """Rows of delimited text files.

        :param path: A ``DataPath``, a ``(Datastore, str)`` tuple, a public http(s) URL, v2's ``azureml:`` forms, or a list of
            them; folders and globs are fine.
        :param validate: v1's; nothing is read here whatever it says, an unreadable file shows when it is read.
        :param include_path: A first column ``Path`` says which file a row is from.
        :param infer_column_types: True: a column has the type that loses nothing of any of its values: bool, int64, float64,
            timestamp or text. False: every column is text.
        :param set_column_types: Column to :class:`.DataType`, for columns whose type is known better.
        :param separator: One character.
        :param header: True: the first line of every file names the columns. False: ``Column1``, ``Column2``... Or one of
            v1's four modes, as text or :class:`.PromoteHeadersBehavior`.
        :param partition_format: Columns from the files' paths, which come first; see :class:`.PartitionFormat`.
        :param support_multi_line: A quoted field may hold line breaks.
        :param empty_as_string: An empty field is ``""`` instead of null.
        :param encoding: One of ``utf8 iso88591 latin1 ascii utf16 utf32 utf8bom windows1252``.
        :param type_conflict: What becomes of a column with a value that its first 200 rows do not let expect: ``"widen"``: a
            type that all its values fit; ``"raise"``: an error with file, line and column. v1 made such values null.
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
            set_column_types=set_column_types,
            type_conflict=type_conflict,
        )
        return _table(path, form, include_path, partition_format)

    @staticmethod
    def from_parquet_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        set_column_types: Mapping[str, DataType] | None = None,
        partition_format: str | None = None,
    ) -> TabularDataset:
        """Rows of Parquet files; types are the files', which are the same in all of them.

        :param path: As in :meth:`from_delimited_files`, like the other parameters.
        """
        form = ParquetFormat(set_column_types=set_column_types)
        return _table(path, form, include_path, partition_format)

    @staticmethod
    def from_json_lines_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        set_column_types: Mapping[str, DataType] | None = None,
        partition_format: str | None = None,
        invalid_lines: Literal["error", "drop"] = "error",
        encoding: str = "utf8",
    ) -> TabularDataset:
        """Rows of text files with one JSON object in each line; a key that a line has not is null.

        Dates stay text, and so do numbers that no 64-bit integer or float holds; lists and objects are their JSON text.

        :param path: As in :meth:`from_delimited_files`, like the other parameters.
        :param invalid_lines: ``"error"``, or ``"drop"``: a line that is no JSON object is left out, and a warning counts them.

        Source: v1, semantics section 5.
        """
        form = JsonLinesFormat(invalid_lines=invalid_lines, encoding=encoding, set_column_types=set_column_types)
        return _table(path, form, include_path, partition_format)

    @staticmethod
    def from_mltable(path: Any) -> MLTableDataset:
        """The table that an ``MLTable`` file of the SDK v2 describes; the file is read when the data is.

        :param path: The folder that holds it: a ``DataPath``, a ``(Datastore, str)`` tuple, a public http(s) URL or v2's
            ``azureml:`` forms. Paths in the file may be relative to that folder.
        :raises InvalidDeclaration: for something else.

        Source: the SDK v2, ``mltable.load``.
        """
        sources = declared_sources(path)
        if len(sources) > 1:
            raise InvalidDeclaration(f"from_mltable wants one folder, found {len(sources)} paths: {path!r}.")
        return MLTableDataset(sources[0])

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


def _table(path: Any, form: TableFormat, include_path: bool, partition_format: str | None) -> TabularDataset:
    partitions = as_partition_format(partition_format)
    return TabularDataset(declared_sources(path), form, include_path=include_path, partition_format=partitions)


class FileDatasetFactory:
    """Factory of file datasets: ``Dataset.File``."""

    @staticmethod
    def from_files(
        path: Any, validate: bool = True, partition_format: str | None = None, is_file: bool = False
    ) -> FileDataset:
        """Files named by paths, folders and globs.

        :param path: A ``DataPath``, a ``(Datastore, str)`` tuple, a public http(s) URL, v2's ``azureml:`` forms, or a list of
            them.
        :param validate: v1's; nothing is read here.
        :param partition_format: What the files' paths say: ``get_partition_key_values()``; see :class:`.PartitionFormat`.
        :param is_file: Every path is a file, and none is looked for: one that is missing shows when it is read.
        :raises InvalidDeclaration: for anything else.

        Source: the article, "Use Dataset objects for preexisting data"; globs: semantics section 4.
        """
        return FileDataset(
            declared_sources(path), partition_format=as_partition_format(partition_format), is_file=is_file
        )

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


class DatasetScenario:
    """What a model used a dataset for: ``Dataset.Scenario``, in ``Model.register(datasets=[(scenario, dataset)])``."""

    TRAINING = "training"
    VALIDATION = "validation"
    INFERENCE = "inference"


class Dataset:
    """Where datasets are made.

    >>> from airflow_aml_data import Datastore, DataPath, Dataset, Workspace
    >>> datastore = Datastore.get(Workspace(), "training_data")
    >>> iris = Dataset.Tabular.from_delimited_files(DataPath(datastore, "iris.csv"))
    >>> train, test = iris.take_sample(0.5, seed=42).random_split(percentage=0.8, seed=42)
    """

    Tabular = TabularDatasetFactory
    File = FileDatasetFactory
    Scenario = DatasetScenario

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
    def get_by_id(
        workspace: Workspace,
        id: str,  # noqa: A002  v1's name
    ) -> RegisteredDataset | FileDataset | TabularDataset:
        """A registered version by its ``id``, looked up when it is used; in a script also an input of its step.

        :param id: Of a registered version, or a template; or what the script got as the argument of a direct input.
        :raises InvalidDeclaration: for something else than text.
        :raises DatasetIdNotFound: on use, when no registered version has the id.

        Source: v1, ``azureml.core.Dataset.get_by_id``.
        """
        if not isinstance(id, str) or not id:
            raise InvalidDeclaration(f"The id of a registered dataset is text that is not empty, found {id!r}.")
        step = RunFile.current()
        for each in step.inputs.values() if step else ():
            if each.dataset["id"] == id:
                return from_definition(workspace, each.dataset)
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
            partition_format=as_partition_format(known.partition_format),
            timestamp_columns=(known.timestamp, known.partition_timestamp),
            in_workspace=workspace,
        )
    table = _dataset(workspace, known.made_of.table) if known.made_of else None
    return FileDataset(
        sources,
        operations,
        as_partition_format(known.partition_format),
        made_of=table if isinstance(table, TabularDataset) else None,
        target=known.made_of.target if known.made_of else None,
        in_workspace=workspace,
        is_file=any(isinstance(each, StorePath) and each.is_file for each in known.sources),
    )


def _folder(target: Any) -> DataPath:
    sources = (target.path(),) if isinstance(target, Datastore) else declared_sources(target)
    where = sources[0]
    if len(sources) > 1 or not isinstance(where, DataPath):
        raise InvalidDeclaration(f"target is one folder on a datastore, found {target!r}.")
    if is_glob(where.path):
        raise InvalidDeclaration(f"target is a folder to write to, and {where.path!r} holds a wildcard.")
    return where
