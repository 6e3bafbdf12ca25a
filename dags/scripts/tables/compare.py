"""Compare the delays in two parts of the flights.

By hand, on Parquet files::

    python compare.py --first first.parquet --second second.parquet
"""

import argparse

import pandas as pd
from azureml.core import Run

parser = argparse.ArgumentParser(description="Compare the delays in two parts of the flights.")
parser.add_argument("--first", help="Parquet file; in a step, the input of that name is read")
parser.add_argument("--second", help="Parquet file; in a step, the input of that name is read")
args = parser.parse_args()

run = Run.get_context()
for name in ("first", "second"):
    path = getattr(args, name)
    part = pd.read_parquet(path) if path else run.input_datasets[name].to_pandas_dataframe()
    run.log(f"{name}_rows", len(part))
    run.log(f"{name}_late", round(float((part["dep_delay"] > 15).mean()), 2), "share of flights over 15 minutes late")
