"""
### Outputs in TaskFlow tasks

**What** A step writes `processed`; three `@task` functions get it as an argument and list its files, download
them, and read them as a DataFrame.

**Why** `step.output["processed"]` is a reference: a few hundred bytes in XCom that say where the data lies. The
bytes stay on the datastore until a task asks for them, so any TaskFlow task or operator can use them.

**When** For the Airflow side of a pipeline: notify somebody, decide on a branch, load a table into a database.

**Before** Run `aml_01_datasets`.

**Look at** the XCom `processed` of `prepare`, and the return values of the other tasks.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from airflow.sdk import DAG, Param, task

from airflow_aml_data import Dataset, OutputFileDatasetConfig, OutputReference, PythonScriptStepOperator, Workspace

with DAG(
    "aml_06_taskflow",
    schedule=None,
    tags=["azureml", "example"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "species": Param(
            "virginica", type="string", enum=["setosa", "versicolor", "virginica"], description="Flowers to keep."
        ),
        "compute_target": Param(
            "local",
            type="string",
            pattern="^[A-Za-z][A-Za-z0-9-]{2,23}$",
            description="Where the steps run: local, or a compute cluster of the Azure ML workspace.",
        ),
    },
):
    iris = Dataset.get_by_name(Workspace(), "iris")

    prepare = PythonScriptStepOperator(
        task_id="prepare",
        source_directory="scripts/taskflow",
        script_name="prepare.py",
        arguments=[
            "--species",
            "{{ params.species }}",
            "--processed",
            OutputFileDatasetConfig("processed").as_upload(),
        ],
        inputs=[iris.as_named_input("iris")],
    )

    @task
    def list_files(processed: OutputReference) -> list[str]:
        """What the output holds, without moving it."""
        return processed.to_path()

    @task
    def count_lines(processed: OutputReference) -> dict[str, int]:
        """Copy the files here and open them as any others."""
        with TemporaryDirectory() as folder:
            files = [Path(each) for each in processed.download(folder)]
            return {file.name: len(file.read_text().splitlines()) for file in files}

    @task
    def average(processed: OutputReference) -> dict[str, float]:
        """All of its files as one table."""
        flowers = processed.to_pandas_dataframe()
        return {str(name): round(float(value), 2) for name, value in flowers.mean(numeric_only=True).items()}

    processed = prepare.output["processed"]
    list_files(processed)
    count_lines(processed)
    average(processed)
