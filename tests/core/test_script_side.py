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
from airflow_aml_data.errors import OfflineRun
from airflow_aml_data.run import RunEnvironmentException

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


def test_the_stand_in_for_the_sdk_says_what_it_has(steps):
    steps.run("import azureml.core as c\ntry: c.Environment\nexcept AttributeError as e: print(e)")
    assert "azureml.core.Environment is not among" in steps.lines[0]


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
