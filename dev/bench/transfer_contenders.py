"""What the bench of transfers runs: commands of others, and scripts with ours and the Python libraries that others use.

Each runs in a process of its own, from its start to its end: ``transfer_contenders.py NAME DIRECTION`` with the
:class:`Transfer` as JSON in the environment. What ours and WasbHook import that is there in every task, Airflow's own, does not
count. Theirs move files, and no more. Ours does what a step does: the committed output's manifest is read and compared with a
listing, and checksums are verified; or checksums are computed, the files uploaded under a journal, a manifest written, and the
output committed to the catalog, which a step before it has made. Nobody reads back what was uploaded: over http ours would.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_aml_data.core.connect import ConnectedWorkspace

TRANSFER_VARIABLE = "BENCH_TRANSFER"
AZCOPY_OPTIONS = ("--recursive", "--check-version=false", "--log-level=NONE", "--output-level=essential")
_THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One transfer: what is there, and where it goes.

    :param sas: A token for the account, for those who want an address.
    :param path: The folder in the container; ours uploads to one named for the step's run.
    :param folder: The local folder.
    :param home: Where ours finds its catalog and has its scratch.
    :param reference: The committed output to download, for ours.
    """

    url: str
    connection_string: str
    sas: str
    container: str
    path: str
    folder: str
    home: str
    reference: Mapping[str, Any] | None = None

    def to_environment(self) -> dict[str, str]:
        return {TRANSFER_VARIABLE: json.dumps(asdict(self))}

    @property
    def local_files(self) -> dict[str, Path]:
        """Path below the folder to the file."""
        found = (each for each in Path(self.folder).rglob("*") if each.is_file())
        return {each.relative_to(self.folder).as_posix(): each for each in found}

    def local(self, path: str) -> Path:
        """Where a blob goes; its folder is made."""
        target = Path(self.folder, path.removeprefix(f"{self.path}/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def azcopy(program: Path, transfer: Transfer, direction: str) -> tuple[list[str], dict[str, str]]:
    """The command, and what it wants in its environment."""
    address = f"{transfer.url}/{transfer.container}/{transfer.path}"
    places = [f"{transfer.folder}/*", f"{address}?{transfer.sas}"]
    if direction == "down":
        places = [f"{address}/*?{transfer.sas}", transfer.folder]
    command = [
        str(program),
        "copy",
        *places,
        f"--from-to={'BlobLocal' if direction == 'down' else 'LocalBlob'}",
        *AZCOPY_OPTIONS,
    ]
    return command, azcopy_environment(program, transfer.home)


def azcopy_environment(program: Path, home: str) -> dict[str, str]:
    """What it wants there."""
    folders = {f"AZCOPY_{each}_LOCATION": f"{home}/azcopy" for each in ("LOG", "JOB_PLAN")}
    return {**folders, "AZCOPY_DISABLE_SYSLOG": "true", "LD_LIBRARY_PATH": str(program.parent)}


def rclone(program: Path, transfer: Transfer, direction: str) -> tuple[list[str], dict[str, str]]:
    """The command, and what it wants in its environment."""
    places = [transfer.folder, f":azureblob:{transfer.container}/{transfer.path}"]
    if direction == "down":
        places.reverse()
    options = ["--config", "/dev/null", "--transfers", "32", "--checkers", "32", "--azureblob-no-check-container"]
    return [str(program), "copy", *places, *options], {
        "RCLONE_AZUREBLOB_SAS_URL": f"{transfer.url}/{transfer.container}?{transfer.sas}"
    }


def connected(transfer: Transfer) -> ConnectedWorkspace:
    """A workspace whose only datastore is the container."""
    from airflow_aml_data.core.configuration import WorkspaceConfig
    from airflow_aml_data.core.connect import ConnectedWorkspace
    from airflow_aml_data.core.connections import ConnectionFields

    store = {
        "kind": "azure_blob",
        "container_name": transfer.container,
        "conn_id": "bench",
        "verify_uploads": False,
    }
    fields = ConnectionFields(
        conn_id="bench", conn_type="wasb", extra={"connection_string": transfer.connection_string}
    )
    config = WorkspaceConfig.from_mapping("azureml_default", {"datastores": {"store": store}}, Path(transfer.home))
    return ConnectedWorkspace(replace(config, connections={"bench": fields}))


def ours(transfer: Transfer, direction: str) -> None:
    """A step whose script does nothing: it takes the input's folder as it is, or gives the output's one that is ready."""
    import_before_the_clock("asyncio", "httpcore", "httpx", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql")
    from airflow_aml_data.core.compute.local import Command
    from airflow_aml_data.core.identity import StepRun
    from airflow_aml_data.core.outputs import OutputFileDatasetConfig, OutputReference
    from airflow_aml_data.core.plan import StepDeclaration
    from airflow_aml_data.core.step import run_step

    workspace = connected(transfer)
    if direction == "list":
        print(sum(1 for _ in workspace.storage("store").list_files(transfer.path)))
        return

    class Script:
        def run(self, command: Command, on_line: Callable[[str], None]) -> int:
            if direction == "down":
                Path(command.environment["AZURE_ML_INPUT_files"]).rename(transfer.folder)
            else:
                Path(transfer.folder).rename(command.environment["AZURE_ML_OUTPUT_files"])
            return 0

    inputs: Sequence[Any] = []
    outputs: Sequence[Any] = []
    if transfer.reference is not None:
        inputs = [OutputReference(**transfer.reference).as_dataset().as_named_input("files").as_download()]
    if direction == "up":
        outputs = [OutputFileDatasetConfig("files").as_upload()]
    run = StepRun(dag_id="bench", run_id="bench", task_id="step", unique=f"{os.getpid()}-{time.time_ns()}")
    declared = StepDeclaration(run=run, command=["script"], inputs=inputs, outputs=outputs)
    result = run_step(workspace, declared, Script(), on_line=print, scratch_root=Path(transfer.home) / "scratch")
    print(json.dumps([asdict(each) for each in result.outputs]))


def azure_storage_blob(transfer: Transfer, direction: str) -> None:
    """Microsoft's library, on threads."""
    from azure.storage.blob import ContainerClient

    client = ContainerClient.from_connection_string(transfer.connection_string, transfer.container)

    def fetch(path: str) -> None:
        with transfer.local(path).open("wb") as stream:
            client.download_blob(path, max_concurrency=8).readinto(stream)

    def store(each: tuple[str, Path]) -> None:
        with each[1].open("rb") as stream:
            client.upload_blob(f"{transfer.path}/{each[0]}", stream, max_concurrency=8, length=each[1].stat().st_size)

    if direction == "list":
        print(sum(1 for _ in client.list_blobs(name_starts_with=f"{transfer.path}/")))
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        if direction == "down":
            names = [each.name for each in client.list_blobs(name_starts_with=f"{transfer.path}/")]
            done = pool.map(fetch, names)
        else:
            done = pool.map(store, transfer.local_files.items())
        list(done)


def adlfs(transfer: Transfer, direction: str) -> None:
    """What pandas and fsspec use."""
    from adlfs import AzureBlobFileSystem

    files = AzureBlobFileSystem(connection_string=transfer.connection_string, account_name="bench")
    stored = f"{transfer.container}/{transfer.path}"
    if direction == "down":
        files.get(f"{stored}/", f"{transfer.folder}/", recursive=True, batch_size=32)
    else:
        files.put(f"{transfer.folder}/", f"{stored}/", recursive=True, batch_size=32)


def wasb_hook(transfer: Transfer, direction: str) -> None:
    """A loop over the hook's calls, as tasks have it."""
    import_before_the_clock("airflow.sdk")
    from airflow.providers.microsoft.azure.hooks.wasb import WasbHook

    hook = WasbHook("bench")
    if direction == "down":
        for path in hook.get_blobs_list_recursive(transfer.container, prefix=f"{transfer.path}/"):
            hook.get_file(str(transfer.local(path)), transfer.container, path)
    else:
        for path, file in transfer.local_files.items():
            hook.load_file(str(file), transfer.container, f"{transfer.path}/{path}")


def import_before_the_clock(*modules: str) -> None:
    """Import what is there in a task, and print first of all what that took."""
    start, cpu_start = time.perf_counter(), time.process_time()
    for each in modules:
        import_module(each)
    took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
    print(json.dumps(took), flush=True)


def wasb_environment(connection_string: str, home: str) -> dict[str, str]:
    connection = {"conn_type": "wasb", "extra": {"connection_string": connection_string}}
    return {"AIRFLOW_CONN_BENCH": json.dumps(connection), "AIRFLOW_HOME": f"{home}/airflow"}


def main() -> None:
    name, direction = sys.argv[1:]
    transfer = Transfer(**json.loads(os.environ[TRANSFER_VARIABLE]))
    globals()[name](transfer, direction)


if __name__ == "__main__":
    main()
