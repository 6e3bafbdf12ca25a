"""No secret of a connection shows anywhere: steps run through Airflow, end well or badly, and everything they leave is searched."""

from __future__ import annotations

import base64
import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest

from airflow_aml_data import Dataset, Workspace
from airflow_aml_data.core.storage import retry
from airflow_aml_data.errors import AmlDataError
from tests.azurite import Azurite
from tests.skin.conftest import FinishedRun
from tests.storage.fault_proxy import Fault, FaultProxy, fault_proxy, random_faults
from tests.storage.stores import airflow_connections, blob_store, put, sas_token, with_key, with_sas

pytestmark = pytest.mark.slow

GOOD = ("key", "sas")
BAD = ("wrong_key", "expired_sas", "no_container")
ALL = (*GOOD, *BAD, "faulty")
FAULTS: dict[Fault, float] = {"reset_before": 0.1, "busy": 0.1, "half_response": 0.1}
CONTAINER = "secrets"
WRONG_KEY = base64.b64encode(b"a key that the account does not have").decode()

DAG_FILE = """
from airflow.sdk import DAG
from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator, Workspace

with DAG("secrets"):
    for name in {names!r}:
        store = Datastore.get(Workspace(), name)
        data = Dataset.File.from_files((store, "in"))
        for way, given in (
            ("direct", data.as_named_input("data")),
            ("download", data.as_named_input("data").as_download()),
            ("mount", data.as_named_input("data").as_mount()),
        ):
            PythonScriptStepOperator(
                task_id=f"{{name}}_{{way}}",
                source_directory="sources",
                script_name="look.py",
                arguments=[
                    {report!r} + f"/{{name}}_{{way}}.json",
                    {pid!r},
                    OutputFileDatasetConfig("out", destination=(store, "out/{{run-id}}/{{output-name}}"))
                    .as_upload()
                    .register_on_complete(f"{{name}}_{{way}}"),
                ],
                inputs=[given],
            )
"""

LOOK = """
import json, os, sys
from pathlib import Path

from azureml.core import Run

report, test_process, output = sys.argv[1:]

def parent(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]

family = ["self"]
while (above := parent(family[-1])) not in (test_process, "0", "1"):
    family.append(above)
arguments, variables = [], []
for process in Path("/proc").glob("[0-9]*"):
    try:
        arguments.append((process / "cmdline").read_bytes().decode(errors="replace"))
        if process.name in family or parent(process.name) in family:
            variables.append((process / "environ").read_bytes().decode(errors="replace"))
    except OSError:
        continue
run_file = Path(os.environ["AML_DATA_RUN_FILE"])
Path(report).write_text(json.dumps({
    "arguments": arguments,
    "variables": [*variables, *(f"{name}={value}" for name, value in os.environ.items())],
    "run_file": str(run_file),
    "modes": [run_file.stat().st_mode & 0o777, run_file.parent.stat().st_mode & 0o777],
}))

run = Run.get_context()
workspace = run.experiment.workspace
data = run.input_datasets["data"]
print("SCRIPT", run, run.experiment, workspace, data, run.get_details(), run.output_datasets)
print("SCRIPT", dict(workspace.datastores), workspace.get_default_datastore())
if not isinstance(data, str):
    data = os.path.commonpath(data.download())
Path(output, "copy.txt").write_text("".join(
    each.read_text() for each in (Path(data).rglob("*") if Path(data).is_dir() else [Path(data)]) if each.is_file()
))
"""


class Records(logging.Handler):
    """Everything that is logged, as it was before Airflow masks what it knows to be secret."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def records() -> Iterator[Records]:
    handler = Records()
    loggers = [logging.getLogger(each) for each in ("", "airflow_aml_data")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.DEBUG)
    yield handler
    for each, level in zip(loggers, levels, strict=True):
        each.removeHandler(handler)
        each.setLevel(level)


@pytest.fixture(scope="module")
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    azurite.create_container(CONTAINER)
    put(azurite, CONTAINER, {"in/a.txt": b"content of a", "in/b.txt": b"content of b"})
    with fault_proxy(azurite.url, random_faults(1, FAULTS)) as running:
        yield running


@pytest.fixture
def secrets(workspace: Workspace, azurite: Azurite, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """A workspace with datastores that work and such that do not; every text that must not show."""
    sas, expired = sas_token(azurite), sas_token(azurite, valid=-timedelta(days=1))
    connections = {
        "wasb_key": with_key(azurite, azurite.url),
        "wasb_sas": with_sas(azurite, azurite.url, sas),
        "wasb_wrong_key": with_key(azurite, azurite.url, key=WRONG_KEY),
        "wasb_expired_sas": with_sas(azurite, azurite.url, expired),
        "wasb_no_container": with_sas(azurite, azurite.url, sas),
        "wasb_faulty": with_sas(azurite, proxy.url, sas),
    }
    datastores = {name: blob_store("missing" if name == "no_container" else CONTAINER, f"wasb_{name}") for name in ALL}
    for name, value in airflow_connections(datastores, **connections).items():
        monkeypatch.setenv(name, value)
    found: set[bytes] = set()
    for key in (azurite.keys["first"], WRONG_KEY):
        found |= {key.encode(), quote(key, safe="").encode(), base64.b64decode(key)}
    for token in (sas, expired):
        (signature,) = parse_qs(token)["sig"]
        found |= {token.encode(), signature.encode(), quote(signature, safe="").encode(), base64.b64decode(signature)}
    return found


def shown_in(secrets: set[bytes], places: dict[str, bytes]) -> list[str]:
    """The places that hold a secret."""
    return [name for name, content in places.items() if any(each in content for each in secrets)]


def files_below(*folders: Path) -> dict[str, bytes]:
    """Every file below the folders: logs, Airflow's database, the catalog."""
    return {str(each): each.read_bytes() for folder in folders for each in folder.rglob("*") if each.is_file()}


@pytest.fixture
def finished(
    secrets: set[bytes], run_dag: Callable[..., FinishedRun], dags_folder: Path, records: Records, tmp_path: Path
) -> FinishedRun:
    """Steps have read and written each datastore in each mode."""
    (dags_folder / "sources").mkdir()
    (dags_folder / "sources" / "look.py").write_text(LOOK)
    (tmp_path / "reports").mkdir()
    return run_dag(DAG_FILE.format(names=ALL, report=str(tmp_path / "reports"), pid=str(os.getpid())))


def test_steps_leave_no_secret_anywhere(
    capfd: pytest.CaptureFixture[str],
    finished: FinishedRun,
    secrets: set[bytes],
    records: Records,
    tmp_path: Path,
) -> None:
    ended = finished.task_states
    good, bad = (
        {f"{store}_{way}" for store in stores for way in ("direct", "download", "mount")} for stores in (GOOD, BAD)
    )
    reports = {each.name: json.loads(each.read_text()) for each in (tmp_path / "reports").iterdir()}
    said = capfd.readouterr()
    files = files_below(Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).parent, tmp_path)

    assert {ended[each] for each in good} == {"success"}
    assert {ended[each] for each in bad} == {"failed"}
    places = files | {
        "printed": f"{said.out}{said.err}".encode(),
        "logged": "\n".join(records.lines).encode(),
        "xcom": repr([finished.xcom(task, "out") for task in good]).encode(),
    }
    assert shown_in(secrets, places) == []
    for report in reports.values():
        assert report["modes"] == [0o600, 0o700]
        assert not Path(report["run_file"]).exists()
    assert_looked_everywhere(places, reports)


def assert_looked_everywhere(places: dict[str, bytes], reports: dict[str, Any]) -> None:
    """What was searched holds what a secret would stand beside."""
    everything = b"".join(places.values())
    assert b"SCRIPT" in places["printed"]
    assert b"Reads 'data' (download)" in places["logged"]
    for name in BAD:
        assert f"wasb_{name}".encode() in everything
    assert any(name.endswith("catalog.db") and b"key_direct" in each for name, each in places.items())
    assert any(name.endswith("airflow.db") and b"from_files" in each for name, each in places.items())
    for report in reports.values():
        assert any("look.py" in each for each in report["arguments"])
        assert any("launcher.py" in each for each in report["arguments"])
        assert any(each.startswith("AML_DATA_RUN_FILE=") for each in report["variables"])


@pytest.mark.parametrize("name", ALL)
def test_neither_errors_nor_reprs_show_a_secret(
    name: str,
    secrets: set[bytes],
    proxy: FaultProxy,
    records: Records,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "_FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(proxy, "decide", random_faults(2, {fault: 1 / len(FAULTS) for fault in FAULTS}))
    workspace = Workspace()
    datastore = workspace.datastores[name]
    files = Dataset.File.from_files((datastore, "in"))
    connected = workspace.connect()
    errors: list[AmlDataError] = []
    found: list[object] = [workspace, datastore, files, connected, connected.config, connected.check()]
    (tmp_path / "new.txt").write_text("new")

    for use in (
        lambda: connected.storage(name).check(),
        lambda: [*connected.storage(name).list_files("")],
        lambda: connected.storage(name).read_bytes("in/a.txt"),
        lambda: connected.storage(name).write_bytes("new", b"new"),
        lambda: connected.storage(name).delete_files(["new"]),
        files.to_path,
        lambda: files.download(tmp_path / "down"),
        lambda: datastore.upload_files([tmp_path / "new.txt"], target_path=f"new/{name}", overwrite=True),
    ):
        try:
            found.append(use())
        except AmlDataError as error:
            errors.append(error)
    with suppress(AmlDataError):
        storage = connected.storage(name)
        found += [
            storage,
            *vars(storage).values(),
            connected.config.datastores[name],
            *connected.config.connections.values(),
        ]

    assert bool(errors) == (name not in GOOD)
    texts = ["".join(traceback.format_exception(each)) for each in errors]
    places = {"errors": "\n".join(texts), "reprs": repr(found), "logged": "\n".join(records.lines)}
    assert shown_in(secrets, {where: text.encode() for where, text in places.items()}) == []
    assert all(f"wasb_{name}" in str(each) for each in errors)
