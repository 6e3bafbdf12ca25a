"""No secret of a connection shows anywhere: steps run through Airflow, end well or badly, and everything they leave is searched."""

from __future__ import annotations

import base64
import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest

from airflow_aml_data import Dataset, Workspace
from airflow_aml_data.core.storage import retry
from airflow_aml_data.core.storage.azure.account import AzureAccount
from airflow_aml_data.core.storage.azure.fileshare import FileShareClient
from airflow_aml_data.core.storage.azure.share import Share
from airflow_aml_data.errors import AmlDataError
from tests.azure_files import AzureFiles
from tests.azurite import Azurite
from tests.azurite.cloud import Cloud
from tests.azurite.login import CLIENT, SECRET, TENANT, Login
from tests.skin.conftest import FinishedRun
from tests.storage.fault_proxy import Fault, FaultProxy, fault_proxy, random_faults
from tests.storage.stores import airflow_connections, blob_store, put, sas_token, with_key, with_sas

pytestmark = pytest.mark.slow

GOOD = ("key", "sas", "principal", "share_key", "share_sas")
BAD = ("wrong_key", "expired_sas", "no_container", "wrong_secret", "share_wrong_key")
ALL = (*GOOD, *BAD, "faulty")
FAULTS: dict[Fault, float] = {"reset_before": 0.1, "busy": 0.1, "half_response": 0.1}
CONTAINER = "secrets"
CONTENT = {"in/a.txt": b"content of a", "in/b.txt": b"content of b"}
WRONG_SECRET = "a secret that is not the client's"
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
    put(azurite, CONTAINER, CONTENT)
    with fault_proxy(azurite.url, random_faults(1, FAULTS)) as running:
        yield running


@pytest.fixture(scope="module")
def filled_cloud(cloud: Cloud) -> Cloud:
    """The container there."""
    with pytest.MonkeyPatch.context() as inside:
        for name, value in cloud.environment.items():
            inside.setenv(name, value)
        cloud.azurite.create_container(CONTAINER)
        put(cloud.azurite, CONTAINER, CONTENT)
    return cloud


@pytest.fixture
def share(azure_files: AzureFiles) -> AzureFiles:
    """A share with the same files."""
    azure_files.create_share(CONTAINER)
    account = AzureAccount(name="first", url=azure_files.account_url(), account_key=azure_files.keys["first"])
    for path, content in CONTENT.items():
        FileShareClient(Share(account, CONTAINER)).write(path, content, {})
    return azure_files


@dataclass
class Secrets:
    """What must not show.

    :param login: Where the tokens come from: those count too.
    """

    login: Login
    texts: set[bytes] = field(default_factory=set)

    def add_key(self, key: str) -> None:
        self.texts |= {key.encode(), quote(key, safe="").encode(), base64.b64decode(key)}

    def add_sas(self, sas: str) -> None:
        (signature,) = parse_qs(sas)["sig"]
        self.texts.add(sas.encode())
        self.add_key(signature)

    def shown_in(self, places: Mapping[str, bytes]) -> list[str]:
        """The places that hold one."""
        everything = {*self.texts, *(each.encode() for each in self.login.tokens)}
        return [name for name, content in places.items() if any(each in content for each in everything)]


@pytest.fixture
def secrets(
    workspace: Workspace,
    azurite: Azurite,
    proxy: FaultProxy,
    filled_cloud: Cloud,
    share: AzureFiles,
    monkeypatch: pytest.MonkeyPatch,
) -> Secrets:
    """A workspace with datastores that work and such that do not; every text that must not show."""
    sas, expired = sas_token(azurite), sas_token(azurite, valid=-timedelta(days=1))
    share_sas = share.sas()
    connections = {
        "store_key": with_key(azurite, azurite.url),
        "store_sas": with_sas(azurite, azurite.url, sas),
        "store_principal": with_principal(SECRET),
        "store_share_key": fileshare(share, password=share.keys["first"]),
        "store_share_sas": fileshare(share, extra={"sas_token": share_sas}),
        "store_wrong_key": with_key(azurite, azurite.url, key=WRONG_KEY),
        "store_expired_sas": with_sas(azurite, azurite.url, expired),
        "store_no_container": with_sas(azurite, azurite.url, sas),
        "store_wrong_secret": with_principal(WRONG_SECRET),
        "store_share_wrong_key": fileshare(share, password=WRONG_KEY),
        "store_faulty": with_sas(azurite, proxy.url, sas),
    }
    datastores = {
        name: {"kind": "azure_file", "file_share_name": CONTAINER, "conn_id": f"store_{name}"}
        if name.startswith("share")
        else blob_store("missing" if name == "no_container" else CONTAINER, f"store_{name}")
        for name in ALL
    }
    for name, value in (airflow_connections(datastores, **connections) | filled_cloud.environment).items():
        monkeypatch.setenv(name, value)
    found = Secrets(filled_cloud.login, {each.encode() for each in (SECRET, WRONG_SECRET)})
    for key in (azurite.keys["first"], share.keys["first"], WRONG_KEY):
        found.add_key(key)
    for token in (sas, expired, share_sas):
        found.add_sas(token)
    return found


def with_principal(secret: str) -> dict[str, Any]:
    return {"conn_type": "wasb", "host": "first", "login": CLIENT, "password": secret, "extra": {"tenant_id": TENANT}}


def fileshare(share: AzureFiles, **signs_in: Any) -> dict[str, Any]:
    return {"conn_type": "azure_fileshare", "login": share.account_url(), **signs_in}


def files_below(*folders: Path) -> dict[str, bytes]:
    """Every file below the folders: logs, Airflow's database, the catalog."""
    return {str(each): each.read_bytes() for folder in folders for each in folder.rglob("*") if each.is_file()}


@pytest.fixture
def finished(
    secrets: Secrets, run_dag: Callable[..., FinishedRun], dags_folder: Path, records: Records, tmp_path: Path
) -> FinishedRun:
    """Steps have read and written each datastore in each mode."""
    (dags_folder / "sources").mkdir()
    (dags_folder / "sources" / "look.py").write_text(LOOK)
    (tmp_path / "reports").mkdir()
    return run_dag(DAG_FILE.format(names=ALL, report=str(tmp_path / "reports"), pid=str(os.getpid())))


def test_steps_leave_no_secret_anywhere(
    capfd: pytest.CaptureFixture[str],
    finished: FinishedRun,
    secrets: Secrets,
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
    assert secrets.login.tokens
    assert secrets.shown_in(places) == []
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
        assert f"store_{name}".encode() in everything
    assert any(name.endswith("catalog.db") and b"key_direct" in each for name, each in places.items())
    assert any(name.endswith("airflow.db") and b"from_files" in each for name, each in places.items())
    for report in reports.values():
        assert any("look.py" in each for each in report["arguments"])
        assert any("launcher.py" in each for each in report["arguments"])
        assert any(each.startswith("AML_DATA_RUN_FILE=") for each in report["variables"])


@pytest.mark.parametrize("name", ALL)
def test_neither_errors_nor_reprs_show_a_secret(
    name: str,
    secrets: Secrets,
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
    assert secrets.shown_in({where: text.encode() for where, text in places.items()}) == []
    assert all(f"store_{name}" in str(each) for each in errors)
