"""Number of flights and mean arrival delay for each value of a column: airlines, airports.

By hand::

    python delays.py --flights folder --by carrier --delays other_folder
"""

import argparse
from pathlib import Path

import pandas as pd

parser = argparse.ArgumentParser(description="Flights and mean arrival delay for each value of a column.")
parser.add_argument("--flights", type=Path, required=True, help="folder with Parquet files")
parser.add_argument("--by", required=True, help="column whose values to compare")
parser.add_argument("--delays", type=Path, required=True, help="folder for delays.csv")
args = parser.parse_args()

flights = pd.read_parquet(args.flights)
delays = flights.groupby(args.by)["arr_delay"].agg(flights="count", minutes="mean").rename_axis("value")

args.delays.mkdir(parents=True, exist_ok=True)
delays.round(2).to_csv(args.delays / "delays.csv")
print(f"{len(flights)} flights, {len(delays)} values of {args.by}")
