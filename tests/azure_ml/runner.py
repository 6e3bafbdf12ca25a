"""Runs jobs for real: their command, in a folder with their code, with their inputs brought and their outputs taken away."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
import uuid
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.azure_ml.interpreter import make_interpreter, packages_of
from tests.azure_ml.job import Job, JobCanceled, JobFailed
from tests.azure_ml.locations import Location, asset_uri, bring_file, bring_folder, locate, send
from tests.azure_ml.names import GROUP, SUBSCRIPTION, WORKSPACE, parts_of, resource_id
from tests.azure_ml.state import State

LOG = "user_logs/std_log.txt"
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?")
_TERM_SECONDS, _LOG_SECONDS, _APPEND_BYTES = 2.0, 0.3, 4 * 2**20
_interpreter_lock = threading.Lock()


def log_path(job: str) -> str:
    """The blob of a job's log, in container ``azureml`` of account ``first``."""
    return f"ExperimentRun/dcid.{job}/{LOG}"


def start(state: State, job: Job) -> None:
    """Run it, in a thread of its own."""
    job.thread = threading.Thread(target=_Run(state, job).run, name=f"job {job.name}", daemon=True)
    job.thread.start()


class _Run:
    def __init__(self, state: State, job: Job) -> None:
        self.state, self.job, self.properties = state, job, job.properties
        self.folder = state.folder / "jobs" / uuid.uuid4().hex
        self.code, self.temporary, self.log = (self.folder / each for each in ("code", "tmp", "log.txt"))
        self.values: dict[str, str] = {}
        """What the command's expressions stand for."""

    def run(self) -> None:
        try:
            self._run()
        except JobCanceled:
            self._becomes("Canceled")
        except JobFailed as failed:
            self._fails(str(failed))
        finally:
            if not self.job.ended:
                self._fails("The runner itself failed.")
            self._clean()

    def _run(self) -> None:
        self._becomes("Queued")
        self.state.hold.wait("Queued", self.job.to_end)
        self._becomes("Preparing")
        self._prepare()
        command = self._filled(self.properties["command"])
        self._becomes("Running")
        self.state.hold.wait("Running", self.job.to_end)
        if self.job.to_end.is_set():
            raise JobCanceled
        try:
            self._execute(command)
            self._becomes("Finalizing")
            self._send_outputs({"Upload"})
        finally:
            self._send_outputs({"ReadWriteMount"})  # what was written through a mount stays, however the job ends
        with self.state.lock:
            if not self.job.to_end.is_set():
                self._register()
            self.job.becomes("Completed")

    def _becomes(self, status: str, error: str = "") -> None:
        with self.state.lock:
            self.job.becomes(status, error)

    def _fails(self, error: str) -> None:
        try:
            self._becomes("Failed", error)
        except JobCanceled:
            self._becomes("Canceled")

    def _prepare(self) -> None:
        for each in (self.code, self.temporary):
            each.mkdir(parents=True)
        match parts_of(self.properties["codeId"] or ""):
            case ["codes", name, "versions", version]:
                bring_folder(self.state, locate(self.state, self.state.codes[name][version]["codeUri"]), self.code)
        for name, each in self.properties["inputs"].items():
            self.values[f"inputs.{name}"] = (
                each["value"] if each["jobInputType"] == "literal" else self._bring(name, each)
            )
        for name, each in self._outputs().items():
            self.values[f"outputs.{name}"] = (
                each["uri"] if each["mode"] == "Direct" else str(self._made_for(name, each))
            )

    def _bring(self, name: str, each: dict[str, Any]) -> str:
        """The text that an input's expression stands for."""
        if each["mode"] == "Direct":
            return asset_uri(self.state, each["uri"])
        location, target = locate(self.state, each["uri"]), self.folder / "inputs" / name
        if each["jobInputType"] == "uri_file":
            target /= Path(location.path).name
            bring_file(self.state, location, target)
        else:
            bring_folder(self.state, location, target)
        if each["mode"] in ("ReadOnlyMount", "EvalMount"):
            for path in (target, *target.rglob("*")):
                path.chmod(path.stat().st_mode & ~0o222)
        return str(target)

    def _outputs(self) -> dict[str, dict[str, Any]]:
        """Those that the job itself names."""
        return {
            name: each
            for name, each in self.properties["outputs"].items()
            if name in (self.job.body.get("outputs") or {})
        }

    def _made_for(self, name: str, each: dict[str, Any]) -> Path:
        """Where the command writes an output."""
        folder = self.folder / "outputs" / name
        folder.mkdir(parents=True, exist_ok=True)
        is_file = each["jobOutputType"] == "uri_file"
        return folder / Path(each["uri"].rstrip("/")).name if is_file else folder

    def _filled(self, command: str) -> str:
        if unknown := {each for each in _EXPRESSION.findall(command) if each not in self.values}:
            raise JobFailed(f"The command names what the job does not have: {sorted(unknown)}.")
        return _EXPRESSION.sub(lambda found: self.values[found[1]], command)

    def _environment(self) -> dict[str, str]:
        with _interpreter_lock:
            programs = make_interpreter(self.state.folder / "python", self._packages())
        data = {
            f"AZURE_ML_{name.partition('s.')[0].upper()}_{name.partition('.')[2]}": value
            for name, value in self.values.items()
            if self._is_data(name)
        }
        return {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.temporary),
            "LANG": "C.UTF-8",
            **self.state.environment,
            "AZUREML_RUN_ID": self.job.name,
            "AZUREML_ARM_SUBSCRIPTION": SUBSCRIPTION,
            "AZUREML_ARM_RESOURCEGROUP": GROUP,
            "AZUREML_ARM_WORKSPACE_NAME": WORKSPACE,
            **data,
            **self.properties["environmentVariables"],
        }

    def _packages(self) -> list[str]:
        parts = parts_of(self.properties["environmentId"])
        known = self.state.environments.get(parts[1], {}) if parts[:1] == ["environments"] else {}
        return packages_of(known[parts[3]]) if known else []

    def _is_data(self, name: str) -> bool:
        kind, _, key = name.partition(".")
        return kind == "outputs" or self.properties["inputs"][key]["jobInputType"] != "literal"

    def _execute(self, command: str) -> None:
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.code,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._follow(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self.job.exit_code:
            raise JobFailed(f"Execution failed. User process 'bash' exited with status code {self.job.exit_code}.")

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for its end, or bring it about, and publish its log meanwhile."""
        limits = self.properties["limits"] or {}
        deadline = time.monotonic() + _seconds(limits["timeout"]) if limits.get("timeout") else None
        with _Log(self.state, self.job, self.log) as log:
            while not self.job.to_end.is_set():
                try:
                    self.job.exit_code = process.wait(0.05)
                except subprocess.TimeoutExpired:
                    log.grow_at_times()
                else:
                    return
                if deadline and time.monotonic() > deadline:
                    _terminate(process, 0.0)
                    raise JobFailed(f"The job ran longer than its timeout of {limits['timeout']}.")
            self.job.exit_code = _terminate(process, 0.0 if self.job.aborted else _TERM_SECONDS)
        raise JobCanceled

    def _send_outputs(self, modes: set[str]) -> None:
        for name, each in self._outputs().items():
            source = self._made_for(name, each)
            if each["mode"] not in modes:
                continue
            if each["mode"] == "Upload" and not source.exists():
                raise JobFailed(f"Output '{name}' was not written.")
            if source.exists():
                send(self.state, source, locate(self.state, each["uri"]))

    def _register(self) -> None:
        """Of every output, what is there; of those with a name, a version of that data asset."""
        for name, each in self._outputs().items():
            asset, version = each.get("assetName") or f"azureml_{self.job.name}_output_{name}", "1"
            if each.get("assetName"):
                version = self.state.add_data_asset(asset, each["uri"], kind=each["jobOutputType"])
            self.job.assets[name] = f"azureml:/{resource_id('data', asset, 'versions', version)}"

    def _clean(self) -> None:
        for path, folders, _ in os.walk(self.folder):
            for each in folders:
                folder = Path(path, each)
                if not folder.is_symlink():
                    folder.chmod(stat.S_IRWXU)
        shutil.rmtree(self.folder, ignore_errors=True)


class _Log:
    """The blob of a job's log, which grows while the job runs."""

    def __init__(self, state: State, job: Job, file: Path) -> None:
        self._job, self._file, self._size, self._last = job, file, 0, 0.0
        location = Location(account="first", container="azureml", path=log_path(job.name))
        self._blob = state.storage.container(location.account, location.container).get_blob_client(location.path)

    def __enter__(self) -> _Log:
        self._blob.create_append_blob()
        self._job.has_log = True
        return self

    def __exit__(self, *error: object) -> None:
        self._grow()
        self._blob.close()

    def grow_at_times(self) -> None:
        if time.monotonic() - self._last > _LOG_SECONDS:
            self._grow()

    def _grow(self) -> None:
        with self._file.open("rb") as file:
            file.seek(self._size)
            while block := file.read(_APPEND_BYTES):
                self._blob.append_block(block)
                self._size += len(block)
        self._last = time.monotonic()
        self._job.log = self._file.read_bytes()[: self._size].decode(errors="replace")


def _terminate(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit code of a process that was asked to end, and killed when that takes longer."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM if seconds else signal.SIGKILL)
    try:
        return process.wait(seconds or None)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _seconds(duration: str) -> float:
    found = _DURATION.fullmatch(duration)
    if not found:
        raise JobFailed(f"The timeout {duration!r} is no duration.")
    days, hours, minutes, seconds = (float(each or 0) for each in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
