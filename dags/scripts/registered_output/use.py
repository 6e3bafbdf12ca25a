"""Log month, number of days and worst day of a published ``delays.csv``.

By hand::

    python use.py --delays delays.csv
"""

import argparse
from pathlib import Path

import pandas as pd

from airflow_aml_data import Run

parser = argparse.ArgumentParser(description="Log the worst day of a month.")
parser.add_argument("--delays", type=Path, required=True, help="delays.csv, or the folder with it")
args = parser.parse_args()

days = pd.read_csv(args.delays / "delays.csv" if args.delays.is_dir() else args.delays)
worst = days.loc[days["arr_delay"].idxmax()]

run = Run.get_context()
run.log("month", int(worst["month"]))
run.log("days", len(days))
run.log("worst_day", int(worst["day"]))
run.log("worst_delay_minutes", worst["arr_delay"])
