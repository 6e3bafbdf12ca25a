"""The script side: what a step's script asks about itself, as in the SDK v1.

>>> from airflow_aml_data import Run
>>> run = Run.get_context()
>>> run.id.startswith("OfflineRun")
True

Importing this module costs a few milliseconds and needs the standard library only. pandas is
imported when a script asks a dataset for a DataFrame, not before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_aml_data.core.protocol import RunFile
from airflow_aml_data.errors import OfflineRun

if TYPE_CHECKING:
    from airflow_aml_data.core.workspace import Workspace


class RunEnvironmentException(OfflineRun):
    """``get_context(allow_offline=False)`` was called outside a pipeline step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """The experiment of a run: on Airflow, its DAG.

    :param name: The id of the DAG.
    """

    name: str
    conn_id: str

    @property
    def workspace(self) -> Workspace:
        """The workspace the step runs in; its datastores and datasets are reachable from the script."""
        from airflow_aml_data.core.workspace import Workspace

        return Workspace(self.conn_id)


class Run:
    """The step a script runs in. Made by :meth:`get_context`."""

    def __init__(self, file: RunFile | None) -> None:
        self._file = file
        self.id = file.id if file else f"OfflineRun_{os.urandom(8).hex()}"

    def __repr__(self) -> str:
        return f"Run(id={self.id!r})"

    @classmethod
    def get_context(cls, allow_offline: bool = True) -> Run:
        """The run of the step this script is started by, or an offline run when it is started by hand.

        :param allow_offline: False: raise instead of returning an offline run.
        :raises RunEnvironmentException: outside a step, with ``allow_offline=False``.

        Source: v1, ``azureml.core.Run.get_context``.
        """
        file = RunFile.current()
        if file is None and not allow_offline:
            raise RunEnvironmentException(
                "This script does not run inside a pipeline step, and allow_offline=False asks for one. "
                "Start it with PythonScriptStepOperator."
            )
        return cls(file)

    @property
    def experiment(self) -> Experiment:
        """The DAG this run belongs to, and through it the workspace."""
        file = self._inside_a_step("experiment")
        return Experiment(name=file.dag_id, conn_id=file.conn_id)

    @property
    def input_datasets(self) -> Mapping[str, Any]:
        """Input name to a local path (mount, download) or to the dataset itself (direct).

        Source: the article, "Access datasets within your script".
        """
        return _Inputs(self._inside_a_step("input_datasets"))

    @property
    def output_datasets(self) -> Mapping[str, str]:
        """Output name to the local path the script writes to."""
        return dict(self._inside_a_step("output_datasets").outputs)

    def log(self, name: str, value: Any, description: str = "") -> None:
        """Report one value of a metric: it appears in the task log and in the step's XCom.

        Logged again, the values make a list. Outside a step it is printed only.

        :param value: A number or text; NumPy scalars are taken as the Python value they hold.
        """
        plain = value.item() if hasattr(value, "item") else value
        print(f"metric {name} = {plain}" + (f" ({description})" if description else ""), flush=True)
        if self._file:
            with Path(self._file.metrics_file).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"name": name, "value": plain}, default=str) + "\n")

    def log_list(self, name: str, value: Sequence[Any], description: str = "") -> None:
        """Report every value of a list under one name."""
        for each in value:
            self.log(name, each, description)

    def log_row(self, name: str, description: str = "", **kwargs: Any) -> None:
        """Report a row of named values: each is logged as ``name.column``."""
        for column, value in kwargs.items():
            self.log(f"{name}.{column}", value, description)

    def _inside_a_step(self, asked: str) -> RunFile:
        if self._file is None:
            raise OfflineRun(
                f"Run.{asked} exists only inside a pipeline step, and this script runs by hand ({self.id}). "
                "Start it with PythonScriptStepOperator, or pass it paths as arguments."
            )
        return self._file


class _Inputs(Mapping[str, Any]):
    """Named inputs; a dataset in direct mode is opened when it is asked for."""

    def __init__(self, file: RunFile) -> None:
        self._file = file

    def __getitem__(self, name: str) -> Any:
        if name not in self._file.inputs:
            raise KeyError(
                f"This step has no input named {name!r}; it has: {', '.join(self._file.inputs) or 'none'}. "
                "Name it with as_named_input() and give it to the step."
            )
        found = self._file.inputs[name]
        if found.mode != "direct":
            return found.path
        from airflow_aml_data.core.factory import from_definition
        from airflow_aml_data.core.workspace import Workspace

        return from_definition(Workspace(self._file.conn_id), found.dataset)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.inputs)

    def __len__(self) -> int:
        return len(self._file.inputs)
