"""Tables out of delimited, Parquet and JSON lines files, and into files again.

Values are what they are in the files; types are decided over all rows, so both parts of a split have the same. What is
kept of a file is decided row by row in order, and never more than a few batches are in memory, but for
:func:`read_table`, which holds the rows it returns.

Source: v1, semantics sections 5 to 7, and 15 (0/1 as bool, lost zeros and values silently null are not copied).
"""

from airflow_aml_data.core.tabular.base import TableFile, TableReader
from airflow_aml_data.core.tabular.frame import to_pandas
from airflow_aml_data.core.tabular.reading import open_reader, read_batches, read_table
from airflow_aml_data.core.tabular.write import part_names, write_files, write_parts

__all__ = [
    "TableFile",
    "TableReader",
    "open_reader",
    "part_names",
    "read_batches",
    "read_table",
    "to_pandas",
    "write_files",
    "write_parts",
]
