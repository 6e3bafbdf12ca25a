"""``make demo``: the article's pipeline on real data in a real Airflow, and what each step read and wrote.

What is shown comes from the run: task states, XComs and logs over Airflow's REST API. Exit code 0 says that the
run succeeded.
"""

import argparse
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_aml_data import OutputReference
from airflow_aml_data.core.configuration import embedded_home
from airflow_aml_data.core.transfer import readable_bytes
from dev.airflow_api import AirflowApi, DagImportError, TaskInstance
from dev.local_airflow import LocalAirflow, LocalAirflowError

PROJECT = Path(__file__).parents[1]
DAG_ID = "aml_article"
SHOWN = ("running", "success", "failed", "up_for_retry", "upstream_failed")
LOG_TAIL_LINES = 40

# Lines of a step's log.
READS = re.compile(r"^Reads '(\w+)' \((\w+)\): (.+)$", re.MULTILINE)
WRITES = re.compile(r"^Writes '(\w+)' \((\w+)\): (.+)$", re.MULTILINE)
ARRIVED = re.compile(r"^Input '(\w+)' \(\w+\): done, ([\d,]+) files, (.+?) in ", re.MULTILINE)
UPLOADED = re.compile(r"^Upload to (\S+): done, ([\d,]+) files, (.+?) in ", re.MULTILINE)


class Demo:
    """One run of the pipeline.

    :param airflow: A running Airflow that has the example DAGs.
    :param home: Its home, below which the embedded workspace keeps the data.
    """

    def __init__(self, airflow: AirflowApi, home: Path) -> None:
        self.airflow, self.home = airflow, home
        self.run_id = f"demo-{datetime.now().astimezone():%Y%m%d-%H%M%S}"

    def run(self) -> bool:
        """Run it, show its progress, then what each step did. Whether it succeeded."""
        self.airflow.trigger(DAG_ID, run_id=self.run_id)
        print(f"\n{DAG_ID} runs, as {self.run_id}.\n", flush=True)
        started = time.monotonic()

        def show(task: TaskInstance) -> None:
            if task["state"] in SHOWN:
                print(f"  {time.monotonic() - started:5.1f} s  {task['task_id']:<10} {task['state']}", flush=True)

        state = self.airflow.wait(DAG_ID, self.run_id, on_change=show)
        tasks = sorted(self.airflow.task_instances(DAG_ID, self.run_id), key=lambda each: each["start_date"] or "z")
        print(f"\nEnded after {time.monotonic() - started:.0f} s: {state}.\n")
        for task in tasks:
            self._show_step(task)
        if state == "success":
            self._show_results()
        for task in tasks:
            if task["state"] == "failed":
                tail = self._log(task).splitlines()[-LOG_TAIL_LINES:]
                print(f"\nThe log of {task['task_id']} ends with:\n", *tail, sep="\n  ")
        return state == "success"

    def _show_step(self, task: TaskInstance) -> None:
        seconds = f"{task['duration']:.1f} s" if task["duration"] else ""
        print(f"{task['task_id']:<10} {task['state']:<16} {seconds:>7}".rstrip())
        if not task["start_date"]:
            return
        log = self._log(task)
        arrived = {name: _amount(files, size) for name, files, size in ARRIVED.findall(log)}
        for name, mode, where in READS.findall(log):
            _show("reads", f"{name} ({mode})", arrived.get(name, "as a table"), where)
        for folder, files, size in UPLOADED.findall(log):
            _show("writes", "upload_files", _amount(files, size), folder)
        if task["state"] != "success":
            return
        for name, mode, where in WRITES.findall(log):
            output = self._output(task["task_id"], name)
            dataset = f", dataset {output.dataset} version {output.dataset_version}" if output.dataset else ""
            amount = _amount(f"{output.files:,}", readable_bytes(output.size_bytes))
            _show("writes", f"{name} ({mode})", amount, where + dataset)
        value = self._xcom(task["task_id"])
        said = ", ".join(f"{key} {each:,}" for key, each in value.items()) if isinstance(value, dict) else value
        print(f"  {'returns':<7} {said}")

    def _show_results(self) -> None:
        metrics = self._xcom("evaluate")
        processed = self._output("prepare", "processed_data")
        folder = embedded_home({"AIRFLOW_HOME": str(self.home)}) / "datastores" / processed.datastore
        place = folder if (folder / processed.path).exists() else f"datastore {processed.datastore}"
        lines = {
            "Score": f"off by {metrics['mean_absolute_error']} minutes on average, for {metrics['flights']:,} flights that the "
            "model has not seen",
            "": f"{metrics['mean_absolute_error_less_usual_gain']} when guessing that it arrives as late as it left, less what "
            f"flights usually make up; {metrics['mean_absolute_error_as_late_as_it_left']} without the latter",
            "Dataset": f'Dataset.get_by_name(workspace, "{processed.dataset}", version={processed.dataset_version})',
            "Data": place,
            "Airflow": f"{_start_command(self.home)} starts the UI; look at DAG {DAG_ID}, run {self.run_id}",
        }
        print("", *(f"{name:<9}{line}" for name, line in lines.items()), sep="\n")

    def _xcom(self, task_id: str, key: str = "return_value") -> Any:
        return self.airflow.xcom(DAG_ID, self.run_id, task_id, key)

    def _output(self, task_id: str, name: str) -> OutputReference:
        return OutputReference(**self._xcom(task_id, name)["__data__"])

    def _log(self, task: TaskInstance) -> str:
        return self.airflow.task_log(DAG_ID, self.run_id, task["task_id"], task["try_number"])


def _amount(files: str, size: str) -> str:
    return f"{files} file{'' if files == '1' else 's'}, {size}"


def _show(verb: str, name: str, amount: str, where: str) -> None:
    print(f"  {verb:<7} {name:<24} {amount:<20} {where}")


def _start_command(home: Path) -> str:
    is_usual = home == (PROJECT / ".airflow")
    return "`make airflow`" if is_usual else f"`python -m dev.local_airflow up --home {home}`"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description="Run the article's pipeline.")
    parser.add_argument(
        "--home", type=Path, default=PROJECT / ".airflow", help="Airflow's home; by default that of `make airflow`"
    )
    home = parser.parse_args().home.absolute()
    print("Starting Airflow: API server, scheduler with LocalExecutor, DAG processor, on SQLite ...", flush=True)
    started = time.monotonic()
    try:
        with LocalAirflow(home=home, dags_folder=PROJECT / "dags") as airflow:
            print(f"Airflow is up after {time.monotonic() - started:.0f} s, at {airflow.url}.", flush=True)
            succeeded = Demo(airflow, home).run()
    except (LocalAirflowError, DagImportError, TimeoutError) as error:
        sys.exit(f"The demo did not run to its end. {error}")
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    main()
