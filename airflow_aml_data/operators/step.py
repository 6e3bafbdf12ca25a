"""``PythonScriptStepOperator``: a v1 ``PythonScriptStep`` as an Airflow task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.exceptions import AirflowFailException

from airflow_aml_data.core.compute.local import LocalCompute
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.plan import (
    DeclaredData,
    StepDeclaration,
    check_script,
    declared_data,
    script_command,
    workspace_of,
)
from airflow_aml_data.core.sampling import is_template
from airflow_aml_data.core.workspace import Workspace
from airflow_aml_data.errors import InvalidDeclaration, UserError
from airflow_aml_data.operators.environments import RunConfiguration, interpreter_for
from airflow_aml_data.outputs import OutputInput, check_connected

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context
    from airflow.sdk.definitions.param import ParamsDict

__all__ = ["PythonScriptStepOperator", "RunConfiguration"]


class PythonScriptStepOperator(BaseOperator):
    """Run a Python script with named inputs and outputs, as a v1 ``PythonScriptStep`` does.

    Each output becomes an XCom under its name: an :class:`.OutputReference`, so ``step.output["processed"]``
    works in other tasks. The task's return value are the metrics the script logged.

    In upload mode nothing is published when the script fails. A mistake of the DAG, the script or the
    connection fails the task at once; a failing script or store follows the task's retries.

    :param script_name: The script, relative to ``source_directory``. (templated)
    :param source_directory: Folder with the script and what it imports; a copy of it is the script's working
        directory. Relative: to the DAG file's folder, which is also the default. (templated)
    :param arguments: Command-line arguments: text, numbers, named inputs, outputs. (templated, also inside
        datasets: versions and split percentages may be templates)
    :param inputs: Named inputs that are not among the arguments. (templated)
    :param outputs: Outputs that are not among the arguments. (templated)
    :param params: Become environment variables ``AML_PARAMETER_{name}``. (templated)
    :param compute_target: ``"local"``: a child process of the worker.
    :param runconfig: Interpreter, packages and environment variables. (templated)
    :param conn_id: Airflow connection of type ``azureml``; None: the one of the datasets and outputs.
    :raises UserError: while the DAG is parsed, for declarations that cannot work.

    Source: v1, ``azureml.pipeline.steps.PythonScriptStep``; the article.
    """

    template_fields: Sequence[str] = (
        "script_name",
        "source_directory",
        "arguments",
        "inputs",
        "outputs",
        "script_params",
        "runconfig",
    )
    ui_color: str = "#d9ecff"
    custom_operator_name = "PythonScriptStep"
    shallow_copy_attrs: Sequence[str] = ("arguments", "inputs", "outputs")

    def __init__(
        self,
        *,
        script_name: str,
        source_directory: str | None = None,
        arguments: Sequence[Any] | None = None,
        inputs: Sequence[Any] | None = None,
        outputs: Sequence[Any] | None = None,
        params: ParamsDict | Mapping[str, Any] | None = None,
        compute_target: str = "local",
        runconfig: RunConfiguration | None = None,
        conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.script_name = script_name
        self.source_directory = source_directory
        self.arguments = _as_list("arguments", arguments)
        self.inputs = _as_list("inputs", inputs)
        self.outputs = _as_list("outputs", outputs)
        self.script_params = _own_params(params)
        self.compute_target = compute_target
        self.runconfig = RunConfiguration() if runconfig is None else runconfig
        self.conn_id = conn_id
        self._compute = LocalCompute()
        if not getattr(self, "_BaseOperator__from_mapped", False):
            self._wire()

    def execute(self, context: Context) -> dict[str, Any] | None:
        from airflow_aml_data.core.step import run_step  # brings the catalog, which no DAG processor needs

        ti = context["ti"]
        run = StepRun(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            try_number=ti.try_number,
            unique=str(ti.id),
        )
        try:
            declared = StepDeclaration(
                run=run,
                command=script_command(
                    self._sources(), self.script_name, interpreter_for(self.runconfig), self.arguments
                ),
                title=self.script_name,
                source_directory=self._sources(),
                inputs=self.inputs,
                outputs=self.outputs,
                parameters=self.script_params,
                environment_variables=self.runconfig.environment_variables,
            )
            result = run_step(self._workspace().connect(), declared, self._compute, on_line=self.log.info)
        except UserError as error:
            raise AirflowFailException(str(error)) from error
        for reference in result.outputs:
            ti.xcom_push(key=reference.name, value=reference)
        return dict(result.metrics) or None

    def on_kill(self) -> None:
        """End the script and every process it started."""
        self._compute.stop()

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render templates inside datasets, outputs and run configurations too."""

        def render(value: Any) -> Any:
            return BaseOperator.render_template(self, value, context, jinja_env, seen_oids)

        if is_dataclass(content) and not isinstance(content, type):
            try:
                content = _rendered(content, render)
                return content.resolve(context) if isinstance(content, OutputInput) else content
            except UserError as error:
                raise AirflowFailException(str(error)) from error
        return render(content)

    def check(self) -> None:
        """Refuse what can be known only when the whole DAG is declared; called by the DAG policy.

        :raises UserError: for a script that is not there, or an input that no step writes.
        """
        if not is_template(self.script_name) and not is_template(self.source_directory):
            check_script(self._sources(), self.script_name)
        check_connected(self.dag_id, self.task_id, self._declared().inputs.values())

    def _wire(self) -> None:
        if self.compute_target != "local":
            raise InvalidDeclaration(
                f"Step {self.task_id!r}: compute_target {self.compute_target!r} is not offered yet. Allowed: 'local'."
            )
        if not isinstance(self.runconfig, RunConfiguration):
            raise InvalidDeclaration(
                f"Step {self.task_id!r}: runconfig must be a RunConfiguration, found {self.runconfig!r}."
            )
        data = self._declared()
        for name, output in data.outputs.items():
            if port := getattr(output, "port", None):
                port.write_by(self, name)
        for each in data.inputs.values():
            if isinstance(each, OutputInput):
                each.dataset.port.read_by(self)

    def _declared(self) -> DeclaredData:
        known = [() if isinstance(each, ResolveMixin) else each for each in (self.arguments, self.inputs, self.outputs)]
        return declared_data(
            *known,
            same=lambda a, b: a is b,
            not_yet_known=(ResolveMixin,),
        )

    def _sources(self) -> Path:
        folder = Path(self.get_dag().folder) if self.get_dag() else Path.cwd()  # type: ignore[union-attr]
        return (folder / (self.source_directory or ".")).resolve()

    def _workspace(self) -> Workspace:
        if self.conn_id:
            return Workspace(self.conn_id)
        return workspace_of(declared_data(self.arguments, self.inputs, self.outputs))


def _as_list(what: str, value: Any) -> Any:
    """A copy of the author's list; what is known only when the step runs (an XCom of another task) stays as it is."""
    if value is None:
        return []
    if isinstance(value, ResolveMixin):
        return value
    if not isinstance(value, list | tuple):
        raise InvalidDeclaration(f"{what} of a step is a list, found {type(value).__name__}: {value!r}.")
    return list(value)


def _own_params(params: ParamsDict | Mapping[str, Any] | None) -> dict[str, Any]:
    """The step's own ``params``: Airflow hands them over merged with the DAG's, and tells them by their source."""
    from airflow.sdk.definitions.param import ParamsDict

    if isinstance(params, ParamsDict):
        return ParamsDict.filter_params_by_source(params, source="task").dump()
    return dict(params or {})


def _rendered(value: Any, render: Callable[[Any], Any]) -> Any:
    """A declaration with the templates inside it rendered; itself when there are none."""
    if is_dataclass(value) and not isinstance(value, type):
        old = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
        changed = {name: new for name, each in old.items() if (new := _rendered(each, render)) is not each}
        return replace(value, **changed) if changed else value
    if isinstance(value, tuple | list):
        new = [_rendered(each, render) for each in value]
        return value if all(a is b for a, b in zip(new, value, strict=True)) else type(value)(new)
    if isinstance(value, Mapping):
        new_values = {key: _rendered(each, render) for key, each in value.items()}
        return value if all(new_values[key] is each for key, each in value.items()) else new_values
    return render(value) if is_template(value) else value
