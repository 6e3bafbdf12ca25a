"""What a step costs when its script does nothing: a chain of ten through the real scheduler."""

from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from dev.airflow_api import TaskInstance
from dev.bench.dag_files import Graph
from dev.bench.report import Report, Row
from dev.local_airflow import LocalAirflow

STEPS = 10
RUNS = 3
WARMUP = 1

NOTHING = f"""\
from airflow.sdk import DAG, chain
from airflow_aml_data import PythonScriptStepOperator

with DAG("ours"):
    chain(*[
        PythonScriptStepOperator(task_id=f"step_{{n}}", source_directory="scripts", script_name="nothing.py")
        for n in range({STEPS})
    ])
"""

SPANS = {
    "a step that does nothing, start to end": ("start_date", "end_date"),
    "a step that does nothing, queued to end": ("queued_when", "end_date"),
}


def run(report: Report) -> None:
    with TemporaryDirectory() as folder:
        tasks = _run_chains(Path(folder))
    for name, (since, until) in SPANS.items():
        seconds = {
            dag_id: median(_seconds(task[since], task[until]) for run in runs for task in run)
            for dag_id, runs in tasks.items()
        }
        report.add(
            Row(name=f"{name} (theirs: BashOperator)", ours=seconds["ours"], theirs=seconds["theirs"], most_more=0.3)
        )
    chains = {dag_id: median(_run_seconds(run) for run in runs) for dag_id, runs in tasks.items()}
    report.add(Row(name=f"a chain of {STEPS} such steps", ours=chains["ours"], theirs=chains["theirs"]))


def _run_chains(folder: Path) -> dict[str, list[list[TaskInstance]]]:
    """Run the chains alternately; give each DAG's runs, and each run's tasks."""
    dags = folder / "dags"
    dags.mkdir()
    graph = Graph.chain(STEPS)
    files = {"theirs": graph.theirs("theirs")}
    (dags / "scripts").mkdir()
    (dags / "scripts" / "nothing.py").write_text("")
    files["ours"] = NOTHING
    for dag_id, text in files.items():
        (dags / f"{dag_id}.py").write_text(text)
    found: dict[str, list[list[TaskInstance]]] = {dag_id: [] for dag_id in files}
    with LocalAirflow(home=folder / "airflow", dags_folder=dags) as airflow:
        for _ in range(WARMUP + RUNS):
            for dag_id, runs in found.items():
                run_id = airflow.trigger(dag_id)
                state = airflow.wait(dag_id, run_id)
                if state != "success":
                    failed = [task for task in airflow.task_instances(dag_id, run_id) if task["state"] == "failed"]
                    log = airflow.task_log(dag_id, run_id, failed[0]["task_id"], failed[0]["try_number"])
                    raise RuntimeError(f"The run of {dag_id!r} {state}.\n{log}")
                runs.append(airflow.task_instances(dag_id, run_id))
    return {dag_id: runs[WARMUP:] for dag_id, runs in found.items()}


def _run_seconds(tasks: list[TaskInstance]) -> float:
    return _seconds(min(task["queued_when"] for task in tasks), max(task["end_date"] for task in tasks))


def _seconds(since: str, until: str) -> float:
    return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()
