"""From a declared step to a plan: every name, version, seed and path settled, nothing moved yet."""

from __future__ import annotations

import itertools
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from posixpath import normpath
from typing import Any, Literal

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.datasets import AbstractDataset
from airflow_aml_data.core.definition import Definition
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.inputs import DatasetConsumptionConfig
from airflow_aml_data.core.outputs import OutputFileDatasetConfig, OutputReference, as_dataset
from airflow_aml_data.core.records import AZUREML_JOB, RUN_DETAILS
from airflow_aml_data.core.run_files import RUN_FILES
from airflow_aml_data.core.variables import is_reserved_variable
from airflow_aml_data.core.workspace import Datastore, Workspace
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration, InvalidPath, WiringError

PLAIN = (str, int, float, bool, type(None))
"""What an argument may be, apart from inputs and outputs. Source: v1, semantics section 12."""

_RESERVED_OUTPUTS = {
    "return_value": "the metrics a script logs, in XCom",
    RUN_DETAILS: "the tags a script sets, in XCom",
    AZUREML_JOB: "the Azure ML job of a step, in XCom",
    RUN_FILES: "the files a script writes to ./outputs and ./logs",
}
_NOT_IN_VARIABLE = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDeclaration:
    """A step as its author declared it, templates rendered and references resolved.

    :param command: What is run: text, numbers, inputs, outputs. See :func:`script_command`.
    :param shell: Whether ``command`` is put together, with spaces, to one text for a shell; else each is one argument.
    :param title: What the log calls it; ``""``: the command as it is written.
    :param source_directory: Absolute; a copy of it is the working directory. None: that is an empty folder.
    :param parameters: v1's ``params``: become environment variables ``AML_PARAMETER_{name}``.
    :param log_url: Where the Airflow UI shows the task.
    """

    run: StepRun
    command: Sequence[Any]
    shell: bool = False
    title: str = ""
    source_directory: Path | None = None
    inputs: Sequence[Any] = ()
    outputs: Sequence[Any] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    log_url: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of an input or output in the command."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredData:
    """The inputs and outputs a step declares, each once and with a name, and its command with slots for them."""

    command: tuple[Any, ...]
    inputs: Mapping[str, DatasetConsumptionConfig]
    outputs: Mapping[str, OutputFileDatasetConfig]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedInput:
    """An input with its data settled."""

    name: str
    mode: str
    path_on_compute: str | None
    definition: Definition


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedOutput:
    """An output with its place settled."""

    name: str
    config: OutputFileDatasetConfig
    datastore: str
    path: str

    @property
    def mode(self) -> Literal["mount", "upload"]:
        """How the files get to the store: those of a folder the author names do when the script has ended."""
        return "upload" if self.config.source else self.config.mode


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """Everything a step needs, with nothing left to look up."""

    run: StepRun
    command: Sequence[str | Slot]
    shell: bool
    title: str
    source_directory: Path | None
    inputs: Sequence[PlannedInput]
    outputs: Sequence[PlannedOutput]
    environment_variables: Mapping[str, str]
    log_url: str = ""

    def told(self, conn_id: str) -> dict[str, Any]:
        """What the script's :class:`.RunFile` says of the step, wherever it runs."""
        run = self.run
        return {
            "id": run.id,
            "dag_id": run.dag_id,
            "run_id": run.run_id,
            "task_id": run.task_id,
            "map_index": run.map_index,
            "try_number": run.try_number,
            "conn_id": conn_id,
            "parent_id": run.parent_id,
            "script_name": self.title,
            "log_url": self.log_url,
        }


def plan_step(workspace: ConnectedWorkspace, declared: StepDeclaration) -> StepPlan:
    """Settle a step: names, dataset versions, seeds, destinations.

    :raises UserError: for anything the author has to change. Nothing has been moved then.
    """
    data = declared_data(declared.command, declared.inputs, declared.outputs)
    command = [each if isinstance(each, Slot) else _text(each, "argument") for each in data.command]
    inputs = [_plan_input(workspace, name, each, declared.run.run_key) for name, each in data.inputs.items()]
    _refuse_nested(inputs)
    return StepPlan(
        run=declared.run,
        command=command,
        shell=declared.shell,
        title=declared.title or " ".join(f"${each.name}" if isinstance(each, Slot) else each for each in command),
        source_directory=declared.source_directory,
        inputs=inputs,
        outputs=[_plan_output(workspace, name, each, declared.run) for name, each in data.outputs.items()],
        environment_variables=_variables(declared),
        log_url=declared.log_url,
    )


def with_run_files(workspace: ConnectedWorkspace, plan: StepPlan, folder: Path) -> StepPlan:
    """The plan with one more output: the files in ``folder``, which the script left as files of its run."""
    config = OutputFileDatasetConfig(RUN_FILES, source=str(folder)).as_upload()
    return replace(plan, outputs=[*plan.outputs, _plan_output(workspace, RUN_FILES, config, plan.run)])


def declared_data(
    command: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    same: Callable[[Any, Any], bool] = operator.eq,
    not_yet_known: tuple[type, ...] = (),
) -> DeclaredData:
    """Collect what a step reads and writes from its command (or its arguments alone), inputs and outputs.

    :param same: When two things of one name are the same thing.
    :param not_yet_known: Types of arguments whose values come when the step runs.
    :raises InvalidDeclaration: for something that can be no argument, input or output.
    :raises WiringError: when a name is used twice.

    Source: v1, semantics section 12.
    """
    read: list[DatasetConsumptionConfig] = []
    written: list[OutputFileDatasetConfig] = []
    for each in inputs:
        if isinstance(each, not_yet_known) and not isinstance(each, DatasetConsumptionConfig):
            continue
        _add(read, _as_input(each), same)
    for each in outputs:
        if not isinstance(each, OutputFileDatasetConfig):
            raise InvalidDeclaration(f"outputs takes OutputFileDatasetConfig objects, found {each!r}.")
        _add(written, each, same)
    places: list[Any] = []
    for each in command:
        if isinstance(each, OutputFileDatasetConfig):
            places.append(_add(written, each, same))
        elif isinstance(each, DatasetConsumptionConfig | OutputReference | Mapping) or _is_list_of_references(each):
            places.append(_add(read, _as_input(each), same))
        elif isinstance(each, AbstractDataset):
            raise InvalidDeclaration(
                f"Datasets cannot be used directly as arguments: call as_named_input on it first. Found {each!r}."
            )
        elif isinstance(each, PLAIN + not_yet_known):
            places.append(each)
        else:
            raise InvalidDeclaration(
                f"An argument is text, a number, a bool, None, an input or an output; found {type(each).__name__}: {each!r}."
            )
    named_inputs, named_outputs = _named(read, "input"), _named(written, "output")
    for name in named_outputs.keys() & _RESERVED_OUTPUTS.keys():
        raise WiringError(f"Output [{name}] has the name of {_RESERVED_OUTPUTS[name]}. Give it another name.")
    for name in named_inputs.keys() & named_outputs.keys():
        raise WiringError(f"[{name}] names an input and an output of one step. Give one of them another name.")
    slots = {id(each): Slot(name) for named in (named_inputs, named_outputs) for name, each in named.items()}
    return DeclaredData(
        command=tuple(slots.get(id(each), each) for each in places), inputs=named_inputs, outputs=named_outputs
    )


def script_command(source_directory: Path, script_name: str, interpreter: str, arguments: Sequence[Any]) -> list[Any]:
    """The command that runs a Python script.

    :raises UserError: see :func:`check_script`.
    """
    check_script(source_directory, script_name)
    return [interpreter, script_name, *arguments]


def check_script(source_directory: Path, script_name: str) -> None:
    """Refuse a script that is not below its source directory.

    :raises FilesNotFound: with the absolute path. Source: v1, at build.
    """
    if Path(script_name).is_absolute() or ".." in Path(script_name).parts:
        raise InvalidPath(f"script_name {script_name!r} must be relative to source_directory and stay inside it.")
    script = source_directory / script_name
    if not script.is_file():
        raise FilesNotFound(
            f"Step [{script_name}]: script not found at: {script}. Make sure to specify an appropriate source_directory "
            "on the Step."
        )


def _as_input(value: Any) -> DatasetConsumptionConfig:
    if isinstance(value, DatasetConsumptionConfig):
        return value
    if isinstance(value, OutputFileDatasetConfig):
        return value.as_input()
    if isinstance(value, OutputReference | Mapping):
        return DatasetConsumptionConfig(None, _reference(value).as_dataset(), mode="mount")
    if _is_list_of_references(value):
        return DatasetConsumptionConfig(None, as_dataset([_reference(each) for each in value]), mode="mount")
    if isinstance(value, AbstractDataset):
        raise InvalidDeclaration(
            f"{value!r} cannot be directly used as a step's input. Please call the as_named_input method on it, "
            "and as_mount() or as_download() where the script wants a path."
        )
    raise InvalidDeclaration(
        f"inputs takes named datasets and outputs of other steps, found {type(value).__name__}: {value!r}."
    )


def _reference(value: OutputReference | Mapping[str, Any]) -> OutputReference:
    """The reference, also one that a task passed on as plain JSON."""
    return value if isinstance(value, OutputReference) else OutputReference.from_json(value)


def _is_list_of_references(value: Any) -> bool:
    """Whether it is what a mapped task wrote: the lazy sequence that Airflow hands over, or a list of it."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and len(value) > 0
        and all(isinstance(each, OutputReference | Mapping) for each in value)
    )


def _add(known: list[Any], value: Any, same: Callable[[Any, Any], bool]) -> Any:
    """Add ``value`` unless it is there; returns the one that is."""
    for each in known:
        if each is value or same(each, value):
            return each
    known.append(value)
    return value


def _named(values: Sequence[Any], what: str) -> dict[str, Any]:
    """Each value by its name; those without get the next free ``input_1``, the same at every parse."""
    named: dict[str, Any] = {}
    taken = {each.name for each in values}
    number = 0
    for each in values:
        name = each.name
        while name is None:
            number += 1
            if (free := f"{what}_{number}") not in taken:
                name = free
        if name in named:
            raise WiringError(f"[{name}] is repeated. {what.capitalize()} port names must be unique.")
        if is_reserved_variable(name):
            warnings.warn(
                f"{what.capitalize()} {name!r} has the name of an environment variable that programs need, so no variable of "
                "that name is set; the script finds it through Run.get_context() and its arguments.",
                stacklevel=2,
            )
        named[name] = each
    return named


def _plan_input(
    workspace: ConnectedWorkspace, name: str, declared: DatasetConsumptionConfig, run_key: str
) -> PlannedInput:
    if isinstance(declared.dataset, OutputFileDatasetConfig):
        raise WiringError(f"Input {name} is not connected to any previous step.")
    _refuse_foreign(workspace, declared.dataset.workspace.conn_id, f"input {name!r}")
    definition = declared.dataset.definition(workspace, run_key)
    if definition.is_tabular and declared.mode != "direct":
        raise InvalidDeclaration(
            f"Input {name!r} is a tabular dataset, which does not support {declared.mode}. Only FileDataset supports it."
        )
    place = declared.path_on_compute or None
    if place:
        if ".." in PurePath(place).parts:
            raise InvalidPath(f"path_on_compute {place!r} of input {name!r} holds '..': it never leaves its folder.")
        place = normpath(_text(place, "path_on_compute"))
    return PlannedInput(name=name, mode=declared.mode, path_on_compute=place, definition=definition)


def _refuse_nested(inputs: Sequence[PlannedInput]) -> None:
    """An input inside another would be put into the other's files, which may be the stored ones."""
    for one, other in itertools.permutations([each for each in inputs if each.path_on_compute], 2):
        if PurePath(other.path_on_compute or "").is_relative_to(one.path_on_compute or ""):
            raise InvalidPath(
                f"Input {other.name!r} cannot appear at {other.path_on_compute!r}, in the place of input {one.name!r}: "
                f"{one.path_on_compute!r}. Choose another path_on_compute for one of them."
            )


def _plan_output(
    workspace: ConnectedWorkspace, name: str, config: OutputFileDatasetConfig, run: StepRun
) -> PlannedOutput:
    store = config.destination[0] if config.destination else None
    if isinstance(store, Datastore):
        _refuse_foreign(workspace, store.workspace.conn_id, f"output {name!r}")
        store = store.declared_name
    if config.source and ".." in PurePath(config.source).parts:
        raise InvalidPath(f"source {config.source!r} of output {name!r} holds '..': name an absolute folder instead.")
    return PlannedOutput(
        name=name,
        config=replace(config, name=name),
        datastore=workspace.datastore_name(store),
        path=config.path_for(run.id, name),
    )


def _refuse_foreign(workspace: ConnectedWorkspace, conn_id: str, what: str) -> None:
    if conn_id != workspace.config.name:
        raise WiringError(
            f"The {what} belongs to workspace {conn_id!r}, the step runs in {workspace.config.name!r}. "
            f"Give the step conn_id={conn_id!r}, or declare the datastore in both connections."
        )


def _variables(declared: StepDeclaration) -> dict[str, str]:
    variables = {}
    for key, value in declared.environment_variables.items():
        if not key or "=" in key:
            raise InvalidDeclaration(f"No environment variable can have the name {key!r}.")
        variables[_text(key, "environment variable")] = _text(value, f"environment variable {key!r}")
    taken: dict[str, str] = {}
    for key, value in declared.parameters.items():
        variable = f"AML_PARAMETER_{_NOT_IN_VARIABLE.sub('_', key)}"
        if variable in taken:
            raise InvalidDeclaration(
                f"The params {taken[variable]!r} and {key!r} would both become {variable}. Rename one of them."
            )
        taken[variable] = key
        variables[variable] = _text(value, f"parameter {key!r}")
    return variables


def _text(value: Any, what: str) -> str:
    text = str(value)
    if "\0" in text:
        raise InvalidDeclaration(f"The {what} {text[:100]!r} holds a NUL character, which no process can be given.")
    return text


def workspace_of(data: DeclaredData) -> Workspace:
    """The workspace that the inputs and outputs of a step belong to; the default one where none says."""
    found = []
    for each in data.inputs.values():
        if isinstance(each.dataset, AbstractDataset):
            found.append(each.dataset.workspace)
    for output in data.outputs.values():
        store = output.destination[0] if output.destination else None
        if isinstance(store, Datastore):
            found.append(store.workspace)
    named = {each.conn_id for each in found}
    if len(named) > 1:
        raise WiringError(
            f"The inputs and outputs of the step belong to several workspaces: {', '.join(sorted(named))}. A step runs in one."
        )
    return next((each for each in found if each.searches), found[0] if found else Workspace())
