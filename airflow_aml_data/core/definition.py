"""A dataset with nothing left open: which files, in which format, what is done to their records.

Definitions are what the catalog stores and what a step hands to its script: plain data, as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_aml_data.core.formats import CsvFiles, ParquetFiles, TableFormat, format_from_json, target_from_json
from airflow_aml_data.core.identity import definition_id
from airflow_aml_data.core.operations import Operation, operation_from_json, operation_to_json
from airflow_aml_data.errors import InvalidDeclaration

DEFINITION_VERSION = 1


@dataclass(frozen=True, slots=True)
class StorePath:
    """A file, folder or glob on a datastore of known name.

    :param is_file: It is a file for certain, whatever its name holds: nobody looks before it is read.
    """

    datastore: str
    path: str
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class WebPath:
    """A file at a public http(s) address."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSource:
    """A committed output: exactly the files its manifest names.

    :param output_id: Its row in the catalog.
    :param path_glob: Only its files whose path inside the output matches; None: all.
    :param folder: Where its files appear in the dataset; ``""``: at its root. Several outputs have one each.
    """

    output_id: str
    datastore: str
    path: str
    manifest: str
    manifest_digest: str
    path_glob: str | None = None
    folder: str = ""


Source = StorePath | WebPath | OutputSource


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFiles:
    """Files that are made of a table when they are needed: ``to_csv_files``, ``to_parquet_files``."""

    table: Definition
    target: CsvFiles | ParquetFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a dataset is.

    :param sources: Where its files are, in its order.
    :param made_of: Instead of sources: the table its files are made of.
    :param format: How to read the files as a table; None: they are files.
    :param operations: In the order they are applied: to the rows of a table, to whole files else.
    :param include_path: A table gets a first column ``Path``.
    :param partition_format: What the files' paths say about them; see :class:`.PartitionFormat`.
    :param timestamp: The column that says when a row was; the index of a DataFrame.
    :param registered: Name and version when it came from the catalog.
    """

    sources: tuple[Source, ...] = ()
    made_of: TableFiles | None = None
    format: TableFormat | None = None
    operations: tuple[Operation, ...] = ()
    include_path: bool = False
    partition_format: str | None = None
    timestamp: str | None = None
    partition_timestamp: str | None = None
    registered: tuple[str, int] | None = None

    @property
    def is_tabular(self) -> bool:
        return self.format is not None

    @property
    def read_sources(self) -> tuple[Source, ...]:
        """Where the data is read from: its sources, or those of the table it is made of."""
        return self.made_of.table.read_sources if self.made_of else self.sources

    @property
    def outputs(self) -> Iterator[OutputSource]:
        """The committed outputs it reads."""
        return (each for each in self.read_sources if isinstance(each, OutputSource))

    @property
    def id(self) -> str:
        """A short name for this very definition; what a script gets as the argument of a direct input."""
        return definition_id(self.to_json())

    def to_json(self) -> dict[str, Any]:
        made_of = self.made_of
        return {
            "definition_version": DEFINITION_VERSION,
            "sources": [asdict(each) for each in self.sources],
            "made_of": {"table": made_of.table.to_json(), "target": made_of.target.to_json()} if made_of else None,
            "format": self.format.to_json() if self.format else None,
            "operations": [operation_to_json(each) for each in self.operations],
            "include_path": self.include_path,
            "partition_format": self.partition_format,
            "timestamp": self.timestamp,
            "partition_timestamp": self.partition_timestamp,
            "registered": list(self.registered) if self.registered else None,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Definition:
        if content.get("definition_version") != DEFINITION_VERSION:
            raise InvalidDeclaration(
                f"The dataset was stored with definition version {content.get('definition_version')!r}; this release "
                f"reads version {DEFINITION_VERSION}. Install the release that stored it, or a newer one."
            )
        made_of = content["made_of"]
        return cls(
            sources=tuple(_source_from_json(each) for each in content["sources"]),
            made_of=TableFiles(table=cls.from_json(made_of["table"]), target=target_from_json(made_of["target"]))
            if made_of
            else None,
            format=format_from_json(content["format"]) if content["format"] else None,
            operations=tuple(operation_from_json(each) for each in content["operations"]),
            include_path=content["include_path"],
            partition_format=content["partition_format"],
            timestamp=content["timestamp"],
            partition_timestamp=content["partition_timestamp"],
            registered=tuple(content["registered"]) if content["registered"] else None,
        )


def _source_from_json(content: Mapping[str, Any]) -> Source:
    for kind in (StorePath, WebPath, OutputSource):
        if content.keys() == set(kind.__dataclass_fields__):
            return kind(**content)
    raise InvalidDeclaration(f"Unknown source {dict(content)!r} in a dataset definition of another release.")
