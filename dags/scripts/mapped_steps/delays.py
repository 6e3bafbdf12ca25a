"""Share of late flights of one airport, as ``delays.csv``.

By hand, on a CSV file::

    python delays.py --flights flights.csv --origin JFK --late 15 --delays folder
"""

import argparse
from pathlib import Path

import pandas as pd

from airflow_aml_data import Run

parser = argparse.ArgumentParser(description="Share of late flights of one airport.")
parser.add_argument("--flights", help="CSV file; in a step, the input of that name is read")
parser.add_argument("--origin", required=True, help="airport the flights left from")
parser.add_argument("--late", type=int, default=15, help="from how many minutes on a flight is late")
parser.add_argument("--delays", type=Path, required=True, help="folder for delays.csv")
args = parser.parse_args()

run = Run.get_context()
flights = pd.read_csv(args.flights) if args.flights else run.input_datasets["flights"].to_pandas_dataframe()
delays = pd.to_numeric(flights.loc[flights["origin"] == args.origin, "arr_delay"], errors="coerce").dropna()
row = {"origin": args.origin, "flights": len(delays), "late_share": round((delays >= args.late).mean(), 3)}

args.delays.mkdir(parents=True, exist_ok=True)
pd.DataFrame([row]).to_csv(args.delays / "delays.csv", index=False)
run.log_row(args.origin, **row)
