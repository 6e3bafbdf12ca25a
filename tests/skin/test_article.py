"""The article's snippets, joined into one DAG, run as they stand.

Changed against the article: the import lines, ``PythonScriptStep(name=`` and the ``Pipeline(...)`` line. The
values in the snippets (names of datastores, files, clusters) are, as the article says, the user's to replace.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from airflow_aml_data import Dataset, Datastore, Workspace
from tests.skin.conftest import FinishedRun

DAG_FILE = """
from airflow.sdk import DAG
from airflow_aml_data import DataPath, Dataset, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator
from airflow_aml_data import RunConfiguration, Workspace

cluster = compute = "local"
aml_run_config = RunConfiguration()
source_directory = "scripts"

with DAG("article"):
    ws = workspace = Workspace.from_config()

    datastore = Datastore.get(workspace, 'training_data')
    iris_dataset = Dataset.Tabular.from_delimited_files(DataPath(datastore, 'iris.csv'))
    animals = Dataset.File.from_files(
        path=[DataPath(datastore, 'animals/dog/1.jpg'),
              DataPath(datastore, 'animals/dog/2.jpg'),
              DataPath(datastore, 'animals/cat/*.jpg')]
    )

    seed = 42
    smaller_dataset = iris_dataset.take_sample(0.1, seed=seed) # 10%
    train, test = smaller_dataset.random_split(percentage=0.8, seed=seed)

    train_step = PythonScriptStepOperator(
        task_id="train_data",
        source_directory=source_directory,
        script_name="train.py",
        compute_target=cluster,
        inputs=[train.as_named_input('train'), test.as_named_input('test')]
    )

    animals_step = PythonScriptStepOperator(
        task_id="train_animals",
        source_directory=source_directory,
        script_name="train_folder.py",
        compute_target=cluster,
        arguments=['--training-folder', animals.as_named_input('train').as_download()],
        inputs=[animals.as_named_input('test').as_mount()]
    )

    dataprep_output = OutputFileDatasetConfig()
    input_dataset = Dataset.get_by_name(workspace, 'raw_data')

    dataprep_step = PythonScriptStepOperator(
        task_id="prep_data",
        source_directory=source_directory,
        script_name="dataprep.py",
        compute_target=cluster,
        arguments=[input_dataset.as_named_input('raw_data').as_mount(), dataprep_output]
    )

    # get adls gen 2 datastore already registered with the workspace
    datastore = workspace.datastores['my_adlsgen2']
    step1_output_data = OutputFileDatasetConfig(
        name="processed_data", destination=(datastore, "mypath/{run-id}/{output-name}")
    ).as_upload()
    step1_output_ds = step1_output_data.register_on_complete(
        name='processed_data', description='files from step1'
    )

    step2 = PythonScriptStepOperator(
        task_id="use_data",
        source_directory=source_directory,
        script_name="step2.py",
        compute_target=compute,
        runconfig=aml_run_config,
        arguments=["--pd", step1_output_data.as_input()]
    )
    step1 = PythonScriptStepOperator(
        task_id="generate_data",
        source_directory=source_directory,
        script_name="step1.py",
        compute_target=compute,
        runconfig=aml_run_config,
        arguments=["--output_path", step1_output_ds]
    )
"""

SCRIPTS = {
    "train.py": """
from azureml.core import Run, Dataset

run = Run.get_context()
training_dataset = run.input_datasets['train']
testing_dataset = run.input_datasets['test']
train, test = training_dataset.to_pandas_dataframe(), testing_dataset.to_pandas_dataframe()
run.log('train', len(train))
run.log('test', len(test))

ws = run.experiment.workspace
ds = Dataset.get_by_name(workspace=ws, name='raw_data')
run.log('raw', ds.to_path())
""",
    "train_folder.py": """
from azureml.core import Run
import argparse, os

parser = argparse.ArgumentParser()
parser.add_argument('--training-folder', type=str, dest='train_folder', help='training data folder mounting point')
args = parser.parse_args()
train_folder = args.train_folder

testing_data_path = Run.get_context().input_datasets['test']
for name, root in (('train', train_folder), ('test', testing_data_path)):
    found = sorted(os.path.relpath(os.path.join(d, f), root) for d, _, fs in os.walk(root) for f in fs)
    Run.get_context().log(name, found)
""",
    "dataprep.py": """
import os, shutil, sys
source, target = sys.argv[1:]
os.makedirs(target, exist_ok=True)
shutil.copytree(source, target, dirs_exist_ok=True)
""",
    "step1.py": """
from azureml.core import Run
import argparse, os

parser = argparse.ArgumentParser()
parser.add_argument('--output_path', dest='output_path', required=True)
args = parser.parse_args()

# Make directory for file
os.makedirs(os.path.dirname(args.output_path), exist_ok=True)
with open(args.output_path, 'w') as f:
    f.write("Step 1's output")
""",
    "step2.py": """
import argparse
from azureml.core import Run

parser = argparse.ArgumentParser()
parser.add_argument('--pd', dest='pd', required=True)
args = parser.parse_args()
with open(args.pd) as f:
    Run.get_context().log('read', f.read())
""",
}


def test_the_articles_snippets_run_as_one_dag(
    run_dag: Callable[..., FinishedRun], dags_folder: Path, workspace_connection: Workspace, tmp_path: Path
) -> None:
    (dags_folder / "scripts").mkdir()
    for name, text in SCRIPTS.items():
        (dags_folder / "scripts" / name).write_text(text)
    data = tmp_path / "data"
    for image in ("dog/1", "dog/2", "cat/a", "cat/b", "cat/old/c"):
        (data / "animals" / image).parent.mkdir(parents=True, exist_ok=True)
        (data / "animals" / f"{image}.jpg").write_text(image)
    (data / "iris.csv").write_text("length,species\n" + "".join(f"{i / 10},s{i % 3}\n" for i in range(1000)))
    Datastore.get(workspace_connection, "training_data").upload(data)
    raw = Dataset.File.from_files((Datastore.get(workspace_connection, "training_data"), "animals/dog"))
    raw.register(workspace_connection, "raw_data")

    finished = run_dag(DAG_FILE)

    assert finished.state == "success"
    trained = finished.xcom("train_data")
    assert trained["raw"] == ["/1.jpg", "/2.jpg"]
    assert 60 <= trained["train"] + trained["test"] <= 140
    assert trained["train"] > 2 * trained["test"] > 0
    listed = [f"{each}.jpg" for each in ("cat/a", "cat/b", "dog/1", "dog/2")]
    assert finished.xcom("train_animals") == {"train": listed, "test": listed}
    assert finished.xcom("use_data") == {"read": "Step 1's output"}
    prepared = finished.xcom("prep_data", "output_1")
    assert (prepared.datastore, prepared.to_path()) == ("training_data", ["/1.jpg", "/2.jpg"])
    processed = finished.xcom("generate_data", "processed_data")
    assert processed.datastore == "my_adlsgen2"
    assert processed.path.startswith("mypath/article.manual__")
    assert (processed.dataset, processed.dataset_version) == ("processed_data", 1)
    assert Dataset.get_by_name(workspace_connection, "processed_data").to_path() == ["/processed_data"]
