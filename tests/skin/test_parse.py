"""Parsing a DAG file reads and connects to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dev.bench.dag_files import Graph

CHILD = """
import sys
from airflow.dag_processing.dagbag import BundleDagBag
from airflow_aml_data import Dataset, Datastore, DataPath, OutputFileDatasetConfig, PythonScriptStepOperator
from airflow_aml_data import RunConfiguration, Workspace
from airflow_aml_data.policy import dag_policy

happened = []
listening = False
def hook(event, arguments):
    if listening and (event in ("open", "sqlite3.connect", "subprocess.Popen", "os.listdir", "os.scandir")
                      or event.startswith("socket.")):
        happened.append((event, str(arguments)[:200]))
sys.addaudithook(hook)

text = open(sys.argv[1]).read()
code = compile(text, sys.argv[1], "exec")
space = {"__name__": "dag_file", "__file__": sys.argv[1]}
listening = True
exec(code, space)
dag_policy(space["dag"])
listening = False

open(sys.argv[1]).close()
edges = sum(len(task.upstream_task_ids) for task in space["dag"].tasks)
print(len(space["dag"].tasks), edges, happened)
"""

MORE = """
    ws = Workspace.from_config()
    store = Datastore.get(ws, "training_data")
    for n, part in enumerate(Dataset.Tabular.from_delimited_files(DataPath(store, "iris.csv")).random_split(0.8)):
        PythonScriptStepOperator(
            task_id=f"more_{n}", script_name="step.py", runconfig=RunConfiguration(requirements=["six"]),
            inputs=[part.as_named_input("part"), Dataset.get_by_name(ws, "raw").as_named_input("raw").as_download(),
                    Dataset.File.from_files((ws.datastores["x"], "**/*.jpg")).take_sample(0.1).as_mount()],
            outputs=[OutputFileDatasetConfig(destination=(store, "a/{run-id}")).register_on_complete("r")],
        )
"""


@pytest.mark.slow
def test_200_steps_with_400_edges_open_no_file_socket_or_database(tmp_path: Path) -> None:
    steps = Graph.wide(tasks=200, edges=400).ours("audited", script="step.py")
    imports = "from airflow_aml_data import Dataset, Datastore, DataPath, RunConfiguration, Workspace\n"
    text = imports + steps.replace("with DAG('audited'):", "with DAG('audited') as dag:") + MORE
    (tmp_path / "step.py").write_text("")
    (tmp_path / "audited.py").write_text(text)

    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "audited.py")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"AIRFLOW_HOME": str(tmp_path / "home")},
    )

    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines()[-1] == "202 400 []"
