"""``CommandStepOperator``: a v1 ``CommandStep`` as an Airflow task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_aml_data.core.plan import DeclaredData
from airflow_aml_data.errors import InvalidDeclaration
from airflow_aml_data.operators.base import StepOperator, as_list
from airflow_aml_data.operators.environments import interpreter_for


class CommandStepOperator(StepOperator):
    """Run a shell command with named inputs and outputs, as a v1 ``CommandStep`` does.

    ``bash`` runs it, and its exit code is the last command's: begin with ``set -e`` to stop at the first that fails.
    Outputs, metrics and failures are those of :class:`.PythonScriptStepOperator`; a Python script that the command
    starts has ``Run.get_context()`` too, and ``python`` is the interpreter of ``runconfig``.

    >>> CommandStepOperator(task_id="count", command=["wc -l", flights, "> $lines/flights.txt"], outputs=[lines])

    :param command: Text, or a list of text, numbers, named inputs and outputs, put together with spaces. Text stays
        as it is, for the shell to read; the local path of an input or output is quoted. In text, ``$name`` is that path
        too, of any input or output of the step; an output is a folder that is there. (templated, also inside datasets)
    :param kwargs: As of every step, see :class:`.StepOperator`: ``source_directory`` (None: the command starts in an
        empty folder), ``inputs``, ``outputs``, ``params``, ``runconfig``, ``allow_reuse`` and so on; and those of
        any task.
    :raises UserError: while the DAG is parsed, for declarations that cannot work.

    Source: v1, ``azureml.pipeline.steps.CommandStep``; semantics section 12.
    """

    template_fields: Sequence[str] = ("command", *StepOperator.template_fields)
    shallow_copy_attrs: Sequence[str] = ("command", *StepOperator.shallow_copy_attrs)
    custom_operator_name = "CommandStep"
    command_field = "command"

    def __init__(self, *, command: str | Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.command = _words(command)
        self.wire()

    @classmethod
    def declared(cls, task_id: str, values: Mapping[str, Any]) -> DeclaredData:
        if "command" in values:
            values = {**values, "command": _words(values["command"])}
        return super().declared(task_id, values)

    def program(self, *, is_local: bool) -> Mapping[str, Any]:
        variables = dict(self.runconfig.environment_variables)
        if is_local:
            python = Path(interpreter_for(self.runconfig)).parent
            variables = {"PATH": os.pathsep.join([str(python), *filter(None, [os.environ.get("PATH")])]), **variables}
        return {
            "command": _words(self.command),
            "shell": True,
            "source_directory": self.sources() if self.source_directory else None,
            "environment_variables": variables,
        }


def _words(command: Any) -> Any:
    words = as_list("command", [command] if isinstance(command, str) else command)
    if words in ([], [""]):
        raise InvalidDeclaration("A CommandStep needs a command: text, or a list of text, inputs and outputs.")
    return words
