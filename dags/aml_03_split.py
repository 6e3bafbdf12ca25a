"""
### Sample and split

**What** Takes a random share of `iris`, splits it into a part to train with and a part to test with, and gives
both to one step under the names `train` and `test`.

**Why** No part is written anywhere: a split is a description, and the step reads the rows it stands for. The
parts have no row in common and together hold the whole sample. The same seed gives the same rows, in every run
and every process. Without a seed (empty the field) each run draws its own.

**When** To try a pipeline on a tenth of the data, and to hold data back for testing.

**Before** Run `aml_01_datasets`.

**Look at** "Trigger": the form checks the bounds. Then at the XCom `return_value` of `train`: how many rows each
part got, and the accuracy on the rows that were held back.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_aml_data import Dataset, PythonScriptStepOperator, RunConfiguration, Workspace

ENVIRONMENT = RunConfiguration(  # of jobs; on the worker, steps have its own packages
    conda={"dependencies": ["python=3.11", "pip", {"pip": ["pandas", "pyarrow", "scikit-learn"]}]}
)

with DAG(
    "aml_03_split",
    schedule=None,
    tags=["azureml", "example"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "sample_share": Param(
            0.9, type="number", minimum=0.3, maximum=1.0, description="Share of the rows to work with."
        ),
        "train_share": Param(
            0.8, type="number", minimum=0.5, maximum=0.9, description="Share of the sample to train with."
        ),
        "seed": Param(
            42, type=["null", "integer"], minimum=0, description="The same seed gives the same rows; empty: drawn."
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
    sample = iris.take_sample("{{ params.sample_share }}", seed="{{ params.seed }}")
    train, test = sample.random_split(percentage="{{ params.train_share }}", seed="{{ params.seed }}")

    PythonScriptStepOperator(
        task_id="train",
        source_directory="scripts/split",
        runconfig=ENVIRONMENT,
        script_name="train.py",
        inputs=[train.as_named_input("train"), test.as_named_input("test")],
    )
