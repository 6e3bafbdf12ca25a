"""Write the flowers of one species, the short and the long petals to a file each.

By hand, on a CSV file::

    python prepare.py --iris iris.csv --species virginica --processed folder
"""

import argparse
from pathlib import Path

import pandas as pd

from airflow_aml_data import Run

SPECIES = ["setosa", "versicolor", "virginica"]  # the data numbers them in this order

parser = argparse.ArgumentParser(description="Write the flowers of one species.")
parser.add_argument("--iris", help="CSV file; in a step, the input of that name is read")
parser.add_argument("--species", choices=SPECIES, required=True, help="flowers to keep")
parser.add_argument("--processed", type=Path, required=True, help="folder for short.csv and long.csv")
args = parser.parse_args()

iris = pd.read_csv(args.iris) if args.iris else Run.get_context().input_datasets["iris"].to_pandas_dataframe()
flowers = iris[iris["species"] == SPECIES.index(args.species)]
is_long = flowers["petal_length"] > flowers["petal_length"].median()

args.processed.mkdir(parents=True, exist_ok=True)
flowers[~is_long].to_csv(args.processed / "short.csv", index=False)
flowers[is_long].to_csv(args.processed / "long.csv", index=False)
