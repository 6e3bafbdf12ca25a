"""Files of Azure Blob storage as a file system: read, listed, and beside what ``rclone mount`` and a download take.

Ours is a step's input in mount mode. *Mount to read* is the time from the start of the script's process, whose file system
is mounted for it, until it has read; for rclone from the start of rclone. Both are told what is there by a listing.
"""

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from airflow_aml_data.core.compute.local import Command, LocalCompute
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.plan import StepDeclaration
from airflow_aml_data.core.step import run_step
from dev.bench.blob_server import Server, running_server
from dev.bench.report import Report, Row
from dev.bench.transfer_cases import Bench, Store, programs, workplace
from dev.bench.transfer_contenders import connected
from dev.bench.transfers import KEY, MEMORY_BYTES, ONE_LARGE, SMALL

_READING = Path(__file__).with_name("mount_reading.py")
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
CASES = {"small": SMALL, "large": ONE_LARGE}


class Reading(NamedTuple):
    """What reading took.

    :param from_mount: The seconds from the mount on.
    :param bytes_moved: What the server sent.
    """

    from_mount: float
    seconds: float
    bytes_moved: int


def run(report: Report) -> None:
    with running_server(memory_bytes=MEMORY_BYTES) as server:
        store = Store(url=server.url, key=KEY)
        with workplace() as folder:
            _report_small(report, Bench(store, CASES["small"], folder), server, folder)
    with running_server(memory_bytes=MEMORY_BYTES) as server:
        store = Store(url=server.url, key=KEY)
        with workplace() as folder:
            _report_large(report, Bench(store, CASES["large"], folder), server, folder)


def _report_small(report: Report, bench: Bench, server: Server, folder: Path) -> None:
    files, size = len(CASES["small"].sizes), CASES["small"].size_bytes
    ten, listed = (ours(bench, server, folder, work) for work in ("ten", "list"))
    downloaded = bench.run("ours", "down", whole_check=False).seconds
    name = f"10 of {files:,} files, from mount to read"
    report.add(Row(name=f"{name} (theirs: download)", ours=ten.from_mount, theirs=downloaded, most=0.5))
    moved = ten.bytes_moved / 1e6
    report.add(Row(name="  bytes moved, the listing too (theirs: all)", ours=moved, theirs=size / 1e6, unit="MB"))
    listing = listed.bytes_moved / 1e6
    read = max(ten.bytes_moved - listed.bytes_moved, 1) / 1e6
    report.add(Row(name="  of them for reading (theirs: all)", ours=read, theirs=size / 1e6, unit="MB", target=100))
    report.add(Row(name="  of them the listing (theirs: all)", ours=listing, theirs=size / 1e6, unit="MB"))
    if by_rclone := rclone(bench, server, folder, "ten"):
        report.add(Row(name=f"{name} (theirs: rclone mount)", ours=ten.from_mount, theirs=by_rclone.from_mount))
    name = f"ls -lR of {files:,} mounted files"
    theirs = rclone(bench, server, folder, "list")
    seconds = theirs.seconds if theirs else downloaded
    contender = "rclone mount" if theirs else "download"
    report.add(Row(name=f"{name} (theirs: {contender})", ours=listed.seconds, theirs=seconds, most=1))


def _report_large(report: Report, bench: Bench, server: Server, folder: Path) -> None:
    name = f"{CASES['large'].name} read from a mount"
    read = ours(bench, server, folder, "all")
    downloaded = bench.run("ours", "down", whole_check=False).seconds
    report.add(Row(name=f"{name} (theirs: download)", ours=read.from_mount, theirs=downloaded, target=0.5))
    if by_rclone := rclone(bench, server, folder, "all"):
        report.add(
            Row(name=f"{name} (theirs: rclone mount)", ours=read.from_mount, theirs=by_rclone.from_mount, target=1.5)
        )


def ours(bench: Bench, server: Server, folder: Path, work: str) -> Reading:
    """A step that mounts the files and reads them."""
    transfer = bench.transfer("source", folder)
    sources = folder / "sources"
    sources.mkdir(exist_ok=True)
    shutil.copy(_READING, sources / "step.py")
    printed: list[str] = []
    started = 0.0

    class Timed(LocalCompute):
        def run(self, command: Command, on_line: Callable[[str], None]) -> int:
            nonlocal started
            started = time.monotonic()
            return super().run(command, on_line)

    given = OutputReference(**bench.reference).as_dataset().as_named_input("files").as_mount()
    declared = StepDeclaration(
        run=StepRun(dag_id="bench", run_id="bench", task_id="read", unique=str(uuid.uuid4())),
        command=[sys.executable, "step.py", given, work],
        source_directory=sources,
        inputs=(),
        outputs=(),
    )
    before = _sent(server)
    run_step(connected(transfer), declared, Timed(), on_line=printed.append, scratch_root=folder / "scratch")
    told = next(json.loads(line) for line in printed if line.startswith("{"))
    return Reading(told["ended"] - started, told["seconds"], _sent(server) - before)


def rclone(bench: Bench, server: Server, folder: Path, work: str) -> Reading | None:
    """The same by rclone, in a mount namespace of its own; None, and a line that says so, where that is not possible."""
    transfer = bench.transfer("source", folder / "mounted")
    Path(transfer.folder).mkdir(exist_ok=True)
    remote = (
        f":azureblob,sas_url='{transfer.url}/{transfer.container}?{transfer.sas}':{transfer.container}/{transfer.path}"
    )
    command = [*_NAMESPACE, sys.executable, _READING, transfer.folder, work, programs().rclone.absolute(), remote]
    before = _sent(server)
    ended = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    if ended.returncode:
        print(f"  rclone mount is not possible here: {ended.stderr.strip()[-200:]}", flush=True)
        return None
    told = json.loads(ended.stdout.splitlines()[-1])
    return Reading(told["ended"] - told["begun"], told["seconds"], _sent(server) - before)


def _sent(server: Server) -> int:
    """What the server's process has written so far."""
    lines = Path(f"/proc/{server.process_id}/io").read_text().splitlines()
    return int(next(each for each in lines if each.startswith("wchar")).split()[1])
