"""``MLTable`` files that need declared types and header modes; for tests/core/test_mltable.py once those are on main."""

from __future__ import annotations

from datetime import datetime

from airflow_aml_data import Dataset


def test_types_headers_and_columns_from_paths(put, datastore):
    """The published example's transformations, together."""
    described = """
type: mltable
paths:
  - pattern: ./**/*.csv
transformations:
  - read_delimited: {delimiter: ',', header: from_first_file, include_path_column: true}
  - convert_column_types:
      - {columns: a, column_type: string}
      - {columns: [d], column_type: {datetime: {formats: '%d.%m.%Y'}}}
      - {columns: f, column_type: {float: {decimal_mark: ','}}}
      - {columns: b, column_type: {boolean: {true_values: ['true', '1'], false_values: ['0']}}}
  - extract_columns_from_partition_format: "/{land}/{day:yyyy-MM}"
  - filter: col('land') == 'de' or day >= datetime(2024, 2, 1)
"""
    put(
        {
            "t/MLTable": described,
            "t/de/2024-01/1.csv": 'a,d,f,b\n001,1.2.2024,"1,5",1\n',
            "t/fr/2024-01/1.csv": '003,1.2.2024,"2,5",0\n',
            "t/fr/2024-02/1.csv": '002,1.2.2024,"2,5",0\n',
        }
    )
    frame = Dataset.Tabular.from_mltable((datastore, "t")).to_pandas_dataframe()
    assert frame.to_dict("list") == {
        "Path": ["/t/de/2024-01/1.csv", "/t/fr/2024-02/1.csv"],
        "land": ["de", "fr"],
        "day": [datetime(2024, 1, 1), datetime(2024, 2, 1)],
        "a": ["001", "002"],
        "d": [datetime(2024, 2, 1), datetime(2024, 2, 1)],
        "f": [1.5, 2.5],
        "b": [True, False],
    }
