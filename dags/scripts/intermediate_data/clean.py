"""Keep the flights that arrived, and write one Parquet file for each month.

By hand, on a CSV file::

    python clean.py --flights flights.csv --clean folder
"""

import argparse
from pathlib import Path

import pandas as pd

from airflow_aml_data import Run

parser = argparse.ArgumentParser(description="Keep the flights that arrived, a file for each month.")
parser.add_argument("--flights", help="CSV file; in a step, the input of that name is read")
parser.add_argument("--clean", type=Path, required=True, help="folder for the Parquet files")
args = parser.parse_args()

run = Run.get_context()
flights = pd.read_csv(args.flights) if args.flights else run.input_datasets["flights"].to_pandas_dataframe()
flights["arr_delay"] = pd.to_numeric(flights["arr_delay"], errors="coerce")  # "NA": the flight never arrived
arrived = flights.dropna(subset=["arr_delay"])

args.clean.mkdir(parents=True, exist_ok=True)
for month, rows in arrived.groupby("month"):
    rows[["carrier", "origin", "dest", "arr_delay"]].to_parquet(args.clean / f"{month:02}.parquet", index=False)
run.log("rows_read", len(flights))
run.log("rows_kept", len(arrived))
