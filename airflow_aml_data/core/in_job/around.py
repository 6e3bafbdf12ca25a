"""Runs a step's script in an Azure ML job: inputs at their places before it, outputs and a report after it.

Standard library only, unless files have to be made of a table first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_aml_data.core import records
from airflow_aml_data.core.in_job.told import (
    RECORDS_FILE,
    REPORT,
    REPORT_FILE,
    TOLD,
    TOLD_FILE,
    Report,
    ReportedOutput,
    ToldInput,
    ToldStep,
    slot_text,
)
from airflow_aml_data.core.places import make_room
from airflow_aml_data.core.protocol import RunFile, RunInput
from airflow_aml_data.core.records import PARENT
from airflow_aml_data.core.run_files import RUN_FILES, folder_state, gather, stored_files
from airflow_aml_data.core.variables import script_variables
from airflow_aml_data.core.written import not_readable, written_files
from airflow_aml_data.errors import OutputUnusable, UserError

_FAILED = 1


@dataclass(frozen=True, slots=True)
class _Job:
    """The job's own places.

    :param work: The folder of the code, in which the script starts.
    :param scratch: A folder that goes away with the job.
    :param places: Where Azure ML shows the inputs of the job, and what it stores as its outputs.
    """

    told: ToldStep
    work: Path
    scratch: Path
    places: Mapping[str, str]

    def shown(self, name: str) -> Path:
        """Where Azure ML shows an input of the job."""
        return Path(self.places[name])

    def stored(self, name: str) -> Path:
        """The folder that Azure ML stores as an output of the job."""
        folder = Path(self.places[name])
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def main(script_side: str, arguments: Sequence[str]) -> int:
    """Run the script, and return the exit code of the job: 0 when every output can be stored.

    :param script_side: The folder from which this package is imported.
    :param arguments: ``name=path`` of each input and output of the job, ``--``, and the command of the step.
    """
    end = arguments.index("--")
    places = dict(each.split("=", 1) for each in arguments[:end])
    told = ToldStep.from_bytes(Path(places[TOLD], TOLD_FILE).read_bytes())
    job = _Job(told, Path.cwd(), Path(tempfile.mkdtemp(prefix="aml_data_step_")), places)
    outputs = {name: _output_place(job, name) for name in told.outputs}
    run_file, inputs = RunFile(**told.run, workspace=_workspace(job)), {}
    try:
        for name, each in told.inputs.items():
            inputs[name] = RunInput(mode=each.mode, path=_input_place(job, name, each), dataset=each.dataset)
    except UserError as error:
        _report(job, 126, str(error))
        print(error, file=sys.stderr)
        return _FAILED
    paths = {slot_text(name, is_output=False): each.path or each.dataset["id"] for name, each in inputs.items()}
    paths |= {slot_text(name, is_output=True): str(path) for name, path in outputs.items()}
    words = [paths.get(each, each) for each in arguments[end + 1 :]]
    (files_folder := job.scratch / "run_files").mkdir()
    (job.scratch / "parent.jsonl").write_text("\n".join(told.parent_records))
    run_file = replace(
        run_file,
        inputs=inputs,
        outputs={name: str(path) for name, path in outputs.items()},
        arguments=[] if words[0] == "bash" else words[2:],
        folder=str(job.work),
        shipped=folder_state(job.work),
        files_folder=str(files_folder),
        records_file=str(job.scratch / "records.jsonl"),
        parent_records_file=str(job.scratch / "parent.jsonl"),
        started_at=datetime.now(UTC).isoformat(),
    )
    run_file.write(job.scratch / "run.json")
    variables = script_variables(os.environ, run_file, job.scratch / "run.json", Path(script_side))
    return _after(job, run_file, _run(words, job.work, variables))


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """The exit code of the script; what ends the job ends the script first."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is the step's
            command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return process.wait()


def _after(job: _Job, run_file: RunFile, code: int) -> int:
    """Bring what the script left to where Azure ML stores it, and report."""
    report = job.stored(REPORT)
    if (written := Path(run_file.records_file)).exists():
        shutil.copyfile(written, report / RECORDS_FILE)
    ended = {each.kind for each in records.read(written) if each.run in ("", PARENT)}
    if code != 0 or ended & {"failed", "canceled"}:
        _report(job, code)
        return code if code > 0 else _FAILED
    try:
        outputs = {name: _bring(job, name, Path(path)) for name, path in run_file.outputs.items()}
    except OutputUnusable as error:
        _report(job, code, str(error))
        print(error, file=sys.stderr)
        return _FAILED
    files = Path(run_file.files_folder)
    records.keep(records.read(written), files)
    own = [Path(path) for name, path in run_file.outputs.items() if job.told.outputs[name].source]
    if gather(job.work, run_file.shipped, files, own):
        found = [(name, str(file)) for name, file in stored_files(files).items()]
        outputs[RUN_FILES] = ReportedOutput(files=_moved(found, job.stored(RUN_FILES)), is_file=False)
    _report(job, code, outputs=outputs)
    return 0


def _report(job: _Job, code: int, unusable: str = "", outputs: Mapping[str, ReportedOutput] | None = None) -> None:
    report = Report(exit_code=code, unusable=unusable, outputs=outputs or {})
    (job.stored(REPORT) / REPORT_FILE).write_bytes(report.to_bytes())


def _output_place(job: _Job, name: str) -> Path:
    """Where the script writes an output: in upload mode a folder of its own, which it may also make a file."""
    told = job.told.outputs[name]
    if told.source:
        return job.work / told.source
    if told.mode == "mount":
        return job.stored(name)
    (place := job.scratch / "outputs" / name).mkdir(parents=True)
    return place


def _bring(job: _Job, name: str, place: Path) -> ReportedOutput:
    told = job.told.outputs[name]
    found = written_files(name, place, is_own=bool(told.source), source_globs=told.source_globs)
    try:
        if told.mode == "mount":
            return ReportedOutput(files=[[path, os.stat(file).st_size, ""] for path, file in found], is_file=False)  # noqa: PTH116
        is_file = found[0][0] == ""
        if is_file:
            found = [(told.file_name, found[0][1])]
        return ReportedOutput(files=_moved(found, job.stored(name), keep=bool(told.source)), is_file=is_file)
    except PermissionError as error:
        raise not_readable(name, error) from error


def _moved(found: Sequence[tuple[str, str]], folder: Path, *, keep: bool = False) -> list[list[Any]]:
    """Move files below a folder; the path, size and checksum of each.

    :param keep: Copy them.
    """
    moved = []
    for path, file in found:
        with open(file, "rb") as content:  # noqa: PTH123 - there may be 100,000
            digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False))
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copyfile if keep else shutil.move)(file, target)
        moved.append([path, target.stat().st_size, f"md5:{digest.hexdigest()}"])
    return moved


def _input_place(job: _Job, name: str, told: ToldInput) -> str | None:
    """Bring an input to its place, and return where the script finds it; None for one that is read as a dataset."""
    if told.mode == "direct":
        return None
    if told.chosen is None and not told.is_made:
        shown = job.shown(name)
        if not told.place:
            return str(shown)
        place = _free_place(job, name, told.place)
        if not told.is_single:
            place.symlink_to(shown)
            return str(place)
        place.mkdir()
        (place / shown.name).symlink_to(shown)
        return str(place / shown.name)
    folder = _free_place(job, name, told.place) if told.place else job.scratch / "inputs" / name
    folder.mkdir(parents=True)
    if told.is_made:
        _make(job, told, folder)
    for shown_by, path, target in told.chosen or ():
        file = folder / target
        file.parent.mkdir(parents=True, exist_ok=True)
        source = job.shown(shown_by) / path if path else job.shown(shown_by)
        if told.mode == "mount":
            file.symlink_to(source)
        else:
            shutil.copyfile(source, file)
    return str(folder / told.chosen[0][2] if told.is_single and told.chosen else folder)


def _free_place(job: _Job, name: str, wanted: str) -> Path:
    """A place that nothing is at; an absolute one stays what it is."""
    place = job.work / wanted
    make_room(name, place)
    if place.is_dir():
        place.rmdir()
    return place


def _make(job: _Job, told: ToldInput, folder: Path) -> None:
    """Make the files of a table. The only part that wants packages: pyarrow and pandas."""
    from airflow_aml_data.core.configuration import WorkspaceConfig
    from airflow_aml_data.core.connect import ConnectedWorkspace
    from airflow_aml_data.core.definition import Definition
    from airflow_aml_data.core.files import find_files

    workspace = ConnectedWorkspace(WorkspaceConfig.in_job(job.told.run["conn_id"], _workspace(job)))
    for source, group in find_files(workspace, Definition.from_json(told.dataset)).groups:
        source.download(group, folder, lambda *_: None)


def _workspace(job: _Job) -> dict[str, Any]:
    """The workspace as the script may see it: the datastores of its inputs, with the files that the worker has listed."""
    stores: dict[str, Any] = {}
    for name, each in job.told.stores.items():
        stores[name] = {
            "kind": "shipped",
            "folders": {path: str(job.shown(shown_by)) for path, shown_by in each.folders.items()},
            "files": each.files,
            "contents": each.contents,
        }
    return {"datastores": stores, "in_job": True}
