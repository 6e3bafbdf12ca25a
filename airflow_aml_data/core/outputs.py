"""``OutputFileDatasetConfig``: what a step writes; ``OutputReference``: where it was stored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_aml_data.core.datasets import FileDataset, TabularDataset, column_names
from airflow_aml_data.core.definition import OutputSource
from airflow_aml_data.core.formats import (
    DataType,
    DelimitedFormat,
    ParquetFormat,
    PromoteHeadersBehavior,
    TableFormat,
)
from airflow_aml_data.core.identity import (
    check_dataset_name,
    check_name,
    check_relative_path,
    check_retention_days,
    check_tags,
)
from airflow_aml_data.core.inputs import DatasetConsumptionConfig
from airflow_aml_data.core.operations import DropColumns, KeepColumns
from airflow_aml_data.core.partition import PartitionFormat, as_partition_format
from airflow_aml_data.core.sampling import DeclaredOperation, Sampling, is_template
from airflow_aml_data.core.workspace import Datastore, Workspace
from airflow_aml_data.errors import InvalidDeclaration, InvalidPath, WiringError

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_PATH = "dataset/{run-id}/{output-name}"
"""Where an output goes when its declaration names no path. Source: v1, semantics section 10."""

_PLACEHOLDER = re.compile(r"(?<!{){([^{}]*)}(?!})")
_KNOWN_PLACEHOLDERS = ("run-id", "output-name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The dataset an output becomes when its step has succeeded."""

    name: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTable:
    """How the files of an output are read as a table.

    :param path_glob: Only the files whose path inside the output matches; None: all.
    """

    format: TableFormat
    operations: tuple[DeclaredOperation, ...] = ()
    include_path: bool = False
    partition_format: PartitionFormat | None = None
    path_glob: str | None = None

    def of(self, sources: Sequence[OutputSource], workspace: Workspace) -> TabularDataset:
        """The table that committed outputs hold."""
        return TabularDataset(
            tuple(replace(each, path_glob=self.path_glob) for each in sources),
            self.format,
            self.operations,
            include_path=self.include_path,
            partition_format=self.partition_format,
            in_workspace=workspace,
        )


@dataclass(frozen=True)
class OutputFileDatasetConfig:
    """A folder that one step writes and later steps read.

    A declaration never changes: each ``as_*`` and ``register_*`` call returns a copy that stands for the same
    output, so ``out.as_upload()`` can go to the step that writes and ``out.as_input()`` to the one that reads.

    :param name: Letters, digits and ``_``; also the name of the environment variable with the local path.
        None: the step gives it one, the same at every parse.
    :param destination: ``(datastore or its name, path)``. The path may hold ``{run-id}``, unique to each try of
        the step, and ``{output-name}``. None: the default datastore and ``dataset/{run-id}/{output-name}``.
    :param source: Local folder that holds the output when the script has ended; None: a scratch folder.
    :param partition_format: What the paths of its files say; see :class:`.PartitionFormat`.
    :param retention_days: Days for which the retention DAG keeps it after its last change and use, 30 or more; None: as that DAG
        says for its datastore.
    :param keep: The retention DAG never deletes it.

    :raises InvalidName: for a name v1 refuses too.
    :raises InvalidDeclaration: for a destination of another form. v1 says so only at run time.
    :raises InvalidPath: for an unknown placeholder, or a path that leaves the datastore.

    Source: the article, "Use OutputFileDatasetConfig for intermediate data"; semantics section 10.
    """

    name: str | None = None
    destination: tuple[Datastore | str | None, str] | None = None
    source: str | None = None
    partition_format: str | PartitionFormat | None = None
    mode: Literal["mount", "upload"] = field(default="mount", kw_only=True)
    overwrite: bool = field(default=False, kw_only=True)
    source_globs: tuple[str, ...] | None = field(default=None, kw_only=True)
    registration: Registration | None = field(default=None, kw_only=True)
    table: OutputTable | None = field(default=None, kw_only=True)
    retention_days: int | None = field(default=None, kw_only=True)
    keep: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.retention_days is not None:
            check_retention_days(f"retention_days of output {self.name!r}", self.retention_days)
        object.__setattr__(self, "name", check_name(self.name, "output") if self.name else None)
        object.__setattr__(self, "destination", _destination(self.destination))
        object.__setattr__(self, "partition_format", as_partition_format(self.partition_format))

    def as_upload(
        self, overwrite: bool = False, source_globs: str | Sequence[str] | None = None
    ) -> OutputFileDatasetConfig:
        """Files are stored when the script has succeeded; a failed or killed script stores nothing.

        :param overwrite: False: a file of the same name at the destination is an error, and nothing is stored.
            True: it is replaced; other files stay.
        :param source_globs: Store only files whose absolute path matches one of these (``fnmatch``: ``*.csv`` at any depth).
        """
        globs = (source_globs,) if isinstance(source_globs, str) else source_globs
        return replace(self, mode="upload", overwrite=overwrite, source_globs=None if globs is None else tuple(globs))

    def as_mount(self, disable_metadata_cache: bool = False) -> OutputFileDatasetConfig:
        """Each file is stored when it is closed, and stays there also when the script fails afterwards.

        :param disable_metadata_cache: v1's; nothing is cached here.
        """
        return replace(self, mode="mount", overwrite=False, source_globs=None)

    def as_input(self, name: str | None = None) -> DatasetConsumptionConfig:
        """The output as an input of a later step, mounted; ``.as_download()`` copies it instead.

        :param name: None: the reading step gives it one.
        """
        return self._input(name, "mount")

    def read_delimited_files(
        self,
        include_path: bool = False,
        separator: str = ",",
        header: bool | str | PromoteHeadersBehavior = True,
        partition_format: str | None = None,
        path_glob: str | None = None,
        set_column_types: Mapping[str, DataType] | None = None,
    ) -> OutputTabularDatasetConfig:
        """The output as a table of delimited files; its columns are text, but for ``set_column_types``.

        :param path_glob: Only the files whose path inside the output matches, such as ``*.csv``; v1 took it for a
            regular expression.
        :param separator: And the other parameters: as of :meth:`.TabularDatasetFactory.from_delimited_files`.

        Source: v1, semantics section 10.
        """
        form = DelimitedFormat(
            separator=separator, header=header, infer_column_types=False, set_column_types=set_column_types
        )
        return self._as_table(form, include_path, partition_format, path_glob)

    def read_parquet_files(
        self,
        include_path: bool = False,
        partition_format: str | None = None,
        path_glob: str | None = None,
        set_column_types: Mapping[str, DataType] | None = None,
    ) -> OutputTabularDatasetConfig:
        """The output as a table of Parquet files; types are the files'.

        Parameters are those of :meth:`read_delimited_files`. Source: v1, semantics section 10.
        """
        form = ParquetFormat(set_column_types=set_column_types)
        return self._as_table(form, include_path, partition_format, path_glob)

    def register_on_complete(
        self, name: str, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> OutputFileDatasetConfig:
        """The output becomes a new version of a registered dataset when its step has succeeded.

        :returns: The copy to give to the step; this one stays unregistered.
        :raises InvalidDeclaration: for an empty name, or tags that are no dictionary.

        Source: the article, "Register OutputFileDatasetConfig objects for reuse".
        """
        check_dataset_name(name)
        return replace(self, registration=Registration(name=name, description=description or "", tags=check_tags(tags)))

    def dataset_of(
        self, references: Sequence[OutputReference], *, of_many: bool = False
    ) -> FileDataset | TabularDataset:
        """What the committed output holds, as the dataset that it was declared to be.

        :param references: One; of several tasks one for each, in order.
        :param of_many: A single reference stands for several tasks too, see :func:`as_dataset`.
        """
        sources = _numbered(references) if of_many or len(references) > 1 else (references[0].source,)
        workspace = Workspace(references[0].conn_id)
        if self.table:
            return self.table.of(sources, workspace)
        return FileDataset(sources, partition_format=as_partition_format(self.partition_format), in_workspace=workspace)

    def _input(self, name: str | None, mode: str) -> DatasetConsumptionConfig:
        return DatasetConsumptionConfig(name, self, mode=mode)

    def _as_table(
        self, form: TableFormat, include_path: bool, partition_format: str | None, path_glob: str | None
    ) -> OutputTabularDatasetConfig:
        table = OutputTable(
            format=form,
            include_path=include_path,
            partition_format=as_partition_format(partition_format),
            path_glob=path_glob,
        )
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        return self._tabular()(**{**known, "table": table})

    @classmethod
    def _tabular(cls) -> type[OutputTabularDatasetConfig]:
        return OutputTabularDatasetConfig

    @property
    def is_exclusive(self) -> bool:
        """Whether each try of the step has a destination of its own."""
        return "{run-id}" in self.path_template

    @property
    def path_template(self) -> str:
        return self.destination[1] if self.destination else DEFAULT_PATH

    def path_for(self, step_run_id: str, name: str) -> str:
        """The destination's path for one try of one step.

        :raises InvalidPath: when the rendered path is the root or leaves it.
        """
        values = {"run-id": step_run_id, "output-name": name}
        path = check_relative_path(_PLACEHOLDER.sub(lambda found: values[found[1]], self.path_template))
        if not path:
            raise InvalidPath(
                f"Output {name!r} would be written to the root of its datastore. Name a folder in its destination."
            )
        return path


@dataclass(frozen=True)
class OutputTabularDatasetConfig(OutputFileDatasetConfig):
    """An output that is read as a table; made by ``read_delimited_files`` or ``read_parquet_files`` of an output.

    The step writes its files as ever; who reads it, and what it is registered as, is the table.

    Source: v1, semantics section 10.
    """

    is_table: ClassVar[bool] = True

    def as_input(self, name: str | None = None) -> DatasetConsumptionConfig:
        """The table as an input of a later step, which gets it by ``run.input_datasets[name]``.

        :param name: None: the reading step gives it one.
        """
        return self._input(name, "direct")

    def keep_columns(self, columns: str | Sequence[str]) -> OutputTabularDatasetConfig:
        """Only these columns, in the order of the data; unknown names are ignored."""
        return self._with(KeepColumns(column_names(columns)))

    def drop_columns(self, columns: str | Sequence[str]) -> OutputTabularDatasetConfig:
        """All columns but these; unknown names are ignored."""
        return self._with(DropColumns(column_names(columns)))

    def random_split(
        self, percentage: float | str, seed: int | str | None = None
    ) -> tuple[OutputTabularDatasetConfig, OutputTabularDatasetConfig]:
        """Two tables that together hold every row once: about ``percentage`` of them, and the rest.

        Both are the same output: one step writes it, others read one part or the other.

        :param percentage: Share of the first part, 0.0 to 1.0, or a template.
        """
        first = Sampling(probability=percentage, seed=seed)
        return self._with(first), self._with(replace(first, complement=True))

    def _with(self, operation: DeclaredOperation) -> OutputTabularDatasetConfig:
        table = self.table
        if table is None:
            raise InvalidDeclaration("An output becomes a table by read_delimited_files() or read_parquet_files().")
        return replace(self, table=replace(table, operations=(*table.operations, operation)))


@dataclass(frozen=True, slots=True)
class OutputReference:
    """Where a step's committed output lies: what travels through XCom, never bytes or secrets.

    :param output_id: Its row in the catalog.
    :param conn_id: Airflow connection of the workspace.
    :param path: Relative to the datastore's root.
    :param manifest: Path of the list of its files on the same datastore.
    :param dataset: Name it is registered under, ``""`` when it is not.
    """

    __version__: ClassVar[int] = 1

    name: str
    conn_id: str
    datastore: str
    path: str
    files: int
    size_bytes: int
    output_id: str
    manifest: str
    manifest_digest: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    dataset: str = ""
    dataset_version: int = 0

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that :meth:`from_json` takes back."""
        return {"aml_output_reference": self.__version__, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> OutputReference:
        """The reference that a plain dictionary holds.

        :raises InvalidDeclaration: when it is something else, or of another version.
        """
        body = dict(content) if isinstance(content, Mapping) else {}
        version = body.pop("aml_output_reference", None)
        kinds = {each.name: (each.default is MISSING, str if each.type == "str" else int) for each in fields(cls)}
        if (
            version != cls.__version__
            or not {name for name, (required, _) in kinds.items() if required} <= body.keys() <= kinds.keys()
            or not all(type(value) is kinds[name][1] for name, value in body.items())
        ):
            raise InvalidDeclaration(
                f"Not an output reference of version {cls.__version__}: {content!r}. Use the value of step.output[name] as it is."
            )
        return cls(**body)

    @property
    def source(self) -> OutputSource:
        return OutputSource(
            output_id=self.output_id,
            datastore=self.datastore,
            path=self.path,
            manifest=self.manifest,
            manifest_digest=self.manifest_digest,
        )

    def as_dataset(self) -> FileDataset:
        """The output's files as a dataset."""
        return FileDataset((self.source,), in_workspace=Workspace(self.conn_id))

    def to_path(self) -> list[str]:
        """The paths of its files inside the output, each with a leading ``/``."""
        return self.as_dataset().to_path()

    def download(self, target_path: str | Path | None = None, overwrite: bool = False) -> list[str]:
        """Copy its files to a local folder; returns the absolute paths of the copies."""
        return self.as_dataset().download(target_path, overwrite)

    def to_pandas_dataframe(self) -> pd.DataFrame:
        """Its rows, when all of its files are delimited text (``.csv``, ``.tsv``) or all are Parquet.

        :raises InvalidDeclaration: for other files; ``download()`` them instead.
        """
        endings = {Path(path).suffix.lower() for path in self.to_path()}
        formats: dict[str, DelimitedFormat | ParquetFormat] = {
            ".csv": DelimitedFormat(),
            ".tsv": DelimitedFormat(separator="\t"),
            ".parquet": ParquetFormat(),
        }
        if len(endings) != 1 or not endings <= formats.keys():
            raise InvalidDeclaration(
                f"Output {self.name!r} holds files ending in {', '.join(sorted(endings))!r}; a DataFrame is made of "
                f"files that all end in one of {', '.join(formats)}. Use download() and read them yourself."
            )
        form = formats[endings.pop()]
        return OutputTable(format=form).of([self.source], Workspace(self.conn_id)).to_pandas_dataframe()


def as_dataset(references: Sequence[OutputReference]) -> FileDataset:
    """The files of the outputs that several tasks wrote, as one dataset.

    Each output's files lie below a folder of its own, named by its zero-padded number, so that sorted names are in the
    given order; also when there is one output only.

    :raises WiringError: for outputs of several workspaces.
    """
    return FileDataset(_numbered(references), in_workspace=Workspace(references[0].conn_id))


def _numbered(references: Sequence[OutputReference]) -> tuple[OutputSource, ...]:
    if len(conn_ids := sorted({each.conn_id for each in references})) > 1:
        raise WiringError(f"Outputs of several workspaces cannot be one input: {', '.join(conn_ids)}.")
    width = len(str(len(references) - 1))
    return tuple(replace(each.source, folder=f"{number:0{width}}") for number, each in enumerate(references))


def _destination(value: Any) -> tuple[Datastore | str | None, str] | None:
    if value is None:
        return None
    if not isinstance(value, tuple) or len(value) not in (1, 2) or not isinstance(value[0], Datastore | str | None):
        raise InvalidDeclaration(
            f"The destination of an output is (datastore or its name, path), found {value!r}. "
            'Example: destination=(datastore, "mypath/{run-id}/{output-name}").'
        )
    path = value[1] if len(value) == 2 and value[1] is not None else DEFAULT_PATH
    if not isinstance(path, str):
        raise InvalidDeclaration(f"The path of an output's destination is text, found {path!r}.")
    for found in _PLACEHOLDER.findall(path):
        if found not in _KNOWN_PLACEHOLDERS:
            raise InvalidPath(
                f"Destination path {path!r} holds an unknown placeholder {{{found}}}. Allowed: {{run-id}}, {{output-name}}."
            )
    if not is_template(path):
        check_relative_path(path)
    return value[0], path
