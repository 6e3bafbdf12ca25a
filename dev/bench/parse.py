"""How long the DAG processor needs for a file of 200 tasks and 400 edges."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from dev.bench.dag_files import Graph
from dev.bench.report import Report, Row, paired_measurements

GRAPH = Graph.wide(tasks=200, edges=400)

CHILD = """\
import importlib, runpy, sys, time
file, *modules = sys.argv[1:]
for module in modules:
    importlib.import_module(module)
start = time.perf_counter()
runpy.run_path(file)
print(time.perf_counter() - start)
"""


def run(report: Report) -> None:
    with TemporaryDirectory() as folder:
        theirs = _parsing(Path(folder, "theirs.py"), GRAPH.theirs("theirs"))
        ours = _parsing(Path(folder, "ours.py"), GRAPH.ours("ours", script="step.py"))
        our_seconds, their_seconds = paired_measurements(ours, theirs)
    report.add(
        Row(
            name="parse a DAG file, 200 tasks, 400 edges",
            ours=our_seconds * 1000,
            theirs=their_seconds * 1000,
            unit="ms",
        )
    )


def _parsing(file: Path, text: str) -> Callable[[], float]:
    """Write a DAG file and give what parses it in a new process and tells the seconds.

    As in the DAG processor: what the file imports of Airflow is there already when the clock starts, what it
    imports of other packages is not.
    """
    file.write_text(text)
    modules = re.findall(r"^from (airflow\.\S+) import", text, flags=re.MULTILINE)
    command = [sys.executable, "-c", CHILD, str(file), *modules]

    def seconds() -> float:
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return float(output.splitlines()[-1])

    return seconds
