"""Texts as the files of a dataset, and delimited ones read with any block size."""

import pyarrow as pa

from airflow_aml_data.core.formats import DelimitedFormat
from airflow_aml_data.core.tabular.base import Misfit, TableFile
from airflow_aml_data.core.tabular.blocks import BLOCK_BYTES
from airflow_aml_data.core.tabular.delimited import DelimitedReader


def files_of(folder, texts):
    """Write texts or bytes as files ``f0``, ``f1``... and return them."""
    files = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        files.append(TableFile(f"f{number}", path))
    return files


def rows_of(reader, count, schema):
    """Return the rows of so many files as one table."""
    return pa.Table.from_batches([b for ordinal in range(count) for b in reader.batches(ordinal, schema)], schema)


def read_files(files, *, block_bytes=BLOCK_BYTES, on_error="null", surveyed=False, **options):
    """Return all rows: with the trial schema and, if that is a misfit or ``surveyed``, with the one of all values."""
    reader = DelimitedReader(files, DelimitedFormat(**options), on_error=on_error, block_bytes=block_bytes)
    if not surveyed:
        try:
            return rows_of(reader, len(files), reader.trial_schema)
        except Misfit:
            pass
    return rows_of(reader, len(files), reader.schema)
