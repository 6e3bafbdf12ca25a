"""Write the flights that departed as a Parquet file.

By hand, on a CSV file::

    python clean.py --flights flights.csv --clean folder
"""

import argparse
from pathlib import Path

import pandas as pd
from azureml.core import Run

parser = argparse.ArgumentParser(description="Write the flights that departed as a Parquet file.")
parser.add_argument("--flights", help="CSV file; in a step, the input of that name is read")
parser.add_argument("--clean", type=Path, required=True, help="folder for the Parquet file")
args = parser.parse_args()

run = Run.get_context()
flights = pd.read_csv(args.flights) if args.flights else run.input_datasets["flights"].to_pandas_dataframe()
flights["dep_delay"] = pd.to_numeric(flights["dep_delay"], errors="coerce")  # "NA": the flight never departed

args.clean.mkdir(parents=True, exist_ok=True)
flights.dropna(subset=["dep_delay"]).to_parquet(args.clean / "departed.parquet", index=False)
run.log("rows", len(flights))
