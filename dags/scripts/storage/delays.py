"""Mean arrival delay of each airline and of each airport, in two files.

By hand::

    python delays.py --flights folder --by_airline one_folder --by_airport another
"""

import argparse
from pathlib import Path

import pandas as pd

from airflow_aml_data import Run

parser = argparse.ArgumentParser(description="Mean arrival delay of each airline and of each airport.")
parser.add_argument("--flights", type=Path, required=True, help="folder with Parquet files")
parser.add_argument("--by_airline", type=Path, required=True, help="folder for delays.csv")
parser.add_argument("--by_airport", type=Path, required=True, help="folder for delays.csv")
args = parser.parse_args()

flights = pd.read_parquet(args.flights)
for column, folder in (("carrier", args.by_airline), ("dest", args.by_airport)):
    delays = flights.groupby(column)["arr_delay"].mean().round(2).sort_values(ascending=False)
    folder.mkdir(parents=True, exist_ok=True)
    delays.rename_axis("value").to_csv(folder / "delays.csv", header=["minutes"])
    Run.get_context().log(f"worst_{column}", str(delays.index[0]))
