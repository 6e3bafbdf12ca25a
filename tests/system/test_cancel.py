"""A task that is cancelled in the middle of a transfer ends by itself, and clears up, before Airflow kills it.

Airflow sends SIGTERM, and SIGKILL five seconds later. Only a process that ended before the latter has given up its output in
the catalog and removed its scratch folder: that is how the tests tell.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from airflow_aml_data.core.catalog import Catalog
from dev.local_airflow import LocalAirflow
from tests.azurite import Azurite
from tests.storage.fault_proxy import Fault, FaultProxy, Request, fault_proxy
from tests.storage.stores import blob_store, names, put, with_key
from tests.system.conftest import wait_until

pytestmark = pytest.mark.system

MIB = 1 << 20
CONTAINER = "cancelled"
SIZE = 64 * MIB

DAG_FILE = """
import os
from pathlib import Path
from airflow.sdk import DAG
from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace

def note_process(context):
    Path({pids!r}, context["ti"].task_id).write_text(str(os.getpid()))

store = Datastore.get(Workspace("azureml_cancelled"), "store")
data = Dataset.File.from_files((store, "in")).as_named_input("data").as_download()
for task_id, inputs, size in (("download", [data], 1), ("upload", [], {size})):
    with DAG(f"cancelled_{{task_id}}"):
        PythonScriptStepOperator(
            task_id=task_id, source_directory="cancelled", script_name="write.py", pre_execute=note_process, inputs=inputs,
            arguments=[str(size), OutputFileDatasetConfig("out", destination=(store, task_id)).as_upload()],
        )
"""

SCRIPT = """
import os, sys
with open(os.path.join(sys.argv[2], "large.bin"), "wb") as file:
    file.write(os.urandom(int(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    azurite.create_container(CONTAINER)
    put(azurite, CONTAINER, {"in/large.bin": bytes(SIZE)})
    with fault_proxy(azurite.url) as running:
        running.slow = (16 * 1024, 0.5)
        yield running


@pytest.fixture(scope="module")
def pids(
    make_dag_file: Callable[[str, str], Path], dags_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder in which each task of the DAGs leaves the id of its process."""
    folder = tmp_path_factory.mktemp("pids")
    (dags_folder / "cancelled").mkdir()
    (dags_folder / "cancelled" / "write.py").write_text(SCRIPT)
    make_dag_file("cancelled", DAG_FILE.format(pids=str(folder), size=SIZE))
    return folder


@pytest.fixture(scope="module")
def catalog(
    airflow: LocalAirflow, azurite: Azurite, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> Catalog:
    """The catalog of a workspace behind the proxy, whose connections Airflow has."""
    url = f"sqlite:///{tmp_path_factory.mktemp('catalog') / 'catalog.db'}"
    extra = {"datastores": {"store": blob_store(CONTAINER, "wasb_cancelled")}, "catalog_connection_string": url}
    connections = {
        "azureml_cancelled": {"conn_type": "azureml", "extra": json.dumps(extra)},
        "wasb_cancelled": with_key(azurite, proxy.url),
    }
    for conn_id, fields in connections.items():
        airflow.post("/connections", {"connection_id": conn_id, **fields})
    return Catalog(url)


@pytest.mark.parametrize(("task", "fault"), [("download", "slow_response"), ("upload", "slow_request")])
def test_a_cancelled_task_ends_its_transfers(
    task: str,
    fault: Fault,
    airflow: LocalAirflow,
    azurite: Azurite,
    proxy: FaultProxy,
    catalog: Catalog,
    pids: Path,
) -> None:
    dag_id = f"cancelled_{task}"

    def slow_when_large(request: Request) -> Fault | None:
        return fault if is_transfer(request, task) else None

    proxy.decide = slow_when_large
    run_id = airflow.trigger(dag_id)
    wait_until(lambda: any(is_transfer(each, task) for each in proxy.requests))
    process = psutil.Process(int((pids / task).read_text()))

    airflow.patch(f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task}", {"new_state": "failed"})

    wait_until(lambda: not process.is_running())
    (output,) = catalog.find_outputs(dag_id=dag_id, run_id=run_id, task_id=task)
    asked = [each for each in proxy.requests if is_transfer(each, task)]
    assert output.state == "abandoned"
    assert list(scratch_root().glob(f"{output.step_run_id}*")) == []
    airflow.wait(dag_id, run_id)
    assert [each for each in proxy.requests if is_transfer(each, task)] == asked
    assert names(azurite, CONTAINER, f"{task}/") == []


def is_transfer(request: Request, task: str) -> bool:
    """Whether the bytes of the large file are in it."""
    if task == "download":
        return request.method == "GET" and "/in/large.bin" in request.target
    return request.method == "PUT" and int(request.headers.get("content-length", 0)) > 64 * 1024


def scratch_root() -> Path:
    return Path(tempfile.gettempdir(), f"airflow_aml_data_{os.getuid()}")
