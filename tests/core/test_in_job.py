"""What runs around a script in an Azure ML job, here without Azure ML: in a folder with the code, and with folders for data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.in_job.told import REPORT, TOLD, Report, ToldInput, ToldOutput, ToldStep, ToldStore
from airflow_aml_data.core.plan import StepPlan
from airflow_aml_data.core.ship import pack
from airflow_aml_data.errors import FilesExist

RUN = {
    "id": "dag.run.step.try1.0123456789",
    "dag_id": "dag",
    "run_id": "run",
    "task_id": "step",
    "map_index": -1,
    "try_number": 1,
    "conn_id": "azureml_default",
    "parent_id": "dag.run",
    "script_name": "script.py",
    "log_url": "",
}


def packed(folder: Path, script: str = "", name: str = "script.py") -> Path:
    """The code of a job with one script."""
    (sources := folder / "sources").mkdir(parents=True)
    (sources / name).write_text(script)
    (sources / ".amlignore").write_text("*.py\n*.zip")
    plan = StepPlan(
        run=StepRun(dag_id="dag", run_id="run", task_id="step"),
        command=[],
        shell=False,
        title="script.py",
        source_directory=sources,
        inputs=[],
        outputs=[],
        environment_variables={},
    )
    pack(plan, folder / "code")
    return folder / "code"


def start(code: Path, told: ToldStep, arguments: Sequence[str] = (), **places: Path) -> subprocess.Popen[str]:
    """The job: a Python without any package."""
    for name in (TOLD, REPORT):
        (code.parent / name).mkdir()
    (code.parent / TOLD / "step.json").write_bytes(told.to_bytes())
    every = {TOLD: code.parent / TOLD, REPORT: code.parent / REPORT, **places}
    command = ["-S", "-E", "aml_data_start.py", *(f"{name}={path}" for name, path in every.items()), "--"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "AIRFLOW"))}
    return subprocess.Popen(
        [sys.executable, *command, sys.executable, "-S", "script.py", *arguments],
        cwd=code,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def report_of(code: Path) -> Report:
    return Report.from_bytes((code.parent / REPORT / "report.json").read_bytes())


def told_step(**more: Any) -> ToldStep:
    return ToldStep(**{"run": RUN, "inputs": {}, "outputs": {}, "stores": {}, **more})


OUTPUT = ToldOutput(mode="upload", source=None, source_globs=None, file_name="out")


def test_a_script_of_files_needs_no_package(tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    (data / "a.txt").write_text("hello")
    script = """
import sys
from azureml.core import Run
run = Run.get_context()
print(open(sys.argv[1] + "/b.txt").read(), run.input_datasets["direct"].to_path())
run.log("answer", 42)
with open(sys.argv[2] + "/made.txt", "w") as file:
    file.write("made")
"""
    code = packed(tmp_path, script)
    source = {"datastore": "store", "path": "x", "is_file": False}
    direct = {
        "definition_version": 1,
        "sources": [source],
        "made_of": None,
        "format": None,
        "operations": [],
        "include_path": False,
        "partition_format": None,
        "timestamp": None,
        "partition_timestamp": None,
        "registered": None,
        "id": "direct",
    }
    told = told_step(
        inputs={
            "data": ToldInput(mode="mount", dataset={"id": "data"}, chosen=[["aml_data_1", "a.txt", "b.txt"]]),
            "direct": ToldInput(mode="direct", dataset=direct),
        },
        outputs={"out": OUTPUT},
        stores={"store": ToldStore(folders={"x": "aml_data_1"}, files=[["x/a.txt", 5, "etag", 0.0, ""]])},
    )
    out = tmp_path / "out"

    job = start(
        code,
        told,
        ["DatasetConsumptionConfig:data", "DatasetOutputConfig:out"],
        aml_data_1=data,
        out=out,
        run_files=out,
    )
    said, _ = job.communicate(timeout=60)

    assert (job.returncode, said.splitlines()[0]) == (0, "hello ['/a.txt']")
    report = report_of(code)
    assert report.outputs["out"].files == [["made.txt", 4, "md5:4ab8710d781ba5b13aaf561cafd896b7"]]
    assert (out / "made.txt").read_text() == "made"
    records = (code.parent / REPORT / "records.jsonl").read_text().splitlines()
    assert [json.loads(each)["value"] for each in records] == [42]


def test_equal_sources_make_equal_code(tmp_path: Path) -> None:
    one, other = (packed(tmp_path / name, "print()") for name in ("one", "other"))

    content = [{each.name: each.read_bytes() for each in code.iterdir()} for code in (one, other)]
    assert content[0] == content[1]
    assert set(content[0]) == {"script.py", "aml_data_start.py", "aml_data.zip"}  # what would leave some out stays here


@pytest.mark.parametrize("name", ["aml_data_start.py", "aml_data.zip"])
def test_sources_with_a_file_of_our_name_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FilesExist, match="Rename it"):
        packed(tmp_path, name=name)


def test_a_job_that_is_told_to_end_ends_its_script(tmp_path: Path) -> None:
    code = packed(tmp_path, "import time\nprint('started', flush=True)\ntime.sleep(60)")
    job = start(code, told_step())
    assert job.stdout is not None
    assert job.stdout.readline() == "started\n"

    job.send_signal(signal.SIGTERM)

    job.communicate(timeout=30)
    assert report_of(code).exit_code == -signal.SIGTERM
    assert job.returncode == 1


def test_a_place_that_is_taken_is_reported(tmp_path: Path) -> None:
    code = packed(tmp_path, "print()")
    (code / "here").write_text("taken")
    told = told_step(inputs={"data": ToldInput(mode="mount", dataset={"id": "x"}, place="here")})

    job = start(code, told, data=tmp_path)
    job.communicate(timeout=60)

    assert job.returncode == 1
    assert "Choose another path_on_compute" in report_of(code).unusable


def test_the_job_ends_as_its_script_does(tmp_path: Path) -> None:
    code = packed(tmp_path, "import sys; sys.exit(7)")
    job = start(code, told_step())
    job.communicate(timeout=60)
    assert (job.returncode, report_of(code).exit_code) == (7, 7)


def test_what_a_job_is_told_and_reports_comes_back_as_it_was() -> None:
    told = told_step(outputs={"out": OUTPUT}, parent_records=["{}"])
    assert ToldStep.from_bytes(told.to_bytes()) == told
    report = Report(exit_code=0, unusable="", outputs={})
    assert Report.from_bytes(report.to_bytes()) == report
    with pytest.raises(ValueError, match="version 2"):
        Report.from_bytes(report.to_bytes().replace(b'"version": 1', b'"version": 2'))
