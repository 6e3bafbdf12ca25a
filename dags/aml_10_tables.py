"""
### Rows, columns and tables between steps

**What** `clean` gets the flights of one airport in winter, only the columns it needs, and writes Parquet files. `compare`
gets these files as two tables, a random split of what `clean` wrote, and tells how late flights are in each.

**Why** `filter`, `keep_columns` and `random_split` describe data and read nothing: a step reads only the rows it asked for.
What a step writes can be read as a table by the next, without a path in either script.

**When** A step needs a part of a large table; two steps train and test on parts of what a third has prepared.

**Before** Run `aml_01_datasets`.

**Look at** the return value of `compare`: both parts hold about the same share of late flights.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_aml_data import Dataset, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace

with DAG(
    "aml_10_tables",
    schedule=None,
    tags=["azureml", "example"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "rows": Param(10_000, type="integer", minimum=100, description="How many of the rows to work with, at most."),
        "compute_target": Param(
            "local",
            type="string",
            pattern="^[A-Za-z][A-Za-z0-9-]{2,23}$",
            description="Where the steps run: local, or a compute cluster of the Azure ML workspace.",
        ),
    },
):
    flights = Dataset.get_by_name(Workspace(), "flights")
    winter = (flights["origin"] == "JFK") & ((flights["month"] <= 2) | (flights["month"] == 12))
    chosen = flights.filter(winter).keep_columns(["carrier", "dep_delay"]).take("{{ params.rows }}")

    clean = OutputFileDatasetConfig("clean").as_upload().read_parquet_files()
    first, second = clean.drop_columns("carrier").random_split(0.5, seed=42)

    PythonScriptStepOperator(
        task_id="clean",
        source_directory="scripts/tables",
        script_name="clean.py",
        arguments=["--clean", clean],
        inputs=[chosen.as_named_input("flights")],
    )
    PythonScriptStepOperator(
        task_id="compare",
        source_directory="scripts/tables",
        script_name="compare.py",
        inputs=[first.as_input("first"), second.as_input("second")],
    )
