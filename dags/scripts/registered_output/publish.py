"""Mean arrival delay of each day of one month, as ``delays.csv``.

By hand, on a CSV file::

    python publish.py --flights flights.csv --month 7 --delays folder
"""

import argparse
from pathlib import Path

import pandas as pd

from airflow_aml_data import Run

parser = argparse.ArgumentParser(description="Mean arrival delay of each day of one month.")
parser.add_argument("--flights", help="CSV file; in a step, the input of that name is read")
parser.add_argument("--month", type=int, required=True, help="1 to 12")
parser.add_argument("--delays", type=Path, required=True, help="folder for delays.csv")
args = parser.parse_args()

run = Run.get_context()
flights = pd.read_csv(args.flights) if args.flights else run.input_datasets["flights"].to_pandas_dataframe()
flights["arr_delay"] = pd.to_numeric(flights["arr_delay"], errors="coerce")  # "NA": the flight never arrived
days = flights[flights["month"] == args.month].groupby(["month", "day"], as_index=False)["arr_delay"].mean()

args.delays.mkdir(parents=True, exist_ok=True)
days.round(2).to_csv(args.delays / "delays.csv", index=False)
run.log("days", len(days))
