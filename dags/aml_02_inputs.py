"""
### Datasets as inputs: direct, mount, download

**What** Three steps read registered datasets in the three ways there are.

| step | way | the script gets | choose it when |
|---|---|---|---|
| `describe_iris` | direct | the dataset, `.to_pandas_dataframe()` | the data is a table |
| `measure_images` | `as_mount()` | a folder; files are fetched as they are read | the script reads a part of the data |
| `archive_images` | `as_download()` | a folder with copies of all files | the script reads everything, or reads it twice |

**Why** The script names no datastore and holds no credentials. It finds a path among its arguments
(`measure_images`), or asks its run by name: `Run.get_context().input_datasets["iris"]`.

**Before** Run `aml_01_datasets`.

**Look at** each task's log: the lines "Reads ..." say what it reads, how, and where that lies. Its XCom `return_value` holds
what the script logged.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_aml_data import Dataset, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace

with DAG(
    "aml_02_inputs",
    schedule=None,
    tags=["azureml", "example"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "digits": Param(2, type="integer", minimum=0, maximum=6, description="Digits the means are rounded to."),
        "compute_target": Param(
            "local",
            type="string",
            pattern="^[A-Za-z][A-Za-z0-9-]{2,23}$",
            description="Where the steps run: local, or a compute cluster of the Azure ML workspace.",
        ),
    },
):
    workspace = Workspace()
    iris = Dataset.get_by_name(workspace, "iris")
    images = Dataset.get_by_name(workspace, "sample_images")

    PythonScriptStepOperator(
        task_id="describe_iris",
        source_directory="scripts/inputs",
        script_name="describe.py",
        arguments=["--digits", "{{ params.digits }}"],
        inputs=[iris.as_named_input("iris")],
    )

    PythonScriptStepOperator(
        task_id="measure_images",
        source_directory="scripts/inputs",
        script_name="measure.py",
        arguments=["--images", images.as_named_input("images").as_mount()],
    )

    PythonScriptStepOperator(
        task_id="archive_images",
        source_directory="scripts/inputs",
        script_name="archive.py",
        arguments=[
            "--folder",
            images.as_named_input("images").as_download(),
            "--archive",
            OutputFileDatasetConfig("archive").as_upload(),
        ],
    )
