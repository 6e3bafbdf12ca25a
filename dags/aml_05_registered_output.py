"""
### Register an output, read it by version

**What** `publish` writes one month's delays and registers them as a new version of the dataset `monthly_delays`.
`use` reads that dataset by its name, in the version you choose.

**Why** `register_on_complete` turns the output of a step into a dataset that other DAGs find by name. A version is
added only when the step has succeeded, and it never changes afterwards.

**When** For results that outlive the run. Data that only the next step needs: hand it on, as in
`aml_04_intermediate_data`.

**Before** Run `aml_01_datasets`.

**Try** Run it for month 1, then for month 7, then for month 12 with version 2: `use` reads July again.

**Look at** the XCom `monthly_delays` of `publish` (dataset and version) and the `return_value` of `use`.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_aml_data import Dataset, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace

with DAG(
    "aml_05_registered_output",
    schedule=None,
    tags=["azureml", "example"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "month": Param(1, type="integer", minimum=1, maximum=12, description="Month of 2013 to publish."),
        "version": Param(
            "latest",
            type="string",
            pattern="^(latest|[1-9][0-9]*)$",
            description='Version to read: "latest" or a number.',
        ),
        "compute_target": Param(
            "local",
            type="string",
            pattern="^[A-Za-z][A-Za-z0-9-]{2,23}$",
            description="Where the steps run: local, or a compute cluster of the Azure ML workspace.",
        ),
    },
):
    workspace = Workspace()
    flights = Dataset.get_by_name(workspace, "flights")
    delays = (
        OutputFileDatasetConfig("monthly_delays")
        .as_upload()
        .register_on_complete("monthly_delays", description="Mean arrival delay of each day of a month")
    )
    published = Dataset.get_by_name(workspace, "monthly_delays", version="{{ params.version }}")

    publish = PythonScriptStepOperator(
        task_id="publish",
        source_directory="scripts/registered_output",
        script_name="publish.py",
        arguments=["--month", "{{ params.month }}", "--delays", delays],
        inputs=[flights.as_named_input("flights")],
    )
    use = PythonScriptStepOperator(
        task_id="use",
        source_directory="scripts/registered_output",
        script_name="use.py",
        arguments=["--delays", published.as_named_input("delays").as_mount()],
    )
    publish >> use  # a name is not a data edge: any DAG may register it
