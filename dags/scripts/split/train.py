"""Train a classifier of iris flowers and test it on the flowers that were held back.

By hand, on CSV files::

    python train.py --train train.csv --test test.csv
"""

import argparse

import pandas as pd
from azureml.core import Run
from sklearn.linear_model import LogisticRegression

run = Run.get_context()

parser = argparse.ArgumentParser(description="Train a classifier and log its accuracy.")
parser.add_argument("--train", help="CSV file; in a step, the input of that name is read")
parser.add_argument("--test", help="CSV file; in a step, the input of that name is read")
args = parser.parse_args()

train = pd.read_csv(args.train) if args.train else run.input_datasets["train"].to_pandas_dataframe()
test = pd.read_csv(args.test) if args.test else run.input_datasets["test"].to_pandas_dataframe()

model = LogisticRegression(max_iter=1000)
model.fit(train.drop(columns="species"), train["species"])
accuracy = model.score(test.drop(columns="species"), test["species"])

run.log("train_rows", len(train))
run.log("test_rows", len(test))
run.log("accuracy", round(accuracy, 3), "share of the held-back flowers named correctly")
