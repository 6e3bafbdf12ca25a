"""Log the mean of every column of the table ``iris``.

By hand, on a CSV file::

    python describe.py --iris iris.csv
"""

import argparse

import pandas as pd

from airflow_aml_data import Run

parser = argparse.ArgumentParser(description="Log the mean of every column.")
parser.add_argument("--iris", help="CSV file; in a step, the input of that name is read")
parser.add_argument("--digits", type=int, default=2, help="digits the means are rounded to")
args = parser.parse_args()

run = Run.get_context()
iris = pd.read_csv(args.iris) if args.iris else run.input_datasets["iris"].to_pandas_dataframe()

run.log("rows", len(iris))
for column, mean in iris.drop(columns="species").mean().items():
    run.log(f"mean_{column}", round(mean, args.digits))
