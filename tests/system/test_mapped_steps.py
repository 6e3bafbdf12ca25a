"""Mapped steps under a real scheduler: fifty outputs into one step, and one output into fifty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.local_airflow import LocalAirflow

pytestmark = pytest.mark.system

TASKS = 50
SECRET = "a-token-that-nobody-else-has"

DAG_FILE = f"""
from airflow.sdk import DAG
from airflow_aml_data import CommandStepOperator, OutputFileDatasetConfig, PythonScriptStepOperator

with DAG("fan", max_active_tasks={TASKS}):
    part, whole = OutputFileDatasetConfig("part").as_upload(), OutputFileDatasetConfig("whole").as_upload()
    CommandStepOperator.partial(task_id="pick", inputs=[whole.as_input()]).expand(
        command=[f"test $(sed -n {{n + 1}}p $input_1/all) = {{n}}" for n in range({TASKS})]
    )
    PythonScriptStepOperator(
        task_id="merge", source_directory="fan", script_name="merge.py", arguments=[part.as_input("parts"), whole]
    )
    CommandStepOperator.partial(task_id="write", outputs=[part]).expand(
        command=[f"echo {{n}} > $part/n; : {{{{{{{{ var.value.api_token }}}}}}}}" for n in range({TASKS})]
    )
"""

MERGE = """
import pathlib, sys
from azureml.core import Run
parts = sorted(pathlib.Path(sys.argv[1]).iterdir())
Run.get_context().log("parts", [each.name for each in parts])
pathlib.Path(sys.argv[2], "all").write_text("".join((each / "n").read_text() for each in parts))
"""


def test_fifty_outputs_are_read_by_one_step_in_order_and_one_output_by_fifty(
    airflow: LocalAirflow, make_dag_file: Callable[[str, str], Path], dags_folder: Path
) -> None:
    (dags_folder / "fan").mkdir()
    (dags_folder / "fan" / "merge.py").write_text(MERGE)
    airflow.post("/variables", {"key": "api_token", "value": SECRET})
    make_dag_file("fan", DAG_FILE)

    run_id = airflow.trigger("fan")

    assert airflow.wait("fan", run_id, timeout_seconds=300) == "success"
    assert airflow.xcom("fan", run_id, "merge")["parts"] == [f"{n:02}" for n in range(TASKS)]
    tasks = airflow.task_instances("fan", run_id)
    assert Counter((each["task_id"], each["state"]) for each in tasks) == {
        ("write", "success"): TASKS,
        ("merge", "success"): 1,
        ("pick", "success"): TASKS,
    }
    log = airflow.task_log("fan", run_id, "write", map_index=7)
    assert "echo 7 > $part/n; : ***" in log
    assert SECRET not in log
