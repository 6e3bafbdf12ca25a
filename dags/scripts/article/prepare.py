"""Prepare flights for a model: keep those that arrived, make features that are known when a flight takes off.

By hand, on CSV files::

    python prepare.py --train train.csv --test test.csv --output_path folder
"""

import argparse
from pathlib import Path

import pandas as pd
from azureml.core import Run

TARGET = "arr_delay"  # minutes; negative: early
CATEGORIES = ["carrier", "origin", "dest"]
NUMBERS = ["month", "weekday", "hour", "distance", "planned_minutes", "dep_delay"]


def prepare(flights: pd.DataFrame, categories: dict[str, pd.Index]) -> pd.DataFrame:
    """Features and target of the flights that arrived."""
    measured = {name: pd.to_numeric(flights[name], errors="coerce") for name in ("dep_delay", TARGET)}
    arrived = flights.assign(**measured).dropna(subset=list(measured))  # "NA": cancelled or diverted
    planned = minutes(arrived["sched_arr_time"]) - minutes(arrived["sched_dep_time"])
    return arrived.assign(
        weekday=pd.to_datetime(arrived[["year", "month", "day"]]).dt.day_of_week,
        planned_minutes=planned % (24 * 60),  # in local times: the same offset for all flights of a destination
        **{name: categorical(arrived[name], known) for name, known in categories.items()},
    )[[*CATEGORIES, *NUMBERS, TARGET]]


def categorical(values: pd.Series, known: pd.Index) -> pd.Series:
    """The values as categories; one that is not known becomes missing."""
    return values.where(values.isin(known)).astype(pd.CategoricalDtype(known))


def minutes(clock: pd.Series) -> pd.Series:
    """Minutes since midnight of a time written as a number: 1745 is a quarter to six."""
    return clock // 100 * 60 + clock % 100


run = Run.get_context()

parser = argparse.ArgumentParser(description="Prepare flights for a model.")
parser.add_argument("--train", help="CSV file; in a step, the input of that name is read")
parser.add_argument("--test", help="CSV file; in a step, the input of that name is read")
parser.add_argument("--output_path", type=Path, required=True, help="folder for train.parquet and test.parquet")
args = parser.parse_args()

train = pd.read_csv(args.train) if args.train else run.input_datasets["train"].to_pandas_dataframe()
test = pd.read_csv(args.test) if args.test else run.input_datasets["test"].to_pandas_dataframe()

known = {name: pd.Index(sorted(train[name].unique())) for name in CATEGORIES}  # of the training part only
args.output_path.mkdir(parents=True, exist_ok=True)
for name, part in (("train", train), ("test", test)):
    prepared = prepare(part, known)
    prepared.to_parquet(args.output_path / f"{name}.parquet", index=False)
    run.log(f"{name}_rows", len(prepared), f"{len(part) - len(prepared)} flights never arrived")
