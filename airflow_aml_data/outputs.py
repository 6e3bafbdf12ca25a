"""Outputs in a DAG: the declaration, and how it ties the step that writes it to the steps that read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.sdk import XComArg
from airflow.sdk.definitions._internal.contextmanager import DagContext  # private, like the next: a test watches both
from airflow.sdk.definitions._internal.mixins import ResolveMixin  # how Airflow finds data edges
from airflow.sdk.exceptions import XComNotFound
from airflow.sdk.serde import allow_class

from airflow_aml_data.core import outputs as core
from airflow_aml_data.core.inputs import DatasetConsumptionConfig
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.errors import DataChanged, WiringError

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Operator

    from airflow_aml_data.core.plan import DeclaredData

allow_class(OutputReference)


@dataclass(frozen=True, slots=True)
class Writer:
    """The step of a DAG that writes an output.

    :param name: The output's in that step.
    :param map_indexes: Of the tasks of a mapped step that declare it, where not all do; None: those that write the name.
    """

    step: Operator
    name: str
    map_indexes: tuple[int, ...] | None = None

    def references(self, context: Context) -> list[OutputReference]:
        """What it has published in this run, in map order; what a step of the same mapped task group reads is one.

        :raises DataChanged: when that is nothing.
        """
        ti, found = context["ti"], None
        if self.map_indexes is not None:
            found = ti.xcom_pull(task_ids=self.step.task_id, key=self.name, map_indexes=self.map_indexes)
        elif self.is_many_for(context["task"]):
            found = ti.xcom_pull(task_ids=[self.step.task_id], key=self.name)
        else:
            with suppress(XComNotFound):
                found = [XComArg(self.step, key=self.name).resolve(context)]
        references = [as_reference(each) for each in found or () if each is not None]
        if not references:
            raise DataChanged(
                f"Step {self.step.task_id!r} has published no output {self.name!r} in run {ti.run_id!r}. "
                "Clear that step to run it again."
            )
        return references

    def is_many_for(self, reader: Operator) -> bool:
        """Whether a reader gets what several tasks of the step wrote."""
        if self.map_indexes is not None:
            return len(self.map_indexes) > 1
        if self.step.is_mapped:
            return True
        group = self.step.get_closest_mapped_task_group()
        return group is not None and reader.get_closest_mapped_task_group() is not group


class OutputPort:
    """What all copies of one declared output share: which step of a DAG writes it, and which wait to read it."""

    __slots__ = ("_waiting", "_writers")

    def __init__(self) -> None:
        self._writers: dict[str, Writer] = {}
        self._waiting: dict[str, list[Operator]] = {}

    def __deepcopy__(self, memo: Any) -> OutputPort:
        return self  # an identity cannot be copied

    def writer(self, dag_id: str | None) -> Writer | None:
        """Who writes the output in a DAG. None: in the DAG declared last."""
        if dag_id is None:
            return next(reversed(self._writers.values()), None)
        return self._writers.get(dag_id)

    def write_by(self, writer: Writer) -> None:
        """Note who writes, and put those who wait behind it.

        :raises WiringError: when another step of the DAG writes it already.
        """
        step = writer.step
        known = self._writers.get(step.dag_id)
        if known and known.step.dag is step.dag and known.step.task_id != step.task_id:
            raise WiringError(
                f"Step output {writer.name} can not be used as an output for step {step.task_id}, as it is already an "
                f"output of step {known.step.task_id}."
            )
        self._writers.pop(step.dag_id, None)
        self._writers[step.dag_id] = writer
        for reader in self._waiting.pop(step.dag_id, []):
            if reader.dag is step.dag:
                reader.set_upstream(step)

    def read_by(self, step: Operator) -> None:
        """Put a reader behind the writer, or let it wait for one."""
        known = self._writers.get(step.dag_id)
        if known and known.step.dag is step.dag:
            step.set_upstream(known.step)
        else:
            self._waiting.setdefault(step.dag_id, []).append(step)


@dataclass(frozen=True)
class OutputFileDatasetConfig(core.OutputFileDatasetConfig):
    __doc__ = core.OutputFileDatasetConfig.__doc__

    port: OutputPort = field(default_factory=OutputPort, repr=False, kw_only=True)

    def _input(self, name: str | None, mode: str) -> OutputInput:
        """The step that gets it runs after the one that writes the output, whichever is declared first."""
        return OutputInput(name, self, mode=mode)

    @classmethod
    def _tabular(cls) -> type[core.OutputTabularDatasetConfig]:
        return OutputTabularDatasetConfig


@dataclass(frozen=True)
class OutputTabularDatasetConfig(core.OutputTabularDatasetConfig, OutputFileDatasetConfig):
    __doc__ = core.OutputTabularDatasetConfig.__doc__


@dataclass(frozen=True)
class OutputInput(DatasetConsumptionConfig, ResolveMixin):
    """An output of one step as an input of another. Made by :meth:`OutputFileDatasetConfig.as_input`."""

    dataset: OutputFileDatasetConfig

    def iter_references(self) -> Iterable[tuple[Operator, str]]:
        """How Airflow learns of the data edge of a TaskFlow task; :func:`wire` makes those of steps."""
        dag = DagContext.get_current()
        if writer := self.dataset.port.writer(dag.dag_id if dag else None):
            yield writer.step, writer.name

    def resolve(self, context: Context) -> DatasetConsumptionConfig:
        """On the worker: the input with the data that the writing step has committed in this run.

        :raises WiringError: when no step of the DAG writes it.
        :raises DataChanged: when that step has published nothing in this run.
        """
        ti = context["ti"]
        writer = self.dataset.port.writer(ti.dag_id)
        if writer is None:
            raise WiringError(
                f"Input {self.name or self.dataset.name} on step {ti.task_id} is not connected to any previous step."
            )
        dataset = self.dataset.dataset_of(writer.references(context), of_many=writer.is_many_for(context["task"]))
        return DatasetConsumptionConfig(self.name, dataset, self.mode, self.path_on_compute)


def wire(step: Operator, tasks: Sequence[DeclaredData], *, indexed: bool = True) -> None:
    """Tie a step to the steps of its DAG that write what it reads, and to those that read what it writes.

    :param tasks: What each task of a mapped step reads and writes, in map order; of any other step, one.
    :param indexed: Whether the place in ``tasks`` is the map index.
    :raises WiringError: for an output that another step writes, or that has another name in another task.
    """
    written: dict[str, dict[OutputPort, list[int]]] = {}
    for index, data in enumerate(tasks):
        for name, output in data.outputs.items():
            if isinstance(output, OutputFileDatasetConfig):
                written.setdefault(name, {}).setdefault(output.port, []).append(index)
    names: dict[OutputPort, str] = {}
    for name, ports in written.items():
        for port, indexes in ports.items():
            if names.setdefault(port, name) != name:
                raise WiringError(
                    f"One output is called {names[port]} and {name} in different tasks of mapped step {step.task_id}. "
                    "Give it a name."
                )
            if indexed and len(indexes) < len(tasks):
                port.write_by(Writer(step, name, tuple(indexes)))
            elif len(ports) == 1:
                port.write_by(Writer(step, name))
    inputs = (each for data in tasks for each in data.inputs.values())
    for port in {each.dataset.port for each in inputs if isinstance(each, OutputInput)}:
        port.read_by(step)


def as_reference(value: Any) -> OutputReference:
    """An output reference from an XCom value: the object, or its plain-dictionary form."""
    return value if isinstance(value, OutputReference) else OutputReference.from_json(value)


def check_connected(dag_id: str, task_id: str, inputs: Iterable[DatasetConsumptionConfig]) -> None:
    """Refuse inputs that no step of the DAG writes; for use when the whole DAG is declared.

    :raises WiringError: naming input and step. Source: v1, at build.
    """
    for each in inputs:
        if isinstance(each, OutputInput) and each.dataset.port.writer(dag_id) is None:
            raise WiringError(
                f"Input {each.name or each.dataset.name or 'without a name'} on step {task_id} is not connected to any previous step. "
                "Give the output to the arguments or outputs of a step of this DAG, or read data of other DAGs by its registered name."
            )
