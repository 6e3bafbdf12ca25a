"""Outputs in a DAG: the declaration, and how it ties the step that writes it to the steps that read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.contextmanager import DagContext  # private, like the next: a test watches both
from airflow.sdk.definitions._internal.mixins import ResolveMixin  # how Airflow finds data edges
from airflow.sdk.serde import allow_class

from airflow_aml_data.core import outputs as core
from airflow_aml_data.core.datasets import DatasetConsumptionConfig
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.errors import DataChanged, WiringError

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.operator import BaseOperator

allow_class(OutputReference)


class OutputPort:
    """What all copies of one declared output share: which step of a DAG writes it, and which wait to read it."""

    __slots__ = ("_waiting", "_writers")

    def __init__(self) -> None:
        self._writers: dict[str, tuple[BaseOperator, str]] = {}
        self._waiting: dict[str, list[BaseOperator]] = {}

    def __deepcopy__(self, memo: Any) -> OutputPort:
        return self  # an identity cannot be copied

    def writer(self, dag_id: str | None) -> tuple[BaseOperator, str] | None:
        """The step that writes the output in a DAG, and the name it writes it under. None: in the DAG declared last."""
        if dag_id is None:
            return next(reversed(self._writers.values()), None)
        return self._writers.get(dag_id)

    def write_by(self, step: BaseOperator, name: str) -> None:
        """Note who writes, and put those who wait behind it.

        :raises WiringError: when another step of the DAG writes it already.
        """
        known = self._writers.get(step.dag_id)
        if known and known[0].dag is step.dag and known[0].task_id != step.task_id:
            raise WiringError(
                f"Step output {name} can not be used as an output for step {step.task_id}, as it is already an output of "
                f"step {known[0].task_id}."
            )
        self._writers.pop(step.dag_id, None)
        self._writers[step.dag_id] = (step, name)
        for reader in self._waiting.pop(step.dag_id, []):
            if reader.dag is step.dag:
                reader.set_upstream(step)

    def read_by(self, step: BaseOperator) -> None:
        """Note a reader; when the writer is declared already, Airflow finds the edge by itself."""
        known = self._writers.get(step.dag_id)
        if known is None or known[0].dag is not step.dag:
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

    def iter_references(self) -> Iterable[tuple[BaseOperator, str]]:
        """How Airflow learns of the data edge."""
        dag = DagContext.get_current()
        if found := self.dataset.port.writer(dag.dag_id if dag else None):
            yield found

    def resolve(self, context: Context) -> DatasetConsumptionConfig:
        """On the worker: the input with the data that the writing step has committed in this run.

        :raises WiringError: when no step of the DAG writes it.
        :raises DataChanged: when that step has published nothing in this run.
        """
        ti = context["ti"]
        found = self.dataset.port.writer(ti.dag_id)
        if found is None:
            raise WiringError(
                f"Input {self.name or self.dataset.name} on step {ti.task_id} is not connected to any previous step."
            )
        writer, name = found
        reference = as_reference(ti.xcom_pull(task_ids=writer.task_id, key=name))
        if reference is None:
            raise DataChanged(
                f"Step {writer.task_id!r} has published no output {name!r} in run {ti.run_id!r}. Clear that step to run it again."
            )
        dataset = self.dataset.dataset_of([reference])
        return DatasetConsumptionConfig(self.name, dataset, self.mode, self.path_on_compute)


def as_reference(value: Any) -> OutputReference | None:
    """An output reference from an XCom value: the object, or its plain-dictionary form."""
    if value is None or isinstance(value, OutputReference):
        return value
    return OutputReference.from_json(value)


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
