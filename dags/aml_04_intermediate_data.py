"""
### Data from step to step

**What** `clean` writes the flights of each month to a folder, `by_airline` and `by_airport` read that folder at the
same time, and `merge` reads what both wrote.

**Why** Each step declares what it writes (`OutputFileDatasetConfig`) and what it reads (`.as_input()`). The order
follows: `merge` stands first in this file and runs last. No `>>` is needed.

| output | way | use it when |
|---|---|---|
| `clean_flights` | `as_mount()`: each file is stored when it is closed | files are large, or are wanted while the step runs |
| `delays` | `as_upload()`: all files are stored when the script has succeeded | a failed step shall leave nothing behind |

The destination says where: `{run-id}` gives every try of every step a folder of its own, `{output-name}` is the
name of the output. Without a destination it is `dataset/{run-id}/{output-name}` on the default datastore.

**Before** Run `aml_01_datasets`.

**Look at** the graph, and at the XComs of `clean`: `clean_flights` says where the data lies, how many files and bytes.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_aml_data import Dataset, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace

SCRIPTS = "scripts/intermediate_data"

with DAG(
    "aml_04_intermediate_data",
    schedule=None,
    tags=["azureml", "example"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "worst": Param(5, type="integer", minimum=1, maximum=50, description="How many airlines and airports to list."),
        "compute_target": Param(
            "local",
            type="string",
            pattern="^[A-Za-z][A-Za-z0-9-]{2,23}$",
            description="Where the steps run: local, or a compute cluster of the Azure ML workspace.",
        ),
    },
):
    workspace = Workspace()
    datastore = workspace.get_default_datastore()
    flights = Dataset.get_by_name(workspace, "flights")

    place = (datastore, "examples/{run-id}/{output-name}")
    clean_flights = OutputFileDatasetConfig("clean_flights", destination=place).as_mount()
    airline_delays = OutputFileDatasetConfig("delays", destination=place).as_upload()
    airport_delays = OutputFileDatasetConfig("delays", destination=place).as_upload()

    PythonScriptStepOperator(
        task_id="merge",
        source_directory=SCRIPTS,
        script_name="merge.py",
        arguments=[
            "--worst",
            "{{ params.worst }}",
            "--report",
            OutputFileDatasetConfig("report", destination=place).as_upload(),
            airline_delays.as_input("airlines"),
            airport_delays.as_input("airports").as_download(),
        ],
    )
    for task_id, column, delays in (
        ("by_airline", "carrier", airline_delays),
        ("by_airport", "dest", airport_delays),
    ):
        PythonScriptStepOperator(
            task_id=task_id,
            source_directory=SCRIPTS,
            script_name="delays.py",
            arguments=["--flights", clean_flights.as_input("flights"), "--by", column, "--delays", delays],
        )
    PythonScriptStepOperator(
        task_id="clean",
        source_directory=SCRIPTS,
        script_name="clean.py",
        arguments=["--clean", clean_flights],
        inputs=[flights.as_named_input("flights")],
    )
