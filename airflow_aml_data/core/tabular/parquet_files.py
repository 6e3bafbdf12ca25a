"""Parquet files out of rows; those made of Parquet files are packed as these are."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_aml_data.core.tabular.base import TableFile
from airflow_aml_data.core.tabular.parquet import open_parquet

_GROUP_ROWS = 64 * 1024
_VALUE_BYTES = {"INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}


class Packing(NamedTuple):
    """How the columns of a Parquet file are stored, by their paths in it.

    :param dictionaries: Those whose values are kept once each; None: wherever it helps.
    """

    compression: Mapping[str, str] | str = "snappy"
    dictionaries: Sequence[str] | None = None

    @classmethod
    def of(cls, file: TableFile) -> Packing:
        """Return that of a file: dictionaries only where they spare much, for making one takes time."""
        with open_parquet(file) as opened:
            groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
        columns = [[group.column(place) for group in groups] for place in range(groups[0].num_columns if groups else 0)]
        return cls(
            {chunks[0].path_in_schema: chunks[0].compression.replace("UNCOMPRESSED", "NONE") for chunks in columns},
            [chunks[0].path_in_schema for chunks in columns if all(map(_is_worth_a_dictionary, chunks))],
        )


def _is_worth_a_dictionary(chunk: pq.ColumnChunkMetaData) -> bool:
    if not {"RLE_DICTIONARY", "PLAIN_DICTIONARY"} & set(chunk.encodings):
        return False
    plain = chunk.num_values * _VALUE_BYTES.get(chunk.physical_type, 0)
    return not plain or chunk.total_uncompressed_size < plain / 4


def with_dictionaries(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """Return the schema with text columns of these names read as dictionaries, so that none has to be made again."""
    return pa.schema(
        [
            (
                each.name,
                pa.dictionary(pa.int32(), each.type) if each.name in names and each.type == pa.string() else each.type,
            )
            for each in schema
        ]
    )


@contextmanager
def little_memory() -> Iterator[None]:
    """Let Arrow take memory from the system in the body: its own pools keep several times what is in use."""
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(usual)


@contextmanager
def open_part(path: Path, schema: pa.Schema, packing: Packing) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Give what takes the batches of a file, which is written on a thread of its own, in memory that does not grow."""
    plain = pa.schema(
        [(each.name, each.type.value_type if pa.types.is_dictionary(each.type) else each.type) for each in schema]
    )
    with pq.ParquetWriter(
        path,
        schema,
        compression=packing.compression,
        use_dictionary=True if packing.dictionaries is None else list(packing.dictionaries),
        store_schema=False,
    ) as writer:
        with ThreadPoolExecutor(max_workers=1) as thread:
            groups = _Groups(lambda group: thread.submit(writer.write_table, pa.Table.from_batches(group)))
            yield groups.add
            groups.finish()
        # readers go by this note: a dictionary is how a column is stored, not its type
        writer.add_key_value_metadata({"ARROW:schema": b64encode(plain.serialize()).decode()})


class _Groups:
    """Batches by so many as make a row group; one group is written while the next is gathered.

    :param write: Begins to write a group.
    """

    def __init__(self, write: Callable[[list[pa.RecordBatch]], Future[None]]) -> None:
        self._write = write
        self._writing: Future[None] | None = None
        self._group: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._group.append(batch)
            self._rows += batch.num_rows
        if self._rows >= _GROUP_ROWS:
            self._begin()

    def finish(self) -> None:
        if self._group:
            self._begin()
        self._wait()

    def _begin(self) -> None:
        self._wait()
        self._writing = self._write(self._group)
        self._group, self._rows = [], 0

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
