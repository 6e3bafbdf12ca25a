"""What a script finds: ``Run``, ``azureml.core``, and an output it may make a file."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from airflow_aml_data import Dataset, Run
from airflow_aml_data.core.manifest import Manifest
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.protocol import RUN_FILE_VARIABLE, RunFile
from airflow_aml_data.errors import (
    FilesNotFound,
    NotOffered,
    OfflineRun,
    RunCanceled,
    StepFailed,
    UserError,
)
from airflow_aml_data.run import RunEnvironmentException
from tests.core.steps import nothing_published

OUT = OutputFileDatasetConfig("out").as_upload()


class TestOffline:
    def test_a_run_by_hand_has_an_id_and_no_data(self, capsys):
        run = Run.get_context()
        assert run.id.startswith("OfflineRun")
        for name in ("input_datasets", "output_datasets", "experiment"):
            with pytest.raises(AttributeError, match="only inside a pipeline step"):
                getattr(run, name)
        run.log("accuracy", 0.5)
        assert "accuracy = 0.5" in capsys.readouterr().out

    def test_it_can_be_refused(self):
        with pytest.raises(RunEnvironmentException, match="allow_offline=False"):
            Run.get_context(allow_offline=False)
        assert issubclass(RunEnvironmentException, OfflineRun)


def test_a_script_finds_its_identity_inputs_and_outputs(steps, put):
    """G19, G32."""
    put({"data/1": "one"})
    data = Dataset.File.from_files((steps.workspace.get_default_datastore(), "data"))
    script = """
        import os, sys
        from azureml.core import Run, Workspace, Datastore, Dataset
        run = Run.get_context(allow_offline=False)
        ws = run.experiment.workspace
        print(run.id, run.experiment.name, ws.get_default_datastore().name)
        assert run.input_datasets["raw"] == os.environ["raw"] == os.environ["AZURE_ML_INPUT_raw"] == sys.argv[1]
        assert os.environ["AZUREML_DATAREFERENCE_raw"] == sys.argv[1]
        assert run.output_datasets["out"] == os.environ["out"] == os.environ["AZURE_ML_OUTPUT_out"] == sys.argv[2]
        assert run.input_datasets["direct"].to_path() == ["/1"]
        assert os.environ["direct"] == sys.argv[3]
        assert os.environ["AZUREML_DATASET_ENVIRONMENT_VARS"] == "raw:mount,direct:direct"
        assert os.environ["AZUREML_DATASET_FILE_OUTPUTS"] == "out"
        assert sorted(run.input_datasets) == ["direct", "raw"]
        try:
            run.input_datasets["rwa"]
        except KeyError as error:
            assert "no input named 'rwa'; it has: raw, direct" in str(error)
        open(sys.argv[2], "w").write("x")
    """
    steps.run(script, arguments=[data.as_named_input("raw").as_mount(), OUT, data.as_named_input("direct")])

    assert steps.lines == [f"{steps.declare('').run.id} dag workspaceblobstore"]


def test_importing_run_loads_standard_library_modules_only():
    code = (
        "import sys; before = set(sys.modules); import airflow_aml_data.run\n"
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["airflow_aml_data"]


def test_a_script_in_another_environment_needs_none_of_our_dependencies(steps, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    script = """
        import sys
        from azureml.core import Run
        run = Run.get_context()
        run.log("x", 1)
        open(run.output_datasets["out"] + "/f", "w").write("x")
        try:
            import pandas
        except ImportError:
            print("no pandas here")
    """
    python = str(tmp_path / "venv" / "bin" / "python")
    result = steps.run(script, arguments=[OUT], interpreter=python)
    assert steps.lines == ["metric x = 1", "no pandas here"]
    assert result.metrics == {"x": 1}


def test_an_interpreters_own_sitecustomize_still_runs(steps, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    packages = next((tmp_path / "venv").glob("lib/python3*/site-packages"))
    (packages / "sitecustomize.py").write_text("import builtins; builtins.own_was_here = __file__")

    steps.run("print(own_was_here)", interpreter=str(tmp_path / "venv" / "bin" / "python"))

    assert steps.lines == [str(packages / "sitecustomize.py")]


@pytest.mark.parametrize(
    ("script", "files"),
    [
        ("open(out, 'w').write('x')", [""]),
        ("import pathlib; pathlib.Path(out).write_text('x')", [""]),
        ("import os; os.write(os.open(out, os.O_WRONLY | os.O_CREAT), b'x')", [""]),
        ("open(out + '/f', 'w').write('x')", ["f"]),
        ("open(out + '/f', 'w').write('x')\ntry: open(out, 'w')\nexcept IsADirectoryError: pass", ["f"]),
        ("\ntry: open(out)\nexcept IsADirectoryError: open(out + '/f', 'w').write('x')", ["f"]),
        (
            "import subprocess; subprocess.run([sys.executable, '-c', 'import sys; open(sys.argv[1], \"w\").write(\"x\")', out])",
            [""],
        ),
    ],
)
def test_an_output_may_be_opened_as_a_file_or_used_as_a_folder(steps, script, files):
    made = steps.run(f"import sys; out = sys.argv[1]; {script}", arguments=[OUT]).outputs[0]
    manifest = Manifest.from_bytes((steps.root / made.manifest).read_bytes())
    assert [each.path for each in manifest.entries] == files


def test_a_run_file_is_private_and_of_a_known_version(tmp_path):
    file = RunFile(id="i", dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, conn_id="c", workspace={})
    path = tmp_path / "run.json"
    file.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert RunFile.current({RUN_FILE_VARIABLE: str(path)}) == file
    assert RunFile.current({}) is None
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(RuntimeError, match="different release"):
        RunFile.current({RUN_FILE_VARIABLE: str(path)})
    with pytest.raises(FileExistsError):
        file.write(path)


def test_the_run_file_is_gone_after_the_step(steps):
    steps.run("import os; print(os.environ['AML_DATA_RUN_FILE'])")
    assert not Path(steps.lines[0]).exists()


def test_a_script_asks_its_run_what_it_is(steps):
    script = """
        from azureml.core import Run, Experiment
        run = Run.get_context()
        details = run.get_details()
        print(run.parent.id, run.display_name, run.name, run.type, run.number, run.status)
        assert run.parent.parent is None and run.parent.type == "azureml.PipelineRun"
        assert (run.parent.display_name, run.parent.number) == ("r1", 1)
        assert (details["runId"], details["status"]) == (run.id, "Running")
        assert details["runDefinition"]["script"] == "script.py"
        assert details["runDefinition"]["arguments"] == ["--out", run.output_datasets["out"]]
        assert details["outputDatasets"][0]["outputDetails"]["outputName"] == "out"
        assert details["startTimeUtc"].startswith("20")
        assert details["logFiles"] == {} and details["inputDatasets"] == [] and details["target"] == "local"
        assert Run(run.experiment, run.parent.id).id == Run.get(run.experiment.workspace, run.parent.id).id == run.parent.id
        assert Run(experiment=run.experiment, run_id=run.id).id == run.id
        assert Experiment(run.experiment.workspace, "other").name == "other"
        run.input_datasets["shown"] = "a dataset"
        assert run.input_datasets["shown"] == "a dataset" and list(run.input_datasets) == ["shown"]
        open(run.output_datasets["out"], "w").write("x")
    """
    steps.run(script, arguments=["--out", OUT])
    assert steps.lines == [f"{steps.declare('').run.parent_id} step step azureml.StepRun 1 Running"]


@pytest.mark.slow
def test_metrics_and_tags_arrive_with_the_step(steps):
    script = """
        import os, subprocess, sys
        import numpy as np
        from azureml.core import Run
        run = Run.get_context()
        run.log("loss", np.float32(0.5), "the loss", step=1)
        run.log(name="loss", value=float("nan"))
        run.log_list("list", [1, 2])
        for x in (1, 2):
            run.log_row("Y over X", x=x, y=np.float64(x / 10))
        run.log_table("table", {"a": [1, 2], "b": np.array([3, 4])})
        run.log_confusion_matrix("matrix", np.eye(2))
        run.log_residuals("residuals", '{"schema_type": "residuals"}')
        run.parent.log("loss", 9)
        run.parent.log("rows", 3)
        run.tag("stage", "train"); run.tag("done"); run.set_tags({"x": 1, "y": 2}); run.remove_tags("y")
        run.parent.tag("dataset_id", "7")
        run.add_properties({"author": "me"})
        try:
            run.add_properties({"author": "you"})
        except ValueError as error:
            print(error)
        with run.child_run() as child:
            child.log("loss", 8)
            assert child.get_metrics() == {"loss": 8} and child.parent is run
        with run.child_run(name="second") as child:
            child.log("loss", 7)
            child.fail("only the child")
            assert child.get_status() == "Failed" == child.wait_for_completion()["status"]
        with child.child_run("deep") as deep:
            deep.log("x", 1)
            deep.cancel()
        assert [each.id for each in child.get_children()] == [deep.id]
        assert [each.display_name for each in run.get_children()] == ["child_1", "second"]
        try:
            run.child_run("parent")
        except ValueError as error:
            print(error)
        subprocess.run([sys.executable, "-c", "from azureml.core import Run; Run.get_context().log('other', 1)"], check=True)
        assert Run.get_context().get_metrics()["other"] == 1
        assert run.get_metrics("list") == {"list": [1, 2]} and run.get_tags() == {"stage": "train", "done": "", "x": "1"}
        assert run.parent.get_metrics() == {"loss": 9, "rows": 3} and run.get_properties() == {"author": "me"}
        run.start(); run.flush(); run.complete()
    """
    result = steps.run(script)

    assert result.metrics == {
        "loss": [0.5, "nan"],
        "list": [1, 2],
        "Y over X": {"x": [1, 2], "y": [0.1, 0.2]},
        "table": {"a": [1, 2], "b": [3, 4]},
        "matrix": [[1.0, 0.0], [0.0, 1.0]],
        "residuals": {"schema_type": "residuals"},
        "other": 1,
        "parent.loss": 9,
        "rows": 3,
        "child_1.loss": 8,
        "second.loss": 7,
        "second.deep.x": 1,
    }
    assert result.details == {
        "tags": {"dataset_id": "7", "stage": "train", "done": "", "x": "1"},
        "properties": {"author": "me"},
    }
    assert steps.lines[0] == "metric loss = 0.5 (the loss step 1)"
    assert "parent: metric rows = 3" in steps.lines
    assert "'parent' is what the pipeline's run is called. Give the child run another name." in steps.lines
    assert "Property 'author' is 'me': properties never change. Set a tag instead." in steps.lines


@pytest.mark.parametrize("code", [0, 3])
def test_a_run_that_is_marked_as_failed_fails_the_step(steps, code):
    script = f"""
        import sys
        from azureml.core import Run
        run = Run.get_context()
        open(sys.argv[1], "w").write("x")
        run.fail(error_details="no rows", error_code="E7")
        assert run.get_status() == "Failed"
        sys.exit({code})
    """
    with pytest.raises(StepFailed, match=rf"exit code {code} and marked its run as failed: \[E7\] no rows"):
        steps.run(script, arguments=[OUT])
    assert nothing_published(steps)
    assert "failed Run.fail = [E7] no rows" in steps.lines


@pytest.mark.parametrize("run", ["run", "run.parent"])
def test_a_run_that_is_cancelled_ends_at_once_and_is_not_tried_again(steps, run):
    script = f"""
        import sys
        from azureml.core import Run
        run = Run.get_context()
        open(sys.argv[1], "w").write("x")
        {run}.cancel()
        print("still here")
    """
    with pytest.raises(RunCanceled, match=r"script\.py cancelled its run") as caught:
        steps.run(script, arguments=[OUT])
    assert isinstance(caught.value, UserError)
    assert nothing_published(steps)
    assert "still here" not in steps.lines


def test_what_has_no_counterpart_says_what_to_do_instead(steps):
    script = """
        from azureml.core import Run
        run = Run.get_context()
        for ask in (
            lambda: run.get_secret("key"),
            lambda: run.submit_child(None),
            lambda: run.get_portal_url(),
            lambda: run.get_all_logs(),
            lambda: run.wait_for_completion(show_output=True),
            lambda: run.experiment.submit(None),
            lambda: Run(run.experiment, "another"),
            lambda: run.no_such_thing,
        ):
            try:
                ask()
            except AttributeError as error:
                print(error)
    """
    steps.run(script)
    for line, expected in zip(
        steps.lines,
        [
            "Run.get_secret of the SDK v1 is not offered. Hand it over: RunConfiguration(",
            "Run.submit_child of the SDK v1 is not offered. Declare more steps in the DAG",
            "This step was not started by Airflow",
            "Look at the task in the Airflow UI",
            "A script cannot wait for the end of its own run",
            "Experiment.submit of the SDK v1 is not offered. Declare more steps",
            "Run 'another' cannot be opened",
            "'Run' object has no attribute 'no_such_thing'",
        ],
        strict=True,
    ):
        assert expected in line


class TestByHand:
    def test_everything_a_script_reports_is_printed(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("model.pkl").write_text("model")
        run = Run.get_context()
        run.log_row("row", a=1)
        run.parent.log("rows", 3)
        run.tag("k", "v")
        run.upload_file("outputs/model.pkl", "model.pkl")
        with run.child_run() as child:
            child.log_table("t", {"a": [1]})
        run.complete()
        assert capsys.readouterr().out.splitlines() == [
            "metric row = {'a': [1]}",
            "metric rows = 3",
            "tag k = v",
            "file outputs/model.pkl of the run: 5 bytes; not kept, as this script runs by hand",
            "metric t = {'a': [1]}",
        ]
        assert (run.get_metrics(), run.get_tags()) == ({"row": {"a": [1]}}, {"k": "v"})
        with pytest.raises(FilesNotFound):
            run.upload_file("x", "not there")

    def test_what_only_a_step_has_says_so(self):
        run = Run.get_context()
        for ask in (run.get_details, run.get_file_names, lambda: run.register_model("m", "outputs")):
            with pytest.raises(OfflineRun, match="only inside a pipeline step"):
                ask()
        with pytest.raises(NotOffered, match="runs by hand"):
            Run(None, "some id")


@pytest.mark.slow
def test_a_direct_input_is_found_by_the_id_the_script_gets(steps, put):
    put({"data/1.csv": "a\n1\n2\n"})
    table = Dataset.Tabular.from_delimited_files((steps.workspace.get_default_datastore(), "data/1.csv"))
    script = """
        import sys
        from azureml.core import Dataset, Run
        ws = Run.get_context().experiment.workspace
        print(Dataset.get_by_id(ws, id=sys.argv[1]).to_pandas_dataframe().to_dict("list"))
        try:
            Dataset.get_by_id(ws, "other").to_path()
        except Exception as error:
            print(type(error).__name__)
    """
    steps.run(script, arguments=[table.take(1).as_named_input("table")])
    assert steps.lines == ["{'a': [1]}", "DatasetIdNotFound"]
