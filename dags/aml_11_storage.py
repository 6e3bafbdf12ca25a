"""
### Several stores in one DAG

**What** `clean` reads the flights from the default datastore and writes those that arrived, one file for each month, to
the datastore for intermediate data. `delays` reads them there and writes two results: one to the datastore for results,
one to the data lake.

**Why** Steps name datastores, never accounts, keys or addresses: those stand in Airflow connections. Whether a name means a
folder, a container of Azure Blob storage, a file system of Data Lake Gen2 or an Azure file share changes neither this file nor its
scripts. Both results appear together or not at all, though they lie in two accounts.

**When** Raw data lies in an account of its own, intermediate data shall stay on a cheap or near place, and others
read the results in theirs.

**Before** Run `aml_01_datasets`. As it is, all stores are the one the embedded workspace has. For several, declare them in the extra
of the connection `azureml_default`, and choose their names in the trigger form:

    {"datastores": {
        "workspaceblobstore": {"kind": "azure_blob", "container_name": "raw", "conn_id": "wasb_of_raw_data"},
        "scratch": {"kind": "local", "root": "/mnt/scratch"},
        "results": {"kind": "azure_blob", "container_name": "results", "conn_id": "wasb_of_results"},
        "lake": {"kind": "azure_data_lake_gen2", "filesystem": "lake", "conn_id": "adls_of_lake"}
    }}

`conn_id` names an Airflow connection of type `wasb`, `adls` or `azure_fileshare`. `airflow connections test azureml_default` says which
of them work.

**Look at** each task's log: the lines "Reads ..." and "Writes ..." name the datastores. The XComs `by_airline` and `by_airport` of
`delays` say where the results lie.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace

SCRIPTS = "scripts/storage"


def datastore_name(what_for: str) -> Param:
    """A field of the trigger form."""
    return Param(
        "workspaceblobstore", type="string", pattern="^[A-Za-z0-9_]+$", description=f"Datastore for {what_for}."
    )


with DAG(
    "aml_11_storage",
    schedule=None,
    tags=["azureml", "example"],
    doc_md=__doc__,
    default_args={"compute_target": "{{ params.compute_target }}"},
    params={
        "intermediate": datastore_name("what only the next step needs"),
        "results": datastore_name("the delays of each airline"),
        "lake": datastore_name("the delays of each airport"),
        "compute_target": Param(
            "local",
            type="string",
            pattern="^[A-Za-z][A-Za-z0-9-]{2,23}$",
            description="Where the steps run: local, or a compute cluster of the Azure ML workspace.",
        ),
    },
):
    workspace = Workspace()
    intermediate = Datastore.get(workspace, "{{ params.intermediate }}")
    results = Datastore.get(workspace, "{{ params.results }}")
    lake = Datastore.get(workspace, "{{ params.lake }}")
    flights = Dataset.File.from_files((workspace.get_default_datastore(), "examples/flights.csv"))
    clean_flights = OutputFileDatasetConfig("clean_flights", destination=(intermediate, "dataset/{run-id}")).as_upload()

    PythonScriptStepOperator(
        task_id="clean",
        source_directory=SCRIPTS,
        script_name="clean.py",
        arguments=["--flights", flights.as_named_input("flights").as_download(), "--clean", clean_flights],
    )
    PythonScriptStepOperator(
        task_id="delays",
        source_directory=SCRIPTS,
        script_name="delays.py",
        arguments=[
            "--flights",
            clean_flights.as_input("clean"),
            "--by_airline",
            OutputFileDatasetConfig("by_airline", destination=(results, "delays/{run-id}/airlines")).as_upload(),
            "--by_airport",
            OutputFileDatasetConfig("by_airport", destination=(lake, "delays/{run-id}/airports")).as_upload(),
        ],
    )
