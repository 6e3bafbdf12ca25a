"""
### The same step many times

**What** `delays` runs once for each airport of New York, on the flights that left from there, and `compare`
reads what all of them wrote.

**Why** `.partial().expand()` is Airflow's way to run a task for each value of a list. Each run of the step has an
output of its own: `{run-id}` in a destination differs from run to run, so nothing is overwritten.

**When** One model for each country, one report for each customer, one folder of images after the other.

**Before** Run `aml_01_datasets`.

**Look at** the "Mapped tasks" of `delays`, and at the return value of `compare`.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

from airflow_aml_data import Dataset, OutputFileDatasetConfig, OutputReference, PythonScriptStepOperator, Workspace

SCRIPTS = "scripts/mapped_steps"

with DAG(
    "aml_08_mapped_steps",
    schedule=None,
    tags=["azureml", "example"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "late_minutes": Param(
            15, type="integer", minimum=0, maximum=240, description="From how many minutes on a flight counts as late."
        ),
        "compute_target": Param(
            "local",
            type="string",
            pattern="^[A-Za-z][A-Za-z0-9-]{2,23}$",
            description="Where the steps run: local, or a compute cluster of the Azure ML workspace.",
        ),
    },
):
    flights = Dataset.get_by_name(Workspace(), "flights")
    delays = OutputFileDatasetConfig("delays").as_upload()

    step = PythonScriptStepOperator.partial(
        task_id="delays",
        source_directory=SCRIPTS,
        script_name="delays.py",
        inputs=[flights.as_named_input("flights")],
    ).expand(
        arguments=[
            ["--late", "{{ params.late_minutes }}", "--origin", origin, "--delays", delays]
            for origin in ("EWR", "JFK", "LGA")
        ]
    )

    @task
    def compare(delays: list[OutputReference]) -> dict[str, float]:
        """Share of late flights of each airport."""
        tables = [each.to_pandas_dataframe() for each in delays]
        return {row["origin"]: row["late_share"] for table in tables for row in table.to_dict("records")}

    compare(step.output["delays"])
