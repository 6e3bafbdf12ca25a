"""``kill -9`` of the task's process: nothing half-written is ever taken for an output, and the retry succeeds."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from airflow_aml_data.core.connect import ConnectedWorkspace, connect
from airflow_aml_data.core.manifest import Manifest, read_local
from dev.local_airflow import LocalAirflow
from tests.system.conftest import wait_until

pytestmark = pytest.mark.system

KILLS = 20
TASKS = 32  # some end before their signal comes
FILES = 300

SCRIPT = f"""
import os, sys, time
for number in range({FILES}):
    with open(os.path.join(sys.argv[1], f"{{number}}.txt"), "w") as file:
        file.write(str(number) * 1000)
    time.sleep(0.002)
"""

DAG_FILE = """
import os
from pathlib import Path
from airflow.sdk import DAG
from airflow_aml_data import OutputFileDatasetConfig, PythonScriptStepOperator

def note_process(context):
    ti = context["ti"]
    Path({pids!r}, f"{{ti.task_id}}.{{ti.try_number}}").write_text(str(os.getpid()))

with DAG("killed"):
    for number in range({tasks}):
        PythonScriptStepOperator(
            task_id=f"step_{{number:02}}", source_directory="killed", script_name="write.py",
            retries=2, retry_delay=0, pre_execute=note_process,
            arguments=[OutputFileDatasetConfig("files").as_upload()],
        )
"""


def test_kill_9_at_random_moments_never_leaves_half_an_output_and_the_retry_succeeds(
    airflow: LocalAirflow,
    make_dag_file: Callable[[str, str], Path],
    dags_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (dags_folder / "killed").mkdir()
    (dags_folder / "killed" / "write.py").write_text(SCRIPT)
    make_dag_file("killed", DAG_FILE.format(pids=str(tmp_path), tasks=TASKS))
    monkeypatch.setenv("AIRFLOW_HOME", str(airflow.home))

    run_id = airflow.trigger("killed")
    killed = kill_first_tries(tmp_path)

    assert airflow.wait("killed", run_id, timeout_seconds=180) == "success"
    workspace = connect()
    outputs = workspace.catalog.find_outputs(dag_id="killed", limit=1000)
    assert {each.state for each in outputs} <= {"committed", "abandoned"}
    for output in outputs:
        if output.state == "committed":
            assert_whole(workspace, output.manifest_path, output.path)
    retried = [each for each in airflow.task_instances("killed", run_id) if each["try_number"] > 1]
    assert killed == KILLS
    assert killed // 2 <= len(retried) <= killed  # the others had told of their success before the signal came
    for task in airflow.task_instances("killed", run_id):
        reference = airflow.xcom("killed", run_id, task["task_id"], "files")["__data__"]
        assert (reference["try_number"], reference["files"]) == (task["try_number"], FILES)
    staging = airflow.home / "azureml_workspace/datastores/workspaceblobstore/.aml_data/staging"
    assert list(staging.glob("killed.*")) == []


def kill_first_tries(pids: Path) -> int:
    """Send signal 9 to the process of each task's first try, at a random moment of its life; count the hits."""
    moments = random.Random(20)
    due: dict[int, float] = {}
    seen: set[Path] = set()
    killed = 0
    deadline = time.monotonic() + 120
    while killed < KILLS and (len(seen) < TASKS or due) and time.monotonic() < deadline:
        for file in set(pids.glob("*.1")) - seen:
            if text := file.read_text():
                seen.add(file)
                due[int(text)] = time.monotonic() + moments.uniform(0, 1.3)
        for pid in [pid for pid, moment in due.items() if moment <= time.monotonic()]:
            del due[pid]
            if psutil.pid_exists(pid) and killed < KILLS:
                os.kill(pid, signal.SIGKILL)
                killed += 1
        time.sleep(0.01)
    return killed


def assert_whole(workspace: ConnectedWorkspace, manifest_path: str | None, path: str) -> None:
    storage = workspace.storage(None)
    assert manifest_path is not None
    manifest = Manifest.from_bytes(storage.read_bytes(manifest_path))
    root = workspace.config.datastores[workspace.datastore_name(None)].options["root"]
    found = read_local([(each.path, f"{root}/{path}/{each.path}") for each in manifest.entries])
    assert [each[:3] for each in manifest.entries] == [(each.path, each.size_bytes, each.checksum) for each in found]
    assert len(manifest.entries) == FILES


def test_a_task_marked_failed_ends_its_script_and_every_process_of_it(
    airflow: LocalAirflow, make_dag_file: Callable[[str, str], Path], dags_folder: Path, tmp_path: Path
) -> None:
    (dags_folder / "stopped").mkdir()
    (dags_folder / "stopped" / "wait.py").write_text(
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['setsid', 'sleep', '600'])\n"
        "open(sys.argv[1] + '.partial', 'w').write(f'{os.getpid()} {child.pid} {os.getcwd()}')\n"
        "os.rename(sys.argv[1] + '.partial', sys.argv[1])\n"
        "time.sleep(600)\n"
    )
    make_dag_file(
        "stopped",
        f"""
        from airflow.sdk import DAG
        from airflow_aml_data import PythonScriptStepOperator

        with DAG("stopped"):
            PythonScriptStepOperator(
                task_id="wait", source_directory="stopped", script_name="wait.py", arguments=[{str(tmp_path / "pids")!r}]
            )
        """,
    )
    run_id = airflow.trigger("stopped")
    wait_until((tmp_path / "pids").exists)
    script, daemon, work = (tmp_path / "pids").read_text().split(" ", 2)

    airflow.patch(f"/dags/stopped/dagRuns/{quote(run_id)}/taskInstances/wait", {"new_state": "failed"})

    wait_until(lambda: not psutil.pid_exists(int(script)) and not psutil.pid_exists(int(daemon)))
    wait_until(lambda: not Path(work).exists())
    assert airflow.wait("stopped", run_id) == "failed"
