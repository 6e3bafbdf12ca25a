"""Prepare a planned step on this machine: a scratch folder with the sources, the inputs and room for the outputs."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from airflow_aml_data.core.compute.local import Command, can_make_read_only, script_environment
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.files import find_together
from airflow_aml_data.core.listing import DatasetFiles
from airflow_aml_data.core.plan import PlannedInput, PlannedOutput, Slot, StepPlan, is_reserved_variable
from airflow_aml_data.core.protocol import RUN_FILE_VARIABLE, RunFile, RunInput
from airflow_aml_data.core.run_files import folder_state
from airflow_aml_data.core.scratch import show_at
from airflow_aml_data.core.storage.base import FileSource
from airflow_aml_data.core.transfer import Meter, readable_bytes, refuse_collisions
from airflow_aml_data.errors import FilesExist, InvalidDeclaration

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parents[1]
_SNAPSHOT_FILES = 2000
_SNAPSHOT_BYTES = 300 * 1024 * 1024
"""v1's limits of a snapshot (semantics section 12)."""
_NEVER_COPIED = {".git", "__pycache__", ".venv", ".ipynb_checkpoints"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedStep:
    """A step ready to run.

    :param output_paths: Output name to the local path the script writes to.
    :param run_file: What the script is told, and where it puts what it reports and uploads.
    """

    command: Command
    output_paths: Mapping[str, Path]
    run_file: RunFile


def stage_step(workspace: ConnectedWorkspace, plan: StepPlan, scratch: Path) -> StagedStep:
    """Copy the sources, bring the inputs, make room for the outputs, and write down the command.

    :raises UserError: for inputs that are missing or changed, sources over v1's limits, or a path that is taken.
    """
    work = scratch / "work"
    if plan.source_directory:
        _snapshot(plan.source_directory, work)
    else:
        work.mkdir()
    read_only: list[Path] = []
    inputs = _stage_inputs(workspace, plan.inputs, scratch, read_only)
    outputs = {each.name: _output_folder(workspace, plan, each, scratch) for each in plan.outputs}
    values = {name: each.path or each.dataset["id"] for name, each in inputs.items()}
    values |= {name: str(path) for name, path in outputs.items()}
    command = _command_line(plan, values)
    (files_folder := scratch / "run_files").mkdir()
    run_file = RunFile(
        id=plan.run.id,
        dag_id=plan.run.dag_id,
        run_id=plan.run.run_id,
        task_id=plan.run.task_id,
        map_index=plan.run.map_index,
        try_number=plan.run.try_number,
        conn_id=workspace.config.name,
        workspace=workspace.to_mapping(),
        inputs=inputs,
        outputs={name: str(path) for name, path in outputs.items()},
        parent_id=plan.run.parent_id,
        script_name=plan.title,
        arguments=[] if plan.shell else command[2:],
        folder=str(work),
        shipped=folder_state(work),
        files_folder=str(files_folder),
        records_file=str(scratch / "records.jsonl"),
        log_url=plan.log_url,
        started_at=datetime.now(UTC).isoformat(),
    )
    run_file.write(scratch / "run.json")
    staged = Command(
        arguments=command,
        folder=work,
        environment=_environment(plan, run_file, scratch),
        read_only=read_only,
        writable=[_writable(each, read_only) for each in outputs.values()],
    )
    return StagedStep(command=staged, output_paths=outputs, run_file=run_file)


def _command_line(plan: StepPlan, values: Mapping[str, str]) -> list[str]:
    """What is started.

    :param values: What stands for each input and output; quoted where a shell reads it.
    """
    if not plan.shell:
        return [values[each.name] if isinstance(each, Slot) else each for each in plan.command]
    words = [shlex.quote(values[each.name]) if isinstance(each, Slot) else each for each in plan.command]
    return ["bash", "-c", " ".join(words)]


def _snapshot(source: Path, work: Path) -> None:
    files = size = 0
    for folder, names, file_names in os.walk(source):
        names[:] = [each for each in names if each not in _NEVER_COPIED]
        files += len(file_names)
        size += sum(os.lstat(os.path.join(folder, each)).st_size for each in file_names)  # noqa: PTH118
        if files > _SNAPSHOT_FILES or size > _SNAPSHOT_BYTES:
            raise InvalidDeclaration(
                f"source_directory {str(source)!r} holds more than {_SNAPSHOT_FILES} files or {_SNAPSHOT_BYTES >> 20} MB, which is "
                "what a step's sources may be. Name a folder that holds only the script and what it imports."
            )
    try:
        shutil.copytree(source, work, ignore=shutil.ignore_patterns(*_NEVER_COPIED), ignore_dangling_symlinks=True)
    except shutil.Error as error:
        first, _, why = error.args[0][0]
        raise InvalidDeclaration(
            f"source_directory {str(source)!r} holds something that cannot be copied, the first is {first!r}: {why}."
        ) from error


def _stage_inputs(
    workspace: ConnectedWorkspace, planned: Sequence[PlannedInput], scratch: Path, read_only: list[Path]
) -> dict[str, RunInput]:
    """Bring the inputs that are files; all are found before the first is brought.

    :param read_only: Gets what the script may not change for them.
    """
    brought = [each for each in planned if each.mode != "direct"]
    with tempfile.TemporaryDirectory(prefix="made_", dir=scratch) as made:
        found = find_together(workspace, [each.definition for each in brought], Path(made))
        for each in found:
            refuse_collisions(each)
        paths = {
            each.name: _bring_input(each, files, scratch, read_only) for each, files in zip(brought, found, strict=True)
        }
    return {
        each.name: RunInput(
            mode=each.mode,
            path=paths.get(each.name),
            dataset={**each.definition.to_json(), "id": each.definition.id},
        )
        for each in planned
    }


def _bring_input(planned: PlannedInput, files: DatasetFiles, scratch: Path, read_only: list[Path]) -> str:
    """Bring one input, and return where the script finds it."""
    folder, shown = _places(planned, scratch)
    _make_room(planned.name, shown)
    folder.parent.mkdir(parents=True, exist_ok=True)
    mounted = planned.mode == "mount" and can_make_read_only(scratch.parent)
    if planned.mode == "mount" and not mounted:
        log.warning(
            "Input %r is copied (%s): this machine does not let a step mount it read-only, and the script must not "
            "be able to change stored files.",
            planned.name,
            readable_bytes(files.size_bytes),
        )
    _bring(planned, files, folder, mounted)
    if shown != folder:
        show_at(planned.name, folder, shown, scratch)
    path = shown / files.placements[0].target if files.single_file else shown
    if mounted:
        read_only += [path, *_linked_folders(folder, files)]
    return str(path)


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


def _make_room(name: str, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        free = not os.path.lexists(place) or (place.is_dir() and not place.is_symlink() and not any(place.iterdir()))
    except (FileExistsError, NotADirectoryError):
        free = False
    if not free:
        raise FilesExist(
            f"Input {name!r} cannot appear at {place}: something is there. Choose another path_on_compute."
        )


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


def _output_folder(workspace: ConnectedWorkspace, plan: StepPlan, planned: PlannedOutput, scratch: Path) -> Path:
    storage = workspace.storage(planned.datastore)
    if planned.config.source:
        return scratch / "work" / planned.config.source
    if planned.config.mode == "upload":
        return storage.staging_folder(plan.run.id, planned.name, scratch)
    return storage.output_folder(planned.path) or _stored_at_the_end(planned, scratch)


def _stored_at_the_end(planned: PlannedOutput, scratch: Path) -> Path:
    """A folder for an output in mount mode on a store that is not on this machine; see :func:`.store_mounted`."""
    log.warning("Output %r is stored when the script ends, and not as each file is closed.", planned.name)
    folder = scratch / "outputs" / planned.name
    folder.mkdir(parents=True)
    return folder


def _writable(output: Path, read_only: Sequence[Path]) -> Path:
    """What must stay writable for an output: the folder it is in, so that the script may make the output a file.

    Only the output itself when that folder holds a mounted input.
    """
    inputs = [each.resolve() for each in read_only]
    return output if any(each.is_relative_to(output.parent.resolve()) for each in inputs) else output.parent


def _environment(plan: StepPlan, run_file: RunFile, scratch: Path) -> dict[str, str]:
    """Source of the names: v1, semantics section 8; ``AZUREML_DATAREFERENCE_`` is what older scripts read."""
    environment = script_environment(os.environ) | dict(plan.environment_variables)
    environment[RUN_FILE_VARIABLE] = str(scratch / "run.json")
    environment["AZUREML_RUN_ID"] = run_file.id
    environment["AZUREML_DATASET_ENVIRONMENT_VARS"] = ",".join(
        f"{name}:{each.mode}" for name, each in run_file.inputs.items()
    )
    environment["AZUREML_DATASET_FILE_OUTPUTS"] = ";".join(run_file.outputs)
    paths = {name: each.path or each.dataset["id"] for name, each in run_file.inputs.items()}
    for prefix, named in (("AZURE_ML_INPUT_", paths), ("AZURE_ML_OUTPUT_", run_file.outputs)):
        for name, value in named.items():
            environment[prefix + name] = environment[f"AZUREML_DATAREFERENCE_{name}"] = value
            if not is_reserved_variable(name):
                environment[name] = value
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(_script_side(scratch)), *filter(None, [environment.get("PYTHONPATH")])]
    )
    return environment


def _script_side(scratch: Path) -> Path:
    """A folder from which any interpreter can import this package, and ``azureml.core`` from it, and nothing else."""
    folder = scratch / "python"
    folder.mkdir()
    (folder / "airflow_aml_data").symlink_to(_PACKAGE, target_is_directory=True)
    (folder / "azureml").symlink_to(_PACKAGE / "script_side" / "azureml", target_is_directory=True)
    (folder / "sitecustomize.py").symlink_to(_PACKAGE / "core" / "compute" / "startup" / "sitecustomize.py")
    return folder
