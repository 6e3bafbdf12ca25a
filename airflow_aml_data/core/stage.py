"""Prepare a planned step on this machine: a scratch folder with the sources, the inputs and room for the outputs."""

from __future__ import annotations

import logging
import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from airflow_aml_data.core.compute.local import Command, Mount, can_make_read_only, can_mount, script_environment
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.files import find_together
from airflow_aml_data.core.fuse.mounting import mount_at
from airflow_aml_data.core.fuse.specification import OutputPlace, Specification
from airflow_aml_data.core.listing import DatasetFiles
from airflow_aml_data.core.places import make_room
from airflow_aml_data.core.plan import PlannedInput, PlannedOutput, Slot, StepPlan
from airflow_aml_data.core.protocol import RunFile, RunInput
from airflow_aml_data.core.room import copied_bytes, require_room, size_of
from airflow_aml_data.core.run_files import folder_state
from airflow_aml_data.core.scratch import show_at
from airflow_aml_data.core.snapshot import SCRIPT_SIDE, snapshot
from airflow_aml_data.core.storage.base import FileSource, Placement, StoredFile
from airflow_aml_data.core.transfer import Meter, readable_bytes, refuse_collisions
from airflow_aml_data.core.variables import script_variables
from airflow_aml_data.errors import MountNotPossible

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedStep:
    """A step ready to run.

    :param output_paths: Output name to the local path where the files are.
    :param stored_at_end: Outputs in mount mode whose files nobody stores while the script runs.
    :param run_file: What the script is told, and where it puts what it reports and uploads.
    """

    command: Command
    output_paths: Mapping[str, Path]
    stored_at_end: Sequence[str]
    run_file: RunFile


def stage_step(
    workspace: ConnectedWorkspace, plan: StepPlan, scratch: Path, existing: Mapping[str, Mapping[str, StoredFile]]
) -> StagedStep:
    """Copy the sources, bring the inputs, make room for the outputs, and write down the command.

    :param existing: Output name to the files that are at its destination already, by path (mount mode).
    :raises UserError: for inputs that are missing or changed, sources over v1's limits, or a path that is taken.
    """
    work = scratch / "work"
    if plan.source_directory:
        snapshot(plan.source_directory, work)
    else:
        work.mkdir()
    shown = _Shown(scratch)
    inputs = _stage_inputs(workspace, plan.inputs, shown)
    places = {each.name: _output_folder(workspace, plan, each, shown, existing) for each in plan.outputs}
    outputs = {name: shown.mount_point / name if name in shown.outputs else path for name, path in places.items()}
    values = {name: each.path or each.dataset["id"] for name, each in inputs.items()}
    values |= {name: str(path) for name, path in outputs.items()}
    command = _command_line(plan, values)
    (files_folder := scratch / "run_files").mkdir()
    run_file = RunFile(
        **plan.told(workspace.config.name),
        workspace=workspace.to_mapping(),
        inputs=inputs,
        outputs={name: str(path) for name, path in outputs.items()},
        arguments=[] if plan.shell else command[2:],
        folder=str(work),
        shipped=folder_state(work),
        files_folder=str(files_folder),
        records_file=str(scratch / "records.jsonl"),
        started_at=datetime.now(UTC).isoformat(),
    )
    run_file.write(scratch / "run.json")
    staged = Command(
        arguments=command,
        folder=work,
        environment=script_variables(
            script_environment(os.environ) | dict(plan.environment_variables),
            run_file,
            scratch / "run.json",
            _script_side(scratch),
        ),
        read_only=shown.read_only,
        writable=[_writable(path, shown.read_only) for name, path in outputs.items() if name not in shown.outputs],
        mount=shown.mount(workspace),
    )
    return StagedStep(command=staged, output_paths=places, stored_at_end=shown.stored_at_end, run_file=run_file)


@dataclass(frozen=True, slots=True)
class _Shown:
    """How the script gets to see what it reads and writes.

    :param read_only: Folders it may not change.
    :param inputs: Inputs that are mounted, by name: datastores with files.
    :param outputs: Outputs that are mounted.
    :param stored_at_end: Outputs in mount mode that are not, and are not on this machine either.
    """

    scratch: Path
    read_only: list[Path] = field(default_factory=list)
    inputs: dict[str, list[tuple[str, Sequence[Placement]]]] = field(default_factory=dict)
    outputs: dict[str, OutputPlace] = field(default_factory=dict)
    stored_at_end: list[str] = field(default_factory=list)

    @property
    def mount_point(self) -> Path:
        return self.scratch / "mount"

    def mount(self, workspace: ConnectedWorkspace) -> Mount | None:
        if not self.inputs and not self.outputs:
            return None
        stores = {name for groups in self.inputs.values() for name, _ in groups}
        stores |= {each.datastore for each in self.outputs.values()}
        self.mount_point.mkdir()
        return mount_at(
            self.mount_point,
            Specification(
                datastores={each: workspace.datastore_config(each) for each in stores},
                inputs=self.inputs,
                outputs=self.outputs,
            ),
        )


def _command_line(plan: StepPlan, values: Mapping[str, str]) -> list[str]:
    """What is started.

    :param values: What stands for each input and output; quoted where a shell reads it.
    """
    if not plan.shell:
        return [values[each.name] if isinstance(each, Slot) else each for each in plan.command]
    words = [shlex.quote(values[each.name]) if isinstance(each, Slot) else each for each in plan.command]
    return ["bash", "-c", " ".join(words)]


def _stage_inputs(workspace: ConnectedWorkspace, planned: Sequence[PlannedInput], shown: _Shown) -> dict[str, RunInput]:
    """Bring the inputs that are files; all are found before the first is brought."""
    brought = [each for each in planned if each.mode != "direct"]
    with tempfile.TemporaryDirectory(prefix="made_", dir=shown.scratch) as made:
        found = find_together(workspace, [each.definition for each in brought], Path(made))
        for each in found:
            refuse_collisions(each)
        written = sum(_written_bytes(each, files, shown.scratch) for each, files in zip(brought, found, strict=True))
        require_room(shown.scratch, written, f"Bringing the inputs {', '.join(repr(each.name) for each in brought)}")
        paths = {
            each.name: _bring_input(workspace, each, files, shown) for each, files in zip(brought, found, strict=True)
        }
    return {
        each.name: RunInput(
            mode=each.mode,
            path=paths.get(each.name),
            dataset={**each.definition.to_json(), "id": each.definition.id},
        )
        for each in planned
    }


def _written_bytes(planned: PlannedInput, files: DatasetFiles, scratch: Path) -> int:
    """What bringing an input puts on this machine's disk: nothing where it is linked to, or fetched when it is read."""
    whole = files.whole_folder
    if planned.mode == "mount" and (can_mount if _is_remote(files) else can_make_read_only)(scratch.parent):
        return 0 if whole or _is_remote(files) else copied_bytes(files.groups)
    return files.size_bytes if whole else size_of(files.placements)


def _bring_input(workspace: ConnectedWorkspace, planned: PlannedInput, files: DatasetFiles, shown: _Shown) -> str:
    """Bring one input, and return where the script finds it."""
    if planned.mode == "mount" and _is_remote(files):
        if can_mount(shown.scratch.parent):
            return _mount_input(planned, files, shown)
        _refuse_without_mount(workspace, f"Input {planned.name!r}")
    folder, place = _places(planned, shown.scratch)
    make_room(planned.name, place)
    folder.parent.mkdir(parents=True, exist_ok=True)
    linked = planned.mode == "mount" and not _is_remote(files) and can_make_read_only(shown.scratch.parent)
    if planned.mode == "mount" and not linked:
        log.warning(
            "Input %r is copied (%s): this machine does not let a step mount it read-only, and the script must not "
            "be able to change stored files.",
            planned.name,
            readable_bytes(files.size_bytes),
        )
    _bring(planned, files, folder, linked)
    if place != folder:
        show_at(planned.name, folder, place, shown.scratch)
    path = place / files.placements[0].target if files.single_file else place
    if linked:
        shown.read_only.extend([path, *_linked_folders(folder, files)])
    return str(path)


def _is_remote(files: DatasetFiles) -> bool:
    """Whether files can be fetched when they are read, and some of them have to be fetched at all."""
    sources = [files.whole_folder[0]] if files.whole_folder else [source for source, _ in files.groups]
    return any(each.is_remote for each in sources) and all(hasattr(each, "read_range") for each in sources)


def _mount_input(planned: PlannedInput, files: DatasetFiles, shown: _Shown) -> str:
    """Show an input in the step's mount; nothing is moved before the script reads it."""
    folder = shown.mount_point / planned.name
    shown.inputs[planned.name] = [(source.name, group) for source, group in files.groups]
    log.info(
        "Input %r (mount): %s files, %s, fetched when they are read.",
        planned.name,
        f"{files.files:,}",
        readable_bytes(files.size_bytes),
    )
    place = folder
    if planned.path_on_compute:
        _, place = _places(planned, shown.scratch)
        make_room(planned.name, place)
        show_at(planned.name, folder, place, shown.scratch)
    return str(place / files.placements[0].target if files.single_file else place)


def _refuse_without_mount(workspace: ConnectedWorkspace, what: str) -> None:
    if workspace.config.mount_fallback == "fail":
        raise MountNotPossible(
            f"{what} is in mount mode on a datastore that is not on this machine, and this machine does not let a step mount it: "
            "that takes Linux, /dev/fuse and the right to make mounts. Give the worker these, use as_download() or as_upload(), "
            f"or set 'mount_fallback' of connection {workspace.config.name!r} to 'download'."
        )


def _places(planned: PlannedInput, scratch: Path) -> tuple[Path, Path]:
    """Where an input's files are put, and where the script finds them: an absolute path is shown by a link."""
    if planned.path_on_compute and Path(planned.path_on_compute).is_absolute():
        return scratch / "inputs" / planned.name, Path(planned.path_on_compute)
    inside = Path("work", planned.path_on_compute) if planned.path_on_compute else Path("inputs", planned.name)
    return scratch / inside, scratch / inside


def _bring(planned: PlannedInput, files: DatasetFiles, folder: Path, mounted: bool) -> None:
    meter = Meter(f"Input {planned.name!r} ({planned.mode})", files.files)
    whole = files.whole_folder
    if mounted and whole and not folder.exists() and whole[0].mount_folder(whole[1], folder):
        meter(files.files, files.size_bytes)
    else:
        folder.mkdir(exist_ok=True)  # a sample may hold no file
        for source, group in files.groups:
            move = source.mount if mounted else source.download
            move(list({each.target: each for each in group}.values()), folder, meter)
    meter.done()


def _linked_folders(folder: Path, files: DatasetFiles) -> list[Path]:
    """The stored folders, one of each place, that hold the files of an input whose files are symbolic links."""
    if folder.is_symlink():
        return []
    stored: dict[FileSource, set[str]] = {}
    for source, group in files.groups:
        links = [folder / each.target for each in group]
        found = {os.path.dirname(os.path.realpath(each)) for each in links if each.is_symlink()}  # noqa: PTH120
        stored.setdefault(source, set()).update(found)
    return [Path(os.path.commonpath(each)) for each in stored.values() if each]


def _output_folder(
    workspace: ConnectedWorkspace,
    plan: StepPlan,
    planned: PlannedOutput,
    shown: _Shown,
    existing: Mapping[str, Mapping[str, StoredFile]],
) -> Path:
    """Where the files of an output are on this machine."""
    storage = workspace.storage(planned.datastore)
    if planned.config.source:
        return shown.scratch / "work" / planned.config.source
    if planned.config.mode == "upload":
        return storage.staging_folder(plan.run.id, planned.name, shown.scratch)
    if local := storage.output_folder(planned.path):
        return local
    (folder := shown.scratch / "outputs" / planned.name).mkdir(parents=True)
    if can_mount(shown.scratch.parent):
        before = list(existing.get(planned.name, {}).values())
        shown.outputs[planned.name] = OutputPlace(planned.datastore, planned.path, str(folder), before)
    else:
        _refuse_without_mount(workspace, f"Output {planned.name!r}")
        log.warning(
            "Output %r is stored when the script ends, and not as each file is closed: this machine does not let a step mount it.",
            planned.name,
        )
        shown.stored_at_end.append(planned.name)
    return folder


def _writable(output: Path, read_only: Sequence[Path]) -> Path:
    """What must stay writable for an output: the folder it is in, so that the script may make the output a file.

    Only the output itself when that folder holds a mounted input.
    """
    inputs = [each.resolve() for each in read_only]
    return output if any(each.is_relative_to(output.parent.resolve()) for each in inputs) else output.parent


def _script_side(scratch: Path) -> Path:
    """A folder from which any interpreter can import this package, and ``azureml.core`` from it, and nothing else."""
    folder = scratch / "python"
    folder.mkdir()
    for name, part in SCRIPT_SIDE.items():
        (folder / name).symlink_to(part, target_is_directory=part.is_dir())
    return folder
