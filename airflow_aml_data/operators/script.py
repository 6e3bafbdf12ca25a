"""``PythonScriptStepOperator``: a v1 ``PythonScriptStep`` as an Airflow task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_aml_data.core.plan import check_script, script_command
from airflow_aml_data.operators.base import StepOperator, as_list, is_known, sources_in
from airflow_aml_data.operators.environments import PYTHON_OF_JOBS, interpreter_for


class PythonScriptStepOperator(StepOperator):
    """Run a Python script with named inputs and outputs, as a v1 ``PythonScriptStep`` does.

    Each output becomes an XCom under its name: an :class:`.OutputReference`, so ``step.output["processed"]``
    works in other tasks. The task's return value are the metrics the script logged.

    In upload mode nothing is published when the script fails. A mistake of the DAG, the script or the
    connection fails the task at once; a failing script or store follows the task's retries.

    :param script_name: The script, relative to ``source_directory``. (templated)
    :param arguments: Command-line arguments: text, numbers, named inputs, outputs. (templated, also inside
        datasets: versions and split percentages may be templates)
    :param kwargs: As of every step, see :class:`.StepOperator`: ``source_directory`` (None: the DAG file's folder),
        ``inputs``, ``outputs``, ``params``, ``runconfig``, ``allow_reuse`` and so on; and those of any task.
    :raises UserError: while the DAG is parsed, for declarations that cannot work.

    Source: v1, ``azureml.pipeline.steps.PythonScriptStep``; the article.
    """

    template_fields: Sequence[str] = ("script_name", "arguments", *StepOperator.template_fields)
    shallow_copy_attrs: Sequence[str] = ("arguments", *StepOperator.shallow_copy_attrs)
    custom_operator_name = "PythonScriptStep"
    command_field = "arguments"

    def __init__(self, *, script_name: str, arguments: Sequence[Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.script_name = script_name
        self.arguments = as_list("arguments", arguments)
        self.wire()

    @classmethod
    def check_sources(cls, values: Mapping[str, Any], folder: Path) -> None:
        """Refuse a script that is not there.

        :raises FilesNotFound: with the absolute path. Source: v1, at build.
        """
        script_name, source_directory = values.get("script_name"), values.get("source_directory")
        if script_name is not None and is_known(script_name) and is_known(source_directory):
            check_script(sources_in(folder, source_directory), script_name)

    def program(self, *, is_local: bool) -> Mapping[str, Any]:
        folder = self.sources()
        python = interpreter_for(self.runconfig) if is_local else PYTHON_OF_JOBS
        return {
            "command": script_command(folder, self.script_name, python, self.arguments),
            "title": self.script_name,
            "source_directory": folder,
            "environment_variables": self.runconfig.environment_variables,
        }
