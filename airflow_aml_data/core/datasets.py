"""``Dataset``: lazy, immutable descriptions of data, with the calls of the SDK v1.

Every call returns a new object and reads nothing, until data is asked for (``to_pandas_dataframe``,
``to_path``, ``download``) or a step runs. They are made by :mod:`.factory`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, TableFiles
from airflow_aml_data.core.expressions import Expression, RecordField, fields_of
from airflow_aml_data.core.files import PATH_COLUMN, dataset_paths, find_files, partition_values, table_files
from airflow_aml_data.core.formats import CsvFiles, ParquetFiles, TableFormat
from airflow_aml_data.core.identity import check_name
from airflow_aml_data.core.inputs import DatasetConsumptionConfig
from airflow_aml_data.core.listing import DatasetFiles
from airflow_aml_data.core.operations import DropColumns, Filter, KeepColumns, Skip, Take, is_kept
from airflow_aml_data.core.partition import PartitionFormat, PartitionValue
from airflow_aml_data.core.paths import DeclaredSource, settled_sources
from airflow_aml_data.core.registered import find_registered
from airflow_aml_data.core.registration import RegistrationCalls
from airflow_aml_data.core.sampling import DeclaredOperation, Sampling, declared_count, settle
from airflow_aml_data.core.timeseries import REGISTERED_TIMESTAMP, TimeSeriesCalls, on_timestamp
from airflow_aml_data.core.workspace import DataPath, Workspace
from airflow_aml_data.errors import DatasetTimestampMissingError, InvalidDeclaration

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from airflow_aml_data.core.catalog import DatasetVersion
    from airflow_aml_data.core.mounts import MountContext


_D = TypeVar("_D", bound="AbstractDataset")
_T = TypeVar("_T", bound="_TableCalls")


class AbstractDataset(RegistrationCalls):
    """What file, tabular and registered datasets share."""

    __slots__ = ()
    operations: tuple[DeclaredOperation, ...]

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

    def take(self: _D, count: int | str) -> _D:
        """The first ``count`` records; all of them when there are fewer.

        :param count: At least 0, or a template.
        :raises InvalidDeclaration: for anything else.

        Source: v1, semantics section 6.
        """
        return self._with(Take(declared_count(count)))

    def skip(self: _D, count: int | str) -> _D:
        """All records but the first ``count``; none when there are fewer.

        :param count: At least 0, or a template.

        Source: v1, semantics section 6.
        """
        return self._with(Skip(declared_count(count)))

    def filter(self: _D, expression: Expression) -> _D:
        """The records that meet a condition; one that a null leaves open is not met.

        Conditions compare a column, ``dataset["age"] > 5``, or a property of files,
        ``dataset.file_metadata("Size") > 1024``, and are combined with ``&``, ``|`` and ``~``.

        :raises InvalidDeclaration: for something else, or a condition on what these records do not have.

        Source: v1, semantics section 6.
        """
        asked = fields_of(expression)
        for name, of_file in sorted(asked):
            if of_file and not isinstance(self, _FileCalls):
                raise InvalidDeclaration(f"file_metadata({name!r}) is of files, and this is a table.")
            if not of_file and not isinstance(self, _TableCalls):
                raise InvalidDeclaration(f"Column {name!r} is of a table, and these are files: use file_metadata().")
        if len({of_file for _, of_file in asked}) > 1:
            raise InvalidDeclaration("A condition is on columns or on properties of files, not on both.")
        return self._with(Filter(expression))

    @property
    def partition_keys(self) -> list[str]:
        """The names in the ``partition_format``, the time last; none without one. Source: v1, semantics section 6."""
        found = self.definition(self.workspace.connect()).partition_format
        return [] if found is None else list(PartitionFormat(found).keys)

    def get_partition_key_values(self, keys: Sequence[str] | None = None) -> list[dict[str, PartitionValue]]:
        """What the files' paths say, each combination once, in the order in which it appears. The files are listed, not read.

        :param keys: Some of :attr:`partition_keys`; None: all.
        :raises InvalidDeclaration: for other names, or without a ``partition_format``.

        Source: v1, semantics section 6.
        """
        connected = self.workspace.connect()
        return partition_values(connected, self.definition(connected), keys)

    def as_named_input(self, name: str) -> DatasetConsumptionConfig:
        """The dataset as an input of a step, under a name.

        :param name: Letters, digits and ``_``, not starting with a digit.

        Source: the article, "Pass datasets to your script".
        """
        return DatasetConsumptionConfig(check_name(name, "input"), self)

    def _look_up(self) -> DatasetVersion | None:
        return None

    def _as_registered(self, workspace: Workspace, version: DatasetVersion) -> RegisteredDataset:
        return RegisteredDataset(workspace, version.name, version.version)

    def _with(self: _D, operation: DeclaredOperation) -> _D:
        return replace(self, operations=(*self.operations, operation))  # type: ignore[type-var]


class _FileCalls(AbstractDataset):
    """What can be asked of data as files."""

    __slots__ = ()

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """An unnamed input whose files are readable below a local path."""
        return DatasetConsumptionConfig(None, self).as_mount(path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """An unnamed input whose files are copied below a local path."""
        return DatasetConsumptionConfig(None, self).as_download(path_on_compute)

    def file_metadata(self, col: str) -> RecordField:
        """A property of each file, for :meth:`filter`.

        :param col: ``Size`` in bytes, ``LastModifiedTime``, ``CreationTime``, ``Extension`` with its dot, ``CanSeek``.

        Source: v1, semantics section 6.
        """
        return RecordField(col, of_file=True)

    def to_path(self) -> list[str]:
        """The paths of the files inside the dataset, each with a leading ``/``; of a list of paths, from their datastore's root.

        :raises FilesNotFound: for a path or glob without a match.

        Source: v1, semantics section 4.
        """
        connected = self.workspace.connect()
        return dataset_paths(connected, self.definition(connected))

    def download(
        self,
        target_path: str | Path | None = None,
        overwrite: bool = False,
        ignore_not_found: bool = False,
    ) -> list[str]:
        """Copy the files to a local folder, now; they keep the folders below the one that all have in common.

        :param target_path: None: a new temporary folder.
        :param ignore_not_found: Leave out paths and globs without a match.
        :returns: The absolute paths of the copies.
        :raises FilesExist: when ``overwrite`` is False and a file is there, before anything is written.
        :raises FilesNotFound: for a path or glob without a match, unless that is ignored.

        Source: v1, semantics section 9; False really means False: section 15.
        """
        from airflow_aml_data.core.transfer import download

        connected = self.workspace.connect()
        files = find_files(connected, self.definition(connected), ignore_not_found=ignore_not_found)
        folder = Path(target_path or tempfile.mkdtemp(prefix="aml_data_")).absolute()
        return download(files, folder, overwrite=overwrite)

    def mount(self, mount_point: str | Path | None = None) -> MountContext:
        """The files below a local folder, in a ``with`` block or between ``.start()`` and ``.stop()``; for use outside steps.

        :param mount_point: A folder that is empty or does not exist; None: a new temporary one.
        :raises FilesExist: when something is in it.

        Source: v1, semantics section 9.
        """
        from airflow_aml_data.core.mounts import MountContext

        def find() -> DatasetFiles:
            connected = self.workspace.connect()
            return find_files(connected, self.definition(connected))

        return MountContext(find, mount_point)


class _TableCalls(AbstractDataset, TimeSeriesCalls):
    """What can be asked of data as a table."""

    __slots__ = ()

    def __getitem__(self, column: str) -> RecordField:
        """A column, for :meth:`filter`: ``dataset.filter(dataset["age"] > 5)``. Source: v1, semantics section 6."""
        return RecordField(column)

    def keep_columns(self: _T, columns: str | Sequence[str], validate: bool = False) -> _T:
        """Only these columns, in the order of the data; unknown names are ignored.

        :param validate: v1's; nothing is read here. None of the columns in the data is an error when it is read.

        Source: v1, semantics section 6.
        """
        return self._with(KeepColumns(column_names(columns)))

    def drop_columns(self: _T, columns: str | Sequence[str]) -> _T:
        """All columns but these; unknown names are ignored. Source: v1, semantics section 6."""
        return self._with(DropColumns(column_names(columns)))

    def to_csv_files(self, separator: str = ",") -> FileDataset:
        """The table as delimited files, ``part-00000`` and so on, one for each of its files; made when they are needed.

        Rows that are chosen by position only (samples, splits, ``take``, ``skip``) stay byte for byte as they are in
        files with the same separator.

        :param separator: One character.

        Source: v1, semantics section 5.
        """
        return FileDataset(made_of=self, target=CsvFiles(separator=separator))

    def to_parquet_files(self) -> FileDataset:
        """The table as Parquet files, ``part-00000`` and so on, one for each of its files; made when they are needed.

        Source: v1, semantics section 5.
        """
        return FileDataset(made_of=self, target=ParquetFiles())

    def to_pandas_dataframe(self, on_error: str = "null", out_of_range_datetime: str = "null") -> pd.DataFrame:
        """The rows, as a DataFrame; with timestamp columns it is indexed by the first.

        :param on_error: What becomes of a value that does not fit the type ``set_column_types`` gives its column:
            ``"null"``: null, and a warning that counts them; ``"fail"``: an error.
        :param out_of_range_datetime: v1's. Nothing is out of range here: dates that nanoseconds cannot count are kept in
            microseconds.
        :raises DataNotReadable: naming file and place, when a file is not in the declared format.
        """
        from airflow_aml_data.core.tabular import read_table, to_pandas

        for name, value in (("on_error", on_error), ("out_of_range_datetime", out_of_range_datetime)):
            if value not in ("null", "fail"):
                raise InvalidDeclaration(f"{name} is 'null' or 'fail', found {value!r}.")
        connected = self.workspace.connect()
        definition = self.definition(connected)
        if definition.format is None:
            raise InvalidDeclaration(f"{self!r} is a file dataset; only tabular datasets become a DataFrame.")
        with table_files(connected, definition) as files:
            table = read_table(files, definition.format, definition.operations, on_error=on_error)
        return to_pandas(table, index=_index(definition, table))


def _index(definition: Definition, table: pa.Table) -> str | None:
    """The timestamp column, unless it was left out on purpose."""
    column = definition.timestamp
    if column is None or not is_kept(column, definition.operations):
        return None
    kind = str(table.schema.field(column).type) if column in table.column_names else "missing"
    if not kind.startswith(("timestamp", "date")):
        raise DatasetTimestampMissingError(
            f"The timestamp column {column!r} is {kind}. There are: {', '.join(table.column_names)}. Name one of dates or times "
            "in with_timestamp_columns(), or give it a type: set_column_types={...: DataType.to_datetime()}."
        )
    return column


class _SourceDataset(AbstractDataset):
    """A dataset of paths, addresses or committed outputs."""

    __slots__ = ()
    sources: tuple[DeclaredSource, ...]
    partition_format: PartitionFormat | None
    in_workspace: Workspace | None

    @property
    def workspace(self) -> Workspace:
        found = (each.datastore.workspace for each in self.sources if isinstance(each, DataPath))
        return self.in_workspace or next(found, Workspace())

    @property
    def partition_keys(self) -> list[str]:
        """The names in the ``partition_format``, the time last; none without one. Source: v1, semantics section 6."""
        return list(self.partition_format.keys) if self.partition_format else []


@dataclass(frozen=True, slots=True)
class FileDataset(_SourceDataset, _FileCalls):
    """Files, in the order of the paths that name them. Made by :class:`.Dataset` ``.File``.

    :param made_of: Instead of sources: the table the files are made of.
    :param target: What kind of files they are.
    :param in_workspace: Where sources without a datastore of their own belong.
    :param is_file: The paths name files for certain.
    """

    sources: tuple[DeclaredSource, ...] = ()
    operations: tuple[DeclaredOperation, ...] = ()
    partition_format: PartitionFormat | None = None
    made_of: _TableCalls | None = None
    target: CsvFiles | ParquetFiles | None = None
    in_workspace: Workspace | None = None
    is_file: bool = False

    @property
    def workspace(self) -> Workspace:
        return self.made_of.workspace if self.made_of else _SourceDataset.workspace.fget(self)  # type: ignore[attr-defined]

    def definition(self, workspace: ConnectedWorkspace, run_key: str | None = None) -> Definition:
        made_of = None
        if self.made_of and self.target:
            table = self.made_of.definition(workspace, run_key)
            if not table.is_tabular:
                raise InvalidDeclaration(f"{self.made_of!r} is a file dataset; only tables are made into files.")
            made_of = TableFiles(table=table, target=self.target)
        return Definition(
            sources=settled_sources(workspace, self.sources, is_file=self.is_file),
            made_of=made_of,
            operations=tuple(settle(each, run_key) for each in self.operations),
            partition_format=self.partition_format.text if self.partition_format else None,
        )


@dataclass(frozen=True, slots=True)
class TabularDataset(_SourceDataset, _TableCalls):
    """Rows of delimited, Parquet or JSON files. Made by :class:`.Dataset` ``.Tabular``."""

    is_table: ClassVar[bool] = True

    sources: tuple[DeclaredSource, ...]
    format: TableFormat
    operations: tuple[DeclaredOperation, ...] = ()
    include_path: bool = False
    partition_format: PartitionFormat | None = None
    timestamp_columns: tuple[str | None, str | None] = (None, None)
    in_workspace: Workspace | None = None

    def __post_init__(self) -> None:
        if self.include_path and PATH_COLUMN in self.partition_keys:
            raise InvalidDeclaration(
                f"include_path makes a column {PATH_COLUMN!r}, and so does {self.partition_format!r}. Rename that one."
            )

    def definition(self, workspace: ConnectedWorkspace, run_key: str | None = None) -> Definition:
        return Definition(
            sources=settled_sources(workspace, self.sources),
            format=self.format,
            operations=tuple(settle(each, run_key) for each in self.operations),
            include_path=self.include_path,
            partition_format=self.partition_format.text if self.partition_format else None,
            timestamp=self.timestamp_columns[0],
            partition_timestamp=self.timestamp_columns[1],
        )


@dataclass(frozen=True, slots=True)
class RegisteredDataset(_FileCalls, _TableCalls):
    """A registered dataset by name and version, or by id; whether it is files or a table shows when it is read.

    :param declared_name: None: it is declared by its id.
    :param declared_version: A number, ``"latest"`` or a template.
    :param declared_id: Instead of name and version; may be a template too.
    """

    registered_in: Workspace
    declared_name: str | None
    declared_version: int | str = "latest"
    operations: tuple[DeclaredOperation, ...] = ()
    timestamp_columns: tuple[str | None, str | None] = (None, None)
    declared_id: str | None = None

    @property
    def workspace(self) -> Workspace:
        return self.registered_in

    @property
    def name(self) -> str | None:
        if self._is_derived:
            return None
        return self.declared_name or self._find(self.workspace.connect()).name

    def definition(self, workspace: ConnectedWorkspace, run_key: str | None = None) -> Definition:
        row = self._find(workspace)
        known = Definition.from_json(row.definition)
        timestamp, partition = self.timestamp_columns
        if timestamp:
            known = replace(known, timestamp=timestamp, partition_timestamp=partition)
        own = tuple(on_timestamp(settle(each, run_key), known.timestamp) for each in self.operations)
        return replace(known, operations=known.operations + own, registered=(row.name, row.version))

    def _look_up(self) -> DatasetVersion | None:
        return None if self._is_derived else self._find(self.workspace.connect())

    @property
    def _is_derived(self) -> bool:
        """Whether it is made of a registered dataset, and so not registered itself."""
        return bool(self.operations) or self.timestamp_columns != (None, None)

    def _find(self, workspace: ConnectedWorkspace) -> DatasetVersion:
        if self.declared_id is not None:
            return workspace.catalog.get_dataset_by_id(self.declared_id)
        return find_registered(workspace, self.declared_name or "", self.declared_version)

    def _timestamp(self, call: str) -> str:
        return self.timestamp_columns[0] or REGISTERED_TIMESTAMP


@dataclass(frozen=True, slots=True)
class MLTableDataset(_TableCalls):
    """The table that an ``MLTable`` file of the SDK v2 describes; the file is read when the data is.

    :param source: The folder that holds it.
    """

    is_table: ClassVar[bool] = True

    source: DeclaredSource
    operations: tuple[DeclaredOperation, ...] = ()
    timestamp_columns: tuple[str | None, str | None] = (None, None)

    @property
    def workspace(self) -> Workspace:
        return self.source.datastore.workspace if isinstance(self.source, DataPath) else Workspace()

    def definition(self, workspace: ConnectedWorkspace, run_key: str | None = None) -> Definition:
        from airflow_aml_data.core.mltable import read_mltable

        known = read_mltable(workspace, self.source)
        timestamp, partition = self.timestamp_columns
        own = tuple(settle(each, run_key) for each in self.operations)
        return replace(
            known,
            operations=known.operations + own,
            timestamp=timestamp or known.timestamp,
            partition_timestamp=partition,
        )


def column_names(columns: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as v1 takes them."""
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    if not names or not all(isinstance(each, str) for each in names):
        raise InvalidDeclaration(f"columns is the name of a column or a list of names, found {columns!r}.")
    return names
