"""Tables as pandas shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from airflow_aml_data.core.tabular.columns import POOL

if TYPE_CHECKING:
    import pandas as pd

_NULLABLE = {
    pa.int8(): "Int8",
    pa.int16(): "Int16",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.uint8(): "UInt8",
    pa.uint16(): "UInt16",
    pa.uint32(): "UInt32",
    pa.uint64(): "UInt64",
}


def to_pandas(table: pa.Table, *, index: str | None = None) -> pd.DataFrame:
    """Return the table as a DataFrame without losing a digit.

    :param index: The column that becomes the index too, when it is there.

    Whole numbers are ``int64``, or pandas' nullable ``Int64`` in a column with nulls (as floats they would be
    rounded above 2**53). bool with nulls is object with True, False and None, as in v1.
    """
    import pandas as pd

    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True, memory_pool=POOL)
    for position, column in enumerate(table.columns):
        if column.null_count and column.type in _NULLABLE:
            dtype: Any = pd.api.types.pandas_dtype(_NULLABLE[column.type])
            frame.isetitem(position, dtype.__from_arrow__(column))
    if index in table.column_names:
        frame = frame.set_index(index, drop=False).rename_axis(None)
    return frame
