"""
### A command instead of a script

**What** `select` runs `awk` once for each airport of New York, and `count` pipes the lengths of all the files it wrote
into a script that logs them.

**Why** A v1 `CommandStep` runs any program of the worker: `awk`, a compiled trainer, `papermill`, several of them in
a pipe. Inputs and outputs stand in the command where their paths shall be, or are named beside it and read as `$name`.

| in the command | becomes |
|---|---|
| text | itself, for the shell to read: pipes, `$variables`, quotes |
| an input or an output | its local path, quoted |
| `$name` in text | the local path of the input or output of that name |
| `$AML_PARAMETER_name` in text | the step's parameter |

What somebody types into the trigger form goes into `params`, never into the text: the shell would run it.

`select` is a mapped step, and `selected.as_input()` is what all of its tasks wrote: a folder for each, in their order.

**Before** Run `aml_01_datasets`.

**Look at** the log of `count`, and its return value.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_aml_data import CommandStepOperator, Dataset, OutputFileDatasetConfig, Workspace

AIRPORTS = ["EWR", "JFK", "LGA"]

with DAG(
    "aml_09_command_step",
    schedule=None,
    tags=["azureml", "example"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "airline": Param("UA", type="string", pattern="^[A-Z0-9]{2}$", description="Two-letter code of an airline."),
        "compute_target": Param(
            "local",
            type="string",
            pattern="^[A-Za-z][A-Za-z0-9-]{2,23}$",
            description="Where the steps run: local, or a compute cluster of the Azure ML workspace.",
        ),
    },
):
    datastore = Workspace().get_default_datastore()
    flights = Dataset.File.from_files((datastore, "examples/flights.csv")).as_named_input("flights").as_mount()
    selected = OutputFileDatasetConfig("selected").as_upload()

    CommandStepOperator(
        task_id="count",
        source_directory="scripts/command_step",
        inputs=[selected.as_input("all")],
        command=["wc -l $all/*/flights.csv | python log_counts.py", *AIRPORTS],
    )
    CommandStepOperator.partial(
        task_id="select", outputs=[selected], params={"airline": "{{ params.airline }}"}
    ).expand(
        command=[
            [
                f"awk -F, -v airport={airport} -v airline=$AML_PARAMETER_airline",
                "'NR == 1 || ($10 == airline && $13 == airport)'",
                flights,
                "> $selected/flights.csv",
            ]
            for airport in AIRPORTS
        ]
    )
