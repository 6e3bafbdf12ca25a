"""``CommandStepOperator`` in real DAG runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import BundleDagBag

from tests.skin.conftest import FinishedRun

HEADER = """
from airflow.sdk import DAG, Param
from airflow_aml_data import CommandStepOperator, Dataset, OutputFileDatasetConfig, PythonScriptStepOperator, RunConfiguration, Workspace

store = Workspace().get_default_datastore()
raw = Dataset.File.from_files((store, "my data/a b.txt")).as_named_input("raw").as_mount()
"""


def test_a_command_reads_writes_and_hands_on_like_a_script(
    run_dag: Callable[..., FinishedRun], put: Callable[..., None], dags_folder: Path
) -> None:
    put({"my data/a b.txt": "b\na\n"})
    (dags_folder / "tools").mkdir()
    (dags_folder / "tools" / "count.py").write_text(
        "import os, sys; from azureml.core import Run; run = Run.get_context()\n"
        "run.log('lines', open(sys.argv[1]).read().split('\\n')); run.log('inputs', sorted(run.input_datasets))\n"
        "run.log('python', sys.executable); run.log('rate', os.environ['AML_PARAMETER_my_lr_x'])"
    )

    finished = run_dag(
        HEADER
        + """
with DAG("d", params={"word": Param("c d")}):
    out = OutputFileDatasetConfig("out").as_upload()
    CommandStepOperator(
        task_id="reader", source_directory="tools", params={"my-lr x": 0.1},
        inputs=[out.as_input("sorted").as_download()], command="python count.py $sorted/sorted.txt",
    )
    CommandStepOperator(
        task_id="writer", outputs=[out],
        command=["(cat", raw, "; echo '{{ params.word }}') | sort > $out/sorted.txt; test", 1, "-eq 1"],
    )
"""
    )

    assert finished.state == "success"
    assert finished.xcom("reader") == {
        "lines": ["a", "b", "c d", ""],
        "inputs": ["sorted"],
        "python": sys.executable,
        "rate": "0.1",
    }
    assert finished.xcom("writer", "out").to_path() == ["/sorted.txt"]


def test_the_path_of_the_run_configuration_wins(run_dag: Callable[..., FinishedRun], workspace: object) -> None:
    finished = run_dag(
        HEADER
        + """
with DAG("d"):
    CommandStepOperator(
        task_id="s", command='test "$PATH" = /own:/bin -a "$UNIT" = cm',
        runconfig=RunConfiguration(environment_variables={"PATH": "/own:/bin", "UNIT": "cm"}),
    )
"""
    )

    assert finished.state == "success"


def test_a_command_that_fails_is_retried_and_a_mistake_is_not(
    run_dag: Callable[..., FinishedRun], workspace: object
) -> None:
    finished = run_dag(
        HEADER
        + """
with DAG("d", default_args={"retries": 1, "retry_delay": 0}):
    CommandStepOperator(task_id="fails", command="exit 3")
    CommandStepOperator(task_id="mistake", command=["cat", raw])
"""
    )

    assert finished.state == "failed"
    assert finished.tries == {"fails": 2, "mistake": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('command=""', "A CommandStep needs a command"),
        ("command=[]", "A CommandStep needs a command"),
        ("command=None", "A CommandStep needs a command"),
        ("command=5", "command of a step is a list"),
        ("", "missing keyword argument 'command'"),
        ('command=["cat", store]', "An argument is text, a number, a bool"),
        ('command=["cat", Dataset.File.from_files((store, "x"))]', "cannot be used directly as arguments"),
        ('command=["cat", OutputFileDatasetConfig("x").as_input("in1")]', "Input in1 on step s is not connected"),
        ('command=["cat", raw], inputs=[raw.as_download()]', "[raw] is repeated. Input port names must be unique"),
        ('command=["cat", raw], outputs=[OutputFileDatasetConfig("raw")]', "names an input and an output of one step"),
        ('command="x", compute_target=""', "compute_target is 'local'"),
    ],
)
def test_a_wiring_mistake_is_an_import_error_of_the_dag_file(
    parse: Callable[[str], BundleDagBag], arguments: str, message: str
) -> None:
    """Semantics section 12, and G07, G28, G37."""
    text = HEADER + f'with DAG("d"):\n    CommandStepOperator(task_id="s", {arguments})'

    (error,) = parse(text).import_errors.values()

    assert message in error
