"""The harness itself: what the other system tests, the demo and the bench stand on."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from dev.airflow_api import DagImportError, TaskInstance
from dev.local_airflow import LocalAirflow, LocalAirflowError

pytestmark = pytest.mark.system

MakeDagFile = Callable[[str, str], Path]

HEADER = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
"""


def processes_that_mention(text: str) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if text in command and process.pid != psutil.Process().pid:
            found.append(command)
    return found


def test_a_dag_written_while_airflow_runs_succeeds(airflow: LocalAirflow, make_dag_file: MakeDagFile) -> None:
    make_dag_file(
        "two_steps",
        f"""{HEADER}
with DAG("two_steps"):
    first = BashOperator(task_id="first", bash_command="echo the value is $VALUE; echo last line")
    first >> BashOperator(task_id="second", bash_command="true")
""",
    )
    changes: list[tuple[str, str]] = []

    def note(task: TaskInstance) -> None:
        changes.append((task["task_id"], task["state"]))

    run_id = airflow.trigger("two_steps", conf={"color": "green"})

    assert airflow.wait("two_steps", run_id, timeout_seconds=60, on_change=note) == "success"
    assert [task for task, state in changes if state == "success"] == ["first", "second"]
    assert airflow.xcom("two_steps", run_id, "first") == "last line"
    assert "the value is" in airflow.task_log("two_steps", run_id, "first", 1)
    assert airflow.get("/dags/two_steps/dagRuns")["dag_runs"][0]["conf"] == {"color": "green"}


def test_a_failing_task_fails_its_run_and_its_log_says_why(airflow: LocalAirflow, make_dag_file: MakeDagFile) -> None:
    make_dag_file(
        "failing",
        f'{HEADER}\nwith DAG("failing"):\n    BashOperator(task_id="only", bash_command="exit 3")\n',
    )

    run_id = airflow.trigger("failing")

    assert airflow.wait("failing", run_id, timeout_seconds=60) == "failed"
    assert "exit code 3" in airflow.task_log("failing", run_id, "only", 1)


def test_a_broken_dag_file_is_reported_with_its_traceback(airflow: LocalAirflow, make_dag_file: MakeDagFile) -> None:
    file = make_dag_file("broken", 'from airflow.sdk import DAG\nDAG("broken", 1 / 0)\n')

    with pytest.raises(DagImportError, match="ZeroDivisionError"):
        airflow.trigger("broken")

    file.unlink()


def test_only_this_machine_can_reach_it(airflow: LocalAirflow) -> None:
    listening = {
        connection.laddr.ip
        for process in airflow.processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }

    assert listening == {"127.0.0.1"}


def test_a_home_in_use_is_refused(airflow: LocalAirflow, dags_folder: Path) -> None:
    with pytest.raises(LocalAirflowError, match=airflow.url):
        LocalAirflow(home=airflow.home, dags_folder=dags_folder).start()

    assert airflow.health()["scheduler"] == "healthy"


def test_nothing_outlives_a_program_that_is_told_to_end_while_a_task_runs(tmp_path: Path) -> None:
    """The task's command is a session of its own, so that no signal to Airflow's processes reaches it."""
    seconds = "86399.125"  # a number nobody else sleeps for
    (tmp_path / "sleeping.py").write_text(
        f'{HEADER}\nwith DAG("sleeping"):\n    BashOperator(task_id="only", bash_command="sleep {seconds}")\n'
    )
    program = dedent(f"""
        from pathlib import Path
        from dev.local_airflow import LocalAirflow
        folder = Path({str(tmp_path)!r})
        with LocalAirflow(home=folder / "home", dags_folder=folder) as airflow:
            airflow.wait("sleeping", airflow.trigger("sleeping"))
    """)
    running = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 90
    while not processes_that_mention(f"sleep {seconds}"):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)

    running.send_signal(signal.SIGTERM)

    assert running.wait(timeout=30) == 128 + signal.SIGTERM
    assert processes_that_mention(f"sleep {seconds}") == []
    assert processes_that_mention(str(tmp_path)) == []
    assert not (tmp_path / "home" / "local_airflow.json").exists()
