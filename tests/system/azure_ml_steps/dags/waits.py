"""Steps on Azure ML that go on when a test lets them."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param

from airflow_aml_data import OutputFileDatasetConfig, PythonScriptStepOperator

SECONDS = 60  # a slow machine has submitted a job by then


class StopsBeforeItDefers(PythonScriptStepOperator):
    """Its first try has submitted the job, and stays on the worker: somebody is to kill it there."""

    def defer(self, **how: Any) -> None:
        note = Path(f"{self.arguments[0]}.pid")
        if not note.exists():
            note.write_text(str(os.getpid()))
            time.sleep(600)
        super().defer(**how)


RETRIED = {"retries": 1, "retry_delay": timedelta()}
FORM = {
    "go": Param("", type="string", description="The file that the step's script waits for, or makes before it fails.")
}

for dag_id, script_name, operator, options in (
    ("waits_deferred", "wait.py", PythonScriptStepOperator, {}),
    ("waits_running", "wait.py", PythonScriptStepOperator, {"deferrable": False}),
    ("stops", "wait.py", StopsBeforeItDefers, RETRIED),
    ("stops_running", "wait.py", PythonScriptStepOperator, {"deferrable": False, **RETRIED}),
    ("late_deferred", "hang_once.py", PythonScriptStepOperator, RETRIED),
    ("late_running", "hang_once.py", PythonScriptStepOperator, {"deferrable": False, **RETRIED}),
    ("fails_once", "fail_once.py", PythonScriptStepOperator, RETRIED),
):
    with DAG(dag_id, params=FORM):
        operator(
            task_id="step",
            source_directory="scripts",
            script_name=script_name,
            arguments=["{{ params.go }}", OutputFileDatasetConfig("out").as_upload()],
            compute_target="cpu-cluster",
            execution_timeout=timedelta(seconds=SECONDS) if dag_id.startswith("late") else None,
            poll_seconds=1,
            **options,
        )
