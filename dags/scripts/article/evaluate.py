"""Compare a model of arrival delays with three simple guesses, on flights it has not seen.

By hand, on the folders that ``prepare.py`` and ``train.py`` wrote::

    python evaluate.py --pd folder --model other_folder --report third_folder
"""

import argparse
from pathlib import Path

import joblib
import pandas as pd
from azureml.core import Run

run = Run.get_context()

parser = argparse.ArgumentParser(description="Compare a model with three simple guesses.")
parser.add_argument(
    "--pd", dest="prepared", type=Path, required=True, help="folder with train.parquet and test.parquet"
)
parser.add_argument("--model", type=Path, required=True, help="model.joblib, or the folder with it")
parser.add_argument("--report", type=Path, required=True, help="folder for report.csv")
args = parser.parse_args()

train = pd.read_parquet(args.prepared / "train.parquet")
test = pd.read_parquet(args.prepared / "test.parquet")
model = joblib.load(args.model / "model.joblib" if args.model.is_dir() else args.model)

actual = test["arr_delay"]
usual_gain = (train["dep_delay"] - train["arr_delay"]).median()  # what flights make up in the air
guesses = {
    "model": model.predict(test.drop(columns="arr_delay")),
    "as late as it left, less the usual gain": test["dep_delay"] - usual_gain,
    "as late as it left": test["dep_delay"],
    "as late as the median flight": train["arr_delay"].median(),
}
errors = {name: float((guess - actual).abs().mean()) for name, guess in guesses.items()}

args.report.mkdir(parents=True, exist_ok=True)
report = pd.DataFrame({"guess": errors.keys(), "mean_absolute_error": errors.values()})
report.round(2).to_csv(args.report / "report.csv", index=False)
run.log("flights", len(test))
run.log("mean_absolute_error", round(errors["model"], 2), "minutes")
run.log("mean_absolute_error_less_usual_gain", round(errors["as late as it left, less the usual gain"], 2), "minutes")
run.log("mean_absolute_error_as_late_as_it_left", round(errors["as late as it left"], 2), "minutes")
run.log("mean_absolute_error_median_flight", round(errors["as late as the median flight"], 2), "minutes")
