"""G08 to G23: where outputs go, and what becomes of them (semantics, section 10; the article)."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest
from airflow.sdk import DAG

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace
from airflow_aml_data.core.compute.local import LocalCompute
from airflow_aml_data.errors import (
    InvalidDeclaration,
    InvalidPath,
    OutputConflict,
    OutputInUse,
    StepFailed,
    UnsupportedDatastore,
)
from tests.core.steps import WRITE

STORE = Datastore(Workspace(), "workspaceblobstore")
FIXED = OutputFileDatasetConfig("out", destination=(STORE, "fixed/place")).as_upload()


def run_of(reference) -> str:
    """What ``{run-id}`` stood for in the path ``.../{run-id}/{output-name}``."""
    return reference.path.split("/")[-2]


def test_g08_an_output_goes_to_the_default_datastore_below_its_run_and_name(steps):
    output = OutputFileDatasetConfig()
    assert (output.mode, output.destination) == ("mount", None)

    made = steps.write(output=output)

    assert made.datastore == steps.workspace.get_default_datastore().name
    assert made.path == f"dataset/{steps.declare('').run.id}/output_1"
    assert steps.stored() == {f"{made.path}/a.txt": "new a.txt"}


def test_g09_as_upload_returns_a_copy_of_the_same_output():
    output = OutputFileDatasetConfig("o")

    uploaded = output.as_upload()
    with DAG("golden"):
        PythonScriptStepOperator(task_id="writer", script_name="s.py", arguments=[uploaded])
        reader = PythonScriptStepOperator(task_id="reader", script_name="s.py", arguments=[output.as_input()])

    assert uploaded is not output
    assert (output.mode, uploaded.mode, uploaded.name) == ("mount", "upload", "o")
    assert reader.upstream_task_ids == {"writer"}


def test_g10_as_upload_takes_overwrite_and_source_globs():
    uploaded = OutputFileDatasetConfig("o").as_upload(True, "*.csv")

    assert uploaded.overwrite is True
    assert [*uploaded.source_globs] == ["*.csv"]


def test_g11_both_placeholders_of_a_destination_are_replaced_when_the_step_runs(steps):
    made = steps.write(output=OutputFileDatasetConfig("out", destination=(STORE, "mypath/{run-id}/{output-name}")))

    assert made.path == f"mypath/{steps.declare('').run.id}/out"
    assert steps.stored() == {f"{made.path}/a.txt": "new a.txt"}


def test_g12_without_run_id_all_runs_share_a_folder_and_with_it_each_has_its_own(steps):
    own = OutputFileDatasetConfig("out", destination=(STORE, "own/{run-id}")).as_upload()

    first, second = (steps.write(output=own, run_id=run_id) for run_id in ("r1", "r2"))
    shared = [steps.write(name, output=FIXED, run_id=run_id) for run_id, name in (("r3", "a.txt"), ("r4", "b.txt"))]

    assert first.path != second.path
    assert {each.path for each in shared} == {"fixed/place"}
    with pytest.raises(OutputConflict, match=r"a\.txt"):
        steps.write("a.txt", output=FIXED, run_id="r5")


def test_g13_an_unknown_placeholder_is_refused_when_it_is_declared_unlike_in_v1(refusal):
    with pytest.raises(InvalidPath, match=r"unknown placeholder \{foo\}.*\{run-id\}, \{output-name\}"):
        OutputFileDatasetConfig("o", destination=(STORE, "x/{foo}"))
    assert "unknown placeholder {foo}" in refusal("OutputFileDatasetConfig(destination=(store, 'x/{foo}'))")


@pytest.mark.parametrize("destination", [STORE, "workspaceblobstore", (STORE, "x", "y")])
def test_g14_a_destination_of_another_form_is_refused_when_it_is_declared_unlike_in_v1(destination):
    with pytest.raises(InvalidDeclaration) as refused:
        OutputFileDatasetConfig("o", destination=destination)

    assert f"is (datastore or its name, path), found {destination!r}." in str(refused.value)


def test_g15_upload_onto_an_existing_file_is_an_error_and_changes_nothing(steps, put):
    put({"fixed/place/a.txt": "old"})

    with pytest.raises(OutputConflict, match=r"a\.txt"):
        steps.write("a.txt", "b.txt", output=FIXED)

    assert steps.stored() == {"fixed/place/a.txt": "old"}


def test_g16_upload_beside_other_files_keeps_them(steps, put):
    put({"fixed/place/other.txt": "old"})

    steps.write("a.txt", output=FIXED)

    assert steps.stored() == {"fixed/place/a.txt": "new a.txt", "fixed/place/other.txt": "old"}


class CancelAtFirstLine(LocalCompute):
    """A worker whose task is cancelled as soon as its script has said something."""

    def run(self, command, on_line):
        return super().run(command, on_line=lambda line: self.stop())


@pytest.mark.parametrize(
    ("ending", "compute", "said"),
    [
        ("sys.exit(3)", None, "exit code 3"),
        ("print('now', flush=True); import time; time.sleep(60)", CancelAtFirstLine(1), "signal"),
    ],
    ids=["fails", "is cancelled"],
)
def test_g17_upload_of_a_task_that_fails_or_is_cancelled_stores_and_registers_nothing(steps, ending, compute, said):
    output = FIXED.register_on_complete("processed")

    with pytest.raises(StepFailed, match=said):
        steps.run(f"{WRITE}\n    {ending}", arguments=[output], compute=compute)

    assert steps.stored() == {}
    assert [*steps.workspace.datasets] == []


def test_g18_a_file_closed_in_a_mounted_output_is_stored_although_the_task_fails(steps):
    output = OutputFileDatasetConfig("out", destination=(STORE, "fixed/place")).register_on_complete("processed")

    with pytest.raises(StepFailed, match="exit code 3"):
        steps.run(f"{WRITE}\n    sys.exit(3)", arguments=[output, "f1"])

    assert steps.stored() == {"fixed/place/f1": "new f1"}
    assert [*steps.workspace.datasets] == []


def test_g19_the_script_finds_the_local_path_in_arguments_environment_and_run(steps):
    script = """
        import argparse, json, os
        from azureml.core import Run
        parser = argparse.ArgumentParser()
        parser.add_argument("--output_path", required=True)
        args = parser.parse_args()
        print(json.dumps([args.output_path, os.environ["processed"], Run.get_context().output_datasets["processed"]]))
        os.makedirs(os.path.dirname(args.output_path), exist_ok=True)
        open(os.path.join(args.output_path, "f"), "w").close()
    """

    made = steps.run(script, arguments=["--output_path", OutputFileDatasetConfig("processed")])

    argument, variable, of_run = json.loads(steps.lines[0])
    assert argument == variable == of_run
    assert made.outputs[0].to_path() == ["/f"]


def test_g20_source_names_the_folder_that_is_published(steps, tmp_path):
    mine = tmp_path / "data" / "mine"
    script = "import os, sys; os.makedirs(sys.argv[1]); open(sys.argv[1] + '/a.txt', 'w').write('mine')"

    made = steps.run(script, arguments=[str(mine)], outputs=[OutputFileDatasetConfig("out", source=str(mine))])

    assert steps.stored() == {f"{made.outputs[0].path}/a.txt": "mine"}


@pytest.mark.parametrize("copy", ["a", "a.as_upload()", "a.register_on_complete('n')"])
def test_g21_an_output_of_two_steps_is_refused_when_the_dag_is_built(copy, refusal):
    said = refusal("step('a', arguments=[a])", f"step('b', arguments=[{copy}])")

    assert "Step output a can not be used as an output for step b, as it is already an output of step a." in said


def write_to(kind: str, steps, monkeypatch) -> str:
    """Why a step may not write to a datastore of that kind; nothing has run then."""
    stores = {"blobs": {"kind": "local", "root": str(steps.root)}, "other": {"kind": kind}}
    extra = {"conn_type": "azureml", "extra": {"datastores": stores}}
    monkeypatch.setenv("AIRFLOW_CONN_AZUREML_DEFAULT", json.dumps(extra))
    output = OutputFileDatasetConfig("out", destination=(steps.workspace.datastores["other"], "p"))
    with pytest.raises(UnsupportedDatastore, match=f"Datastore 'other' is of kind '{kind}'") as refused:
        steps.run("print('ran')", arguments=[output])
    assert steps.lines == []
    return str(refused.value)


@pytest.mark.parametrize("kind", ["AzureSqlDatabase", "AzurePostgreSql", "AzureMySql", "DBFS"])
def test_g22_an_output_to_a_database_or_dbfs_is_refused(kind, steps, monkeypatch):
    assert "which this release does not offer. Kinds: " in write_to(kind, steps, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "option"),
    [("azure_blob", "container_name"), ("azure_data_lake_gen2", "filesystem"), ("azure_file", "file_share_name")],
)
def test_g22_an_output_to_azures_stores_of_files_is_allowed(kind, option, steps, azurite, azure_files, monkeypatch):
    name = f"g22{kind.replace('_', '')}"
    azurite.create_container(name)
    azure_files.create_share(name)
    files = {"conn_type": "azure_fileshare", "login": azure_files.account_url(), "password": azure_files.keys["first"]}
    blobs = {"conn_type": "wasb", "extra": {"connection_string": azurite.connection_string()}}
    store = {"kind": kind, option: name, "conn_id": "account"}
    workspace = {"conn_type": "azureml", "extra": {"datastores": {"store": store}}}
    monkeypatch.setenv("AIRFLOW_CONN_AZUREML_DEFAULT", json.dumps(workspace))
    monkeypatch.setenv("AIRFLOW_CONN_ACCOUNT", json.dumps(files if kind == "azure_file" else blobs))

    for output in (OutputFileDatasetConfig("out").as_upload(), OutputFileDatasetConfig("out")):
        made = steps.write("a.txt", output=output, task_id=output.mode)
        assert steps.connected.storage("store").read_bytes(f"{made.path}/a.txt") == b"new a.txt"


def test_g22_data_lake_gen1_is_refused_because_it_was_retired(steps, monkeypatch):
    assert "was retired on 29 February 2024" in write_to("AzureDataLake", steps, monkeypatch)


def test_g23_a_second_writer_at_the_same_time_is_refused_before_its_script_starts(steps):
    refused = []

    def start_another(line: str) -> None:
        with pytest.raises(OutputInUse, match="first") as error:
            steps.write("b.txt", output=FIXED, task_id="second")
        refused.append(error)

    script = "print('now', flush=True)" + dedent(WRITE)
    steps.run(script, arguments=[FIXED], task_id="first", on_line=start_another)

    assert len(refused) == 1
    assert steps.stored() == {"fixed/place/a.txt": "new a.txt"}
    assert Dataset.File.from_files((STORE, "fixed/place")).to_path() == ["/a.txt"]
