"""``Dataset``: lazy, immutable descriptions of data, with the calls of the SDK v1.

Every call returns a new object and reads nothing, until data is asked for (``to_pandas_dataframe``,
``to_path``, ``download``) or a step runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, OutputSource, StorePath, find_files, local_files
from airflow_aml_data.core.formats import DelimitedFormat, ParquetFormat
from airflow_aml_data.core.identity import check_dataset_name, check_name
from airflow_aml_data.core.sampling import Sampling, is_template
from airflow_aml_data.core.workspace import DataPath, Datastore, Workspace
from airflow_aml_data.errors import InvalidDeclaration

if TYPE_CHECKING:
    import pandas as pd


_D = TypeVar("_D", bound="AbstractDataset")


class AbstractDataset:
    """What file, tabular and registered datasets share."""

    __slots__ = ()
    samplings: tuple[Sampling, ...]

    @property
    def workspace(self) -> Workspace:
        """The workspace the data belongs to."""
        raise NotImplementedError

    def definition(self, workspace: ConnectedWorkspace, run_key: str | None = None) -> Definition:
        """Settle names, versions and seeds."""
        raise NotImplementedError

    def take_sample(self: _D, probability: float | str, seed: int | str | None = None) -> _D:
        """A random part: each record is kept with this probability, in its order.

        Records are rows of a tabular dataset, files of a file dataset. The same seed gives the same records,
        in every process; without a seed it is drawn once, here, or once for each run of a DAG.

        :param probability: 0.0 to 1.0, or a template.
        :raises InvalidDeclaration: outside that range.

        Source: the article, "Split your data"; semantics section 7.
        """
        return self._with(Sampling(probability=probability, seed=seed))

    def random_split(self: _D, percentage: float | str, seed: int | str | None = None) -> tuple[_D, _D]:
        """Two datasets that together hold every record once: about ``percentage`` of them, and the rest.

        :param percentage: Share of the first part, 0.0 to 1.0, or a template.

        Source: the article, "Split your data"; semantics section 7.
        """
        first = Sampling(probability=percentage, seed=seed)
        return self._with(first), self._with(replace(first, complement=True))

    def as_named_input(self, name: str) -> DatasetConsumptionConfig:
        """The dataset as an input of a step, under a name.

        :param name: Letters, digits and ``_``, not starting with a digit.

        Source: the article, "Pass datasets to your script".
        """
        return DatasetConsumptionConfig(check_name(name, "input"), self)

    def register(
        self,
        workspace: Workspace,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        create_new_version: bool = False,
    ) -> RegisteredDataset:
        """Give the dataset a name in the workspace, now. Data is not copied.

        :raises DatasetExists: when the name is taken and ``create_new_version`` is False.
        """
        from airflow_aml_data.core.catalog import NewDatasetVersion

        connected = workspace.connect()
        made = connected.catalog.register_dataset(
            NewDatasetVersion(
                name=check_dataset_name(name),
                definition=self.definition(connected).to_json(),
                description=description or "",
                tags=dict(tags or {}),
            ),
            create_new_version=create_new_version,
        )
        return RegisteredDataset(workspace, name, made.version)

    def _with(self: _D, sampling: Sampling) -> _D:
        return replace(self, samplings=(*self.samplings, sampling))  # type: ignore[type-var]


class _FileCalls(AbstractDataset):
    """What can be asked of data as files."""

    __slots__ = ()

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """An unnamed input whose files are readable below a local path."""
        return DatasetConsumptionConfig(None, self).as_mount(path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """An unnamed input whose files are copied below a local path."""
        return DatasetConsumptionConfig(None, self).as_download(path_on_compute)

    def to_path(self) -> list[str]:
        """The paths of the files inside the dataset, each with a leading ``/``.

        :raises FilesNotFound: for a path or glob without a match.
        """
        connected = self.workspace.connect()
        return [f"/{each.target}" for each in find_files(connected, self.definition(connected)).placements]

    def download(self, target_path: str | Path | None = None, overwrite: bool = False) -> list[str]:
        """Copy the files to a local folder, now.

        :param target_path: None: a new temporary folder.
        :returns: The absolute paths of the copies.
        :raises FilesExist: when ``overwrite`` is False and a file is there, before anything is written.
        """
        from airflow_aml_data.core.transfer import download

        connected = self.workspace.connect()
        folder = Path(target_path or tempfile.mkdtemp(prefix="aml_data_")).absolute()
        return download(connected, find_files(connected, self.definition(connected)), folder, overwrite=overwrite)


class _TableCalls(AbstractDataset):
    """What can be asked of data as a table."""

    __slots__ = ()

    def to_pandas_dataframe(self) -> pd.DataFrame:
        """The rows, as a DataFrame.

        :raises DataNotReadable: naming file and place, when a file is not in the declared format.
        """
        from airflow_aml_data.core.tabular import read_table, to_pandas

        connected = self.workspace.connect()
        definition = self.definition(connected)
        if definition.format is None:
            raise InvalidDeclaration(f"{self!r} is a file dataset; only tabular datasets become a DataFrame.")
        with local_files(connected, definition) as files:
            return to_pandas(read_table(files, definition.format, definition.selections))


class _PathDataset(AbstractDataset):
    """A dataset of paths, or of one committed output."""

    __slots__ = ()
    paths: tuple[DataPath, ...]
    output: OutputSource | None
    output_workspace: Workspace | None

    @property
    def workspace(self) -> Workspace:
        return self.output_workspace or self.paths[0].datastore.workspace

    def definition(self, workspace: ConnectedWorkspace, run_key: str | None = None) -> Definition:
        return Definition(
            paths=_store_paths(workspace, self.paths),
            output=self.output,
            format=self._table_format(),
            selections=tuple(each.selection(run_key) for each in self.samplings),
        )

    def _table_format(self) -> DelimitedFormat | ParquetFormat | None:
        return None


@dataclass(frozen=True, slots=True)
class FileDataset(_PathDataset, _FileCalls):
    """Files, in the order of the paths that name them. Made by :class:`Dataset` ``.File``."""

    paths: tuple[DataPath, ...] = ()
    samplings: tuple[Sampling, ...] = ()
    output: OutputSource | None = None
    output_workspace: Workspace | None = None


@dataclass(frozen=True, slots=True)
class TabularDataset(_PathDataset, _TableCalls):
    """Rows of delimited or Parquet files. Made by :class:`Dataset` ``.Tabular``."""

    paths: tuple[DataPath, ...]
    format: DelimitedFormat | ParquetFormat
    samplings: tuple[Sampling, ...] = ()
    output: OutputSource | None = None
    output_workspace: Workspace | None = None

    def _table_format(self) -> DelimitedFormat | ParquetFormat:
        return self.format


@dataclass(frozen=True, slots=True)
class RegisteredDataset(_FileCalls, _TableCalls):
    """A registered dataset by name and version; whether it is files or a table shows when it is read.

    :param version: A number, ``"latest"`` or a template.
    """

    registered_in: Workspace
    name: str
    version: int | str = "latest"
    samplings: tuple[Sampling, ...] = ()

    @property
    def workspace(self) -> Workspace:
        return self.registered_in

    def definition(self, workspace: ConnectedWorkspace, run_key: str | None = None) -> Definition:
        row = workspace.catalog.get_dataset(self.name, self.version)
        known = Definition.from_json(row.definition)
        own = tuple(each.selection(run_key) for each in self.samplings)
        return replace(known, selections=known.selections + own, registered=(row.name, row.version))


@dataclass(frozen=True)
class DatasetConsumptionConfig:
    """A dataset as an input of a step: its name and how the script gets at it.

    :param name: None: the step gives it one.
    :param mode: ``"mount"`` or ``"download"``: the script gets a local path; ``"direct"``: the dataset itself.
    :param path_on_compute: Where the files appear; relative: below the step's working directory. None: a scratch folder.

    Source: v1, ``azureml.data.dataset_consumption_config.DatasetConsumptionConfig``.
    """

    _MODES: ClassVar[tuple[str, ...]] = ("mount", "download", "direct")

    name: str | None
    dataset: Any
    mode: str = "direct"
    path_on_compute: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "input")
        mode = self.mode.lower() if isinstance(self.mode, str) else self.mode
        if mode not in self._MODES:
            raise InvalidDeclaration(f"Invalid mode {self.mode!r}. Mode can only be mount, download, or direct.")
        if isinstance(self.dataset, TabularDataset) and mode != "direct":
            raise InvalidDeclaration(
                f"{type(self.dataset).__name__} does not support {mode}. Only FileDataset supports {mode}. Leave it "
                "direct and read it with Run.get_context().input_datasets[name].to_pandas_dataframe()."
            )
        object.__setattr__(self, "mode", mode)

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """The files are readable below a local path, without being copied first."""
        return replace(self, mode="mount", path_on_compute=path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """The files are copied to a local path before the script starts; the script may change the copies."""
        return replace(self, mode="download", path_on_compute=path_on_compute)


class _Tabular:
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


class _File:
    """Factory of file datasets: ``Dataset.File``."""

    @staticmethod
    def from_files(path: Any, validate: bool = True) -> FileDataset:
        """Files named by paths, folders and globs.

        :param path: A ``DataPath``, a ``(Datastore, str)`` tuple, or a list of them.
        :raises InvalidDeclaration: for anything else.

        Source: the article, "Use Dataset objects for preexisting data"; globs: semantics section 4.
        """
        return FileDataset(_data_paths(path))


class Dataset:
    """Where datasets are made.

    >>> from airflow_aml_data import Datastore, DataPath, Dataset, Workspace
    >>> datastore = Datastore.get(Workspace(), "training_data")
    >>> iris = Dataset.Tabular.from_delimited_files(DataPath(datastore, "iris.csv"))
    >>> train, test = iris.take_sample(0.5, seed=42).random_split(percentage=0.8, seed=42)
    """

    Tabular = _Tabular
    File = _File

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


def from_definition(workspace: Workspace, content: Mapping[str, Any]) -> FileDataset | TabularDataset:
    """The dataset that a definition's JSON describes; how a script opens its direct inputs."""
    known = Definition.from_json(content)
    paths = tuple(DataPath(Datastore(workspace, each.datastore), each.path) for each in known.paths)
    samplings = tuple(
        Sampling(probability=each.probability, seed=each.seed, complement=each.complement) for each in known.selections
    )
    if known.format is None:
        return FileDataset(paths, samplings, known.output, workspace)
    return TabularDataset(paths, known.format, samplings, known.output, workspace)


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


def _wrong_path(path: Any) -> str:
    return (
        f"Invalid argument type for `path`. Give a DataPath, a (Datastore, str) tuple, or a non-empty list of them, found {path!r}. "
        "Local files are uploaded first: datastore.upload(src_dir, target_path)."
    )


def _store_paths(workspace: ConnectedWorkspace, paths: Sequence[DataPath]) -> tuple[StorePath, ...]:
    return tuple(StorePath(workspace.datastore_name(each.datastore.declared_name), each.path) for each in paths)
