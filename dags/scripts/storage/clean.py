"""Keep the flights that arrived, in one Parquet file for each month.

By hand::

    python clean.py --flights flights.csv --clean folder
"""

import argparse
from pathlib import Path

import pandas as pd

from airflow_aml_data import Run

parser = argparse.ArgumentParser(description="Keep the flights that arrived, in one file for each month.")
parser.add_argument("--flights", type=Path, required=True, help="CSV file, or a folder with one")
parser.add_argument("--clean", type=Path, required=True, help="folder for the files")
args = parser.parse_args()

source = args.flights if args.flights.is_file() else next(args.flights.rglob("*.csv"))
flights = pd.read_csv(source, usecols=["month", "carrier", "dest", "arr_delay"])
arrived = flights.dropna(subset=["arr_delay"])

args.clean.mkdir(parents=True, exist_ok=True)
for month, rows in arrived.groupby("month"):
    rows.to_parquet(args.clean / f"{month:02}.parquet", index=False)

run = Run.get_context()
run.log("rows_read", len(flights))
run.log("rows_kept", len(arrived))
