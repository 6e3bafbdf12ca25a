"""Train gradient boosted trees that predict a flight's arrival delay.

By hand, on the folder that ``prepare.py`` wrote::

    python train.py --pd folder --model other_folder
"""

import argparse
from pathlib import Path

import joblib
import pandas as pd
from azureml.core import Run
from sklearn.ensemble import HistGradientBoostingRegressor

run = Run.get_context()

parser = argparse.ArgumentParser(description="Train a model of arrival delays.")
parser.add_argument("--pd", dest="prepared", type=Path, required=True, help="folder with train.parquet")
parser.add_argument("--trees", type=int, default=100, help="how many trees at most")
parser.add_argument("--model", type=Path, required=True, help="folder for model.joblib")
args = parser.parse_args()

train = pd.read_parquet(args.prepared / "train.parquet")
model = HistGradientBoostingRegressor(
    loss="absolute_error",  # what the model is judged by
    categorical_features="from_dtype",
    max_iter=args.trees,
    random_state=0,
)
model.fit(train.drop(columns="arr_delay"), train["arr_delay"])

args.model.mkdir(parents=True, exist_ok=True)
joblib.dump(model, args.model / "model.joblib")
run.log("rows", len(train))
run.log("trees", model.n_iter_)
