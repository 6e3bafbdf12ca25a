"""Prepare a planned step for an Azure ML job: what the job reads and writes in the service's terms, what it is told, and its code."""

from __future__ import annotations

import json
import shlex
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from posixpath import commonpath
from typing import Literal
from urllib.parse import quote

from airflow_aml_data.core import parent
from airflow_aml_data.core.azureml.jobs import JobInput, JobOutput
from airflow_aml_data.core.connect import SAFE_IN_URI, ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, OutputSource, StorePath, WebPath
from airflow_aml_data.core.files import find_files
from airflow_aml_data.core.identity import RESERVED_FOLDER, StepRun
from airflow_aml_data.core.in_job.told import REPORT, TOLD, ToldInput, ToldOutput, ToldStep, ToldStore, slot_text
from airflow_aml_data.core.listing import DatasetFiles, list_sources
from airflow_aml_data.core.plan import PlannedInput, PlannedOutput, Slot, StepPlan, with_run_files
from airflow_aml_data.core.run_files import RUN_FILES
from airflow_aml_data.core.snapshot import SCRIPT_SIDE, snapshot
from airflow_aml_data.core.storage.base import StoredFile
from airflow_aml_data.core.storage.web import WebFile
from airflow_aml_data.core.transfer import refuse_collisions
from airflow_aml_data.core.variables import INPUT_PREFIX, OUTPUT_PREFIX
from airflow_aml_data.errors import FilesExist, InvalidDeclaration

_START = "aml_data_start.py"
_ZIP = "aml_data.zip"
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_IGNORE_FILES = (".amlignore", ".gitignore")
"""The service's client leaves out what these name, and so files that a step has on a worker."""

JOB_COMMAND = ["python", _START]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedStep:
    """A step ready to become a job.

    :param command: For a shell, with the service's placeholders for paths.
    """

    command: str
    inputs: Mapping[str, JobInput]
    outputs: Mapping[str, JobOutput]
    environment_variables: Mapping[str, str]
    told: ToldStep


def job_folder(run: StepRun) -> str:
    """The folder on the default datastore with what a job is told, and what it reports; gone when the step has ended."""
    return f"{RESERVED_FOLDER}/staging/{run.id}/job-files"


def staged_at(run: StepRun, planned: PlannedOutput) -> str | None:
    """Where a job puts an output that is committed through the worker; None: at its destination.

    A folder that other runs write to as well must change all at once, or not at all.

    :raises InvalidDeclaration: in mount mode, for a destination that nobody can say how the service writes to.
    """
    if planned.mode == "mount" and not _is_plain(planned.path):
        raise InvalidDeclaration(
            f"Output {planned.name!r}: a job cannot store files at {planned.path!r} as they are closed. Use as_upload(), or letters, "
            "digits and _.-=/ in the path."
        )
    if planned.mode == "mount" or (planned.config.is_exclusive and _is_plain(planned.path)):
        return None
    return staging_of(run, planned.name)


def staging_of(run: StepRun, name: str) -> str:
    """Where a job puts an output that is not put at its destination."""
    return f"{RESERVED_FOLDER}/staging/{run.id}/job-{name}"


def ship_step(workspace: ConnectedWorkspace, plan: StepPlan) -> ShippedStep:
    """Find out what a job of the step reads and writes. Nothing is written.

    :raises AzureMlNotFound, InvalidDeclaration: for data on a datastore that jobs do not reach.
    """
    files = with_run_files(workspace, plan, Path(RUN_FILES)).outputs[-1]
    folder = workspace.azureml_uri(workspace.datastore_name(None), job_folder(plan.run))
    outputs = {
        each.name: JobOutput(
            uri=workspace.azureml_uri(each.datastore, staged_at(plan.run, each) or each.path), mode=each.mode
        )
        for each in (*plan.outputs, files)
    }
    outputs[REPORT] = JobOutput(uri=f"{folder}/report", mode="mount")
    reads = _Reads(workspace)
    inputs = {each.name: reads.input(each) for each in plan.inputs}
    reads.inputs[TOLD] = JobInput(uri=f"{folder}/step", is_file=False, mode="download")
    return ShippedStep(
        command=_command(plan, reads.inputs, outputs),
        inputs=reads.inputs,
        outputs=outputs,
        environment_variables=plan.environment_variables,
        told=ToldStep(
            run=plan.told(workspace.config.name),
            inputs=inputs,
            outputs={each.name: _told_output(each) for each in plan.outputs},
            stores={name: each.told() for name, each in reads.stores.items()},
            parent_records=[
                json.dumps(asdict(each)) for each in parent.find(workspace, plan.run.dag_id, plan.run.run_id)
            ],
        ),
    )


def pack(plan: StepPlan, folder: Path) -> None:
    """Put the step's sources, and this package for its script, into a folder that does not exist yet.

    Equal sources make equal folders, which the service stores once.
    """
    if plan.source_directory:
        snapshot(plan.source_directory, folder)
    else:
        folder.mkdir()
    for name in (_START, _ZIP):
        if (folder / name).exists():
            raise FilesExist(
                f"The sources of step {plan.run.task_id!r} hold {name!r}, which is this package's own name. Rename it."
            )
    for name in _IGNORE_FILES:
        (folder / name).unlink(missing_ok=True)
    (folder / _START).write_bytes(Path(__file__).with_name("in_job").joinpath(_START).read_bytes())
    with zipfile.ZipFile(folder / _ZIP, "w", zipfile.ZIP_DEFLATED) as package:
        for name, file in sorted(_script_side()):
            info = zipfile.ZipInfo(name, _NO_TIME)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            package.writestr(info, file.read_bytes())


def _script_side() -> Iterator[tuple[str, Path]]:
    for name, part in SCRIPT_SIDE.items():
        for file in part.rglob("*") if part.is_dir() else [part]:
            if file.is_file() and "__pycache__" not in file.parts:
                yield (f"{name}/{file.relative_to(part).as_posix()}" if part.is_dir() else name), file


@dataclass(slots=True)
class _ReadStore:
    """What is read of a datastore by scripts that open a dataset themselves."""

    folders: dict[str, str] = field(default_factory=dict)
    files: dict[str, StoredFile] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)

    def told(self) -> ToldStore:
        return ToldStore(
            folders=self.folders, files=[list(each) for each in self.files.values()], contents=self.contents
        )


@dataclass(slots=True)
class _Reads:
    """The job's inputs, as they come up: one for each of the step's that is one folder or file, else others that show its files."""

    workspace: ConnectedWorkspace
    inputs: dict[str, JobInput] = field(default_factory=dict)
    stores: dict[str, _ReadStore] = field(default_factory=dict)

    def input(self, planned: PlannedInput) -> ToldInput:
        definition = planned.definition
        dataset = {**definition.to_json(), "id": definition.id}
        if planned.mode == "direct" or definition.made_of:
            self._show_sources(definition)
            return ToldInput(
                mode=planned.mode, dataset=dataset, place=planned.path_on_compute, is_made=planned.mode != "direct"
            )
        files = find_files(self.workspace, definition)
        refuse_collisions(files)
        whole = self._whole(definition, files, planned.mode)
        if whole:
            self.inputs[planned.name] = whole
            return ToldInput(mode=planned.mode, dataset=dataset, place=planned.path_on_compute, is_single=whole.is_file)
        return ToldInput(
            mode=planned.mode,
            dataset=dataset,
            place=planned.path_on_compute,
            chosen=self._choose(files),
            is_single=files.single_file,
        )

    def _whole(self, definition: Definition, files: DatasetFiles, mode: str) -> JobInput | None:
        """The input of the job that is all of a dataset, and nothing else."""
        how: Literal["mount", "download"] = "download" if mode == "download" else "mount"
        if definition.operations or len(definition.sources) != 1:
            return None
        match definition.sources[0]:
            case WebPath(url):
                return JobInput(uri=url, is_file=True, mode=how)
            case StorePath(path=path) | OutputSource(path=path) if not _is_plain(path):
                return None
            case StorePath(datastore, path) if files.single_file:
                return JobInput(uri=self.workspace.azureml_uri(datastore, path), is_file=True, mode=how)
            case StorePath(datastore, path) if path and all(
                _is_below(path, each.file.path) for each in files.placements
            ):
                return JobInput(uri=self.workspace.azureml_uri(datastore, path), is_file=False, mode=how)
            case OutputSource(datastore=datastore, path=path, folder="") if files.whole_folder or files.single_file:
                return JobInput(uri=self.workspace.azureml_uri(datastore, path), is_file=files.single_file, mode=how)
        return None

    def _choose(self, files: DatasetFiles) -> list[list[str]]:
        """Where the job finds each file of a selection; see :class:`.ToldInput`."""
        chosen = []
        for source, group in files.groups:
            if isinstance(source, WebFile):
                chosen += [
                    [self._show(JobInput(uri=each.file.path, is_file=True, mode="mount")), "", each.target]
                    for each in group
                ]
            else:
                shown_by, folder = self._show_files(source.name, [each.file.path for each in group])
                chosen += [[shown_by, each.file.path.removeprefix(folder).lstrip("/"), each.target] for each in group]
        return chosen

    def _show_sources(self, definition: Definition) -> None:
        """Let the job see the files that a dataset is read from."""
        for source in definition.read_sources:
            if isinstance(source, WebPath):
                continue
            files = [each.file for each in list_sources(self.workspace, [source]).placements]
            store = self.stores.setdefault(source.datastore, _ReadStore())
            shown_by, folder = self._show_files(source.datastore, [each.path for each in files])
            store.folders[folder] = shown_by
            store.files |= {each.path: each for each in files}
            if isinstance(source, OutputSource):
                manifest = self.workspace.storage(source.datastore).read_bytes(source.manifest)
                store.contents[source.manifest] = manifest.decode()

    def _show_files(self, datastore: str, paths: Sequence[str]) -> tuple[str, str]:
        """The job's input that shows files of a datastore, and the folder, or the one file, that it is."""
        is_file = len(paths) == 1 and _is_plain(paths[0])
        folder = paths[0] if is_file else commonpath([each.rpartition("/")[0] for each in paths])
        while not _is_plain(folder):
            folder = folder.rpartition("/")[0]
        return self._show(
            JobInput(uri=self.workspace.azureml_uri(datastore, folder), is_file=is_file, mode="mount")
        ), folder

    def _show(self, wanted: JobInput) -> str:
        for name, each in self.inputs.items():
            if each == wanted:
                return name
        name = f"aml_data_{len(self.inputs) + 1}"
        self.inputs[name] = wanted
        return name


def _is_plain(path: str) -> bool:
    """Whether a path is the same in an address: of others, nobody says how the service reads them there."""
    return quote(path, safe=SAFE_IN_URI) == path


def _is_below(folder: str, path: str) -> bool:
    return path.startswith(f"{folder}/")


def _told_output(planned: PlannedOutput) -> ToldOutput:
    globs = planned.config.source_globs
    return ToldOutput(
        mode=planned.mode,
        source=planned.config.source,
        source_globs=None if globs is None else list(globs),
        file_name=planned.path.rpartition("/")[2],
    )


def _command(plan: StepPlan, inputs: Mapping[str, JobInput], outputs: Mapping[str, JobOutput]) -> str:
    """The start, the path of everything that the job reads and writes, and the step's own command.

    In that, inputs and outputs stand as v1 wrote them, or as variables where a shell reads it: their places are made when it starts.
    """
    places = [f'{name}="${{{{inputs.{name}}}}}"' for name in inputs] + [
        f'{name}="${{{{outputs.{name}}}}}"' for name in outputs
    ]
    named = {each.name for each in plan.outputs}
    words = [
        _word(each, is_output=isinstance(each, Slot) and each.name in named, in_shell=plan.shell)
        for each in plan.command
    ]
    if plan.shell:
        words = ["bash", "-c", " ".join(words)]
    return " ".join([*JOB_COMMAND, *places, "--", *(shlex.quote(each) for each in words)])


def _word(word: str | Slot, *, is_output: bool, in_shell: bool) -> str:
    if isinstance(word, Slot):
        if in_shell:
            return f'"${OUTPUT_PREFIX if is_output else INPUT_PREFIX}{word.name}"'
        return slot_text(word.name, is_output=is_output)
    if "${{" in word:
        raise InvalidDeclaration(
            f"{word!r} cannot be said to an Azure ML job: the service reads ${{{{...}}}} as a placeholder of its own. Pass it in a "
            "file, or in params."
        )
    return word
