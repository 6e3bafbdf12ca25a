"""What a step's log says before the script starts."""

from __future__ import annotations

from pathlib import Path

from airflow_aml_data import DataPath, Dataset, Datastore, OutputFileDatasetConfig
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.plan import StepDeclaration, plan_step
from airflow_aml_data.core.step import describe


def test_the_log_says_where_each_input_and_output_lies(datastore: Datastore, tmp_path: Path) -> None:
    workspace = datastore.workspace
    iris = Dataset.Tabular.from_delimited_files(DataPath(datastore, "iris.csv"))
    iris.register(workspace, "iris")
    images = Dataset.File.from_files([(datastore, "cats/*.jpg"), (datastore, "dog.jpg")])
    run = StepRun(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, unique="u")
    declared = StepDeclaration(
        run=run,
        command=[
            "python",
            "train.py",
            images.as_named_input("images").as_mount(),
            OutputFileDatasetConfig("model", (None, "m")).as_upload(),
        ],
        title="train.py",
        source_directory=tmp_path,
        inputs=[Dataset.get_by_name(workspace, "iris").as_named_input("iris")],
    )

    lines = describe(plan_step(workspace.connect(), declared))

    assert lines == [
        f"Step run {run.id}: train.py",
        "Reads 'iris' (direct): iris version 1, workspaceblobstore:iris.csv",
        "Reads 'images' (mount): workspaceblobstore:cats/*.jpg, workspaceblobstore:dog.jpg",
        "Writes 'model' (upload): workspaceblobstore:m",
    ]
