"""What all steps share: what goes in, what comes out, and how a declaration becomes a run of the core."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_aml_data.core.compute.local import LocalCompute
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.plan import DeclaredData, StepDeclaration, declared_data, workspace_of
from airflow_aml_data.core.records import RUN_DETAILS
from airflow_aml_data.core.sampling import is_template
from airflow_aml_data.core.storage import retry
from airflow_aml_data.core.workspace import Workspace
from airflow_aml_data.errors import InvalidDeclaration, UserError
from airflow_aml_data.operators.environments import RunConfiguration
from airflow_aml_data.operators.links import STEP_LINKS
from airflow_aml_data.operators.mapping import StepPartial, mapped_values
from airflow_aml_data.outputs import OutputFileDatasetConfig, OutputInput, check_connected, wire

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context
    from airflow.sdk.definitions.param import ParamsDict
    from airflow.sdk.types import Operator

    from airflow_aml_data.core.connect import ConnectedWorkspace
    from airflow_aml_data.core.results import StepResult
    from airflow_aml_data.operators.job import TaskJob

LOCAL = "local"
"""The compute target that is the worker."""


class StepOperator(BaseOperator):
    """Runs something with named inputs and outputs; the subclass says what.

    Each output becomes an XCom under its name: an :class:`.OutputReference`, so ``step.output["processed"]``
    works in other tasks. The task's return value are the metrics that were logged; files written to ``./outputs``
    and ``./logs`` are one more output, ``run_files``.

    In upload mode nothing is published when the step fails. A mistake of the DAG, the script or the connection
    fails the task at once; a failing script or store follows the task's retries.

    ``.partial().expand()`` is wired as a plain step is: who reads an output of the mapped step gets what all of its
    tasks wrote, in the order of their map indexes.

    :param source_directory: Folder with the sources; a copy of it is the working directory. Relative: to the DAG
        file's folder. (templated)
    :param inputs: Named inputs that are not in the command line. (templated, also inside datasets)
    :param outputs: Outputs that are not in the command line. (templated)
    :param params: Become environment variables ``AML_PARAMETER_{name}``. (templated)
    :param compute_target: ``"local"``: a child process of the worker. Else a compute cluster of the Azure ML workspace that the connection
        names, or ``"serverless"``: the step is a job there. (templated)
    :param runconfig: Interpreter, packages and environment variables; of a job, its environment, machines, identity and time. (templated)
    :param deferrable: Whether the task leaves the worker while its job runs; None: ``[operators] default_deferrable``. In this way
        ``execution_timeout`` counts from when the job is submitted, and ends it.
    :param poll_seconds: The longest time between two looks at a job.
    :param allow_reuse: Whether an earlier run of the same step may stand for this one. None does in this release, whatever
        it says: every step runs.
    :param version: Another text makes it another step, for reuse.
    :param conn_id: Airflow connection of type ``azureml``; None: the one of the datasets and outputs. (templated)
    :raises UserError: while the DAG is parsed, for declarations that cannot work.
    """

    template_fields: Sequence[str] = (
        "source_directory",
        "inputs",
        "outputs",
        "script_params",
        "compute_target",
        "runconfig",
        "conn_id",
    )
    ui_color: str = "#d9ecff"
    shallow_copy_attrs: Sequence[str] = ("inputs", "outputs")
    operator_extra_links: Collection[BaseOperatorLink] = STEP_LINKS

    command_field: ClassVar[str]
    """Name of the constructor argument that may hold inputs and outputs among text."""

    def __init__(
        self,
        *,
        source_directory: str | None = None,
        inputs: Sequence[Any] | None = None,
        outputs: Sequence[Any] | None = None,
        params: ParamsDict | Mapping[str, Any] | None = None,
        compute_target: str = "local",
        runconfig: RunConfiguration | None = None,
        allow_reuse: bool = True,
        version: str | None = None,
        conn_id: str | None = None,
        deferrable: bool | None = None,
        poll_seconds: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source_directory = source_directory
        self.inputs = _as_inputs(as_list("inputs", inputs))
        self.outputs = as_list("outputs", outputs)
        self.script_params = _own_params(params)
        self.compute_target = compute_target
        self.runconfig = RunConfiguration() if runconfig is None else runconfig
        self.allow_reuse = allow_reuse
        self.version = version
        self.conn_id = conn_id
        self.deferrable = deferrable
        self.poll_seconds = poll_seconds
        if compute_target == LOCAL:
            self.operator_extra_links = ()
        self.job_links: Mapping[str, str] = {}
        self._compute = LocalCompute()
        self._job: TaskJob | None = None

    @classmethod
    def partial(cls, **kwargs: Any) -> StepPartial:
        """The step without what differs from one of its mapped tasks to the next; call ``expand`` on it."""
        made = super().partial(**kwargs)
        made._expand_called = True  # the one returned is expanded in its place
        return StepPartial(operator_class=cls, kwargs=made.kwargs, params=made.params)

    @classmethod
    def declared(cls, task_id: str, values: Mapping[str, Any]) -> DeclaredData:
        """What a task of constructor arguments ``values`` reads and writes, as far as that is known at parse.

        :raises UserError: for arguments that cannot work.
        """
        target = values.get("compute_target", LOCAL)
        if not isinstance(target, str | ResolveMixin) or not target:
            raise InvalidDeclaration(
                f"Step {task_id!r}: compute_target is {LOCAL!r}, the name of a compute cluster, or 'serverless'; found {target!r}."
            )
        if not isinstance(config := values.get("runconfig"), RunConfiguration | ResolveMixin | None):
            raise InvalidDeclaration(f"Step {task_id!r}: runconfig must be a RunConfiguration, found {config!r}.")
        known = (as_list(name, values.get(name)) for name in (cls.command_field, "inputs", "outputs"))
        return declared_data(
            *(() if isinstance(each, ResolveMixin) else each for each in known),
            same=lambda a, b: a is b,
            not_yet_known=(ResolveMixin,),
        )

    @classmethod
    def check_sources(cls, values: Mapping[str, Any], folder: Path) -> None:
        """Refuse sources that are not there; called when the whole DAG is declared.

        :param folder: The DAG file's.
        """

    @abstractmethod
    def program(self, *, is_local: bool) -> Mapping[str, Any]:
        """On the worker: the fields of :class:`.StepDeclaration` that say what is run.

        :param is_local: Whether it runs on this worker.
        """

    def execute(self, context: Context) -> dict[str, Any] | None:
        from airflow_aml_data.core.step import run_step  # brings the catalog, which no DAG processor needs

        retry.begin()
        self.operator_extra_links = ()  # until there is something to lead to
        with _as_airflow_has_them():
            declared = self._declared(context)
            workspace = self._workspace(declared).connect()
            if self.compute_target != LOCAL:
                return self._publish(context, self._task_job(context, workspace, declared).execute())
            return self._publish(context, run_step(workspace, declared, self._compute, on_line=self.log.info))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any] | None:
        """Commit what a job has left that the trigger has seen ended."""
        retry.begin()
        self.operator_extra_links = ()  # they were given when the job was submitted, and stay
        self.operator_extra_links = ()  # until there is something to lead to
        with _as_airflow_has_them():
            declared = self._declared(context)
            workspace = self._workspace(declared).connect()
            return self._publish(context, self._task_job(context, workspace, declared).finish(event))

    def on_kill(self) -> None:
        """End the script and every process it started, or cancel its job; and end all transfers."""
        retry.cancel()
        self._compute.stop()
        if self._job:
            self._job.cancel()

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

    def wire(self) -> None:
        """Tie the step to those it reads from and those that read from it; the end of every constructor."""
        if not getattr(self, "_BaseOperator__from_mapped", False):
            wire(self, [self.declared(self.task_id, vars(self))])

    def sources(self) -> Path:
        """The source directory, absolute."""
        return sources_in(dag_folder(self), self.source_directory)

    def _declared(self, context: Context) -> StepDeclaration:
        """The step as this try runs it."""
        ti = context["ti"]
        return StepDeclaration(
            run=StepRun(
                dag_id=ti.dag_id,
                run_id=ti.run_id,
                task_id=ti.task_id,
                map_index=-1 if ti.map_index is None else ti.map_index,
                try_number=ti.try_number,
                unique=str(ti.id),
            ),
            inputs=self.inputs,
            outputs=self.outputs,
            parameters=self.script_params,
            **self.program(is_local=self.compute_target == LOCAL),
            log_url=ti.log_url,
        )

    def _task_job(self, context: Context, workspace: ConnectedWorkspace, declared: StepDeclaration) -> TaskJob:
        from airflow_aml_data.operators.job import TaskJob

        self._job = TaskJob(self, context, workspace, declared)
        return self._job

    def _publish(self, context: Context, result: StepResult) -> dict[str, Any] | None:
        """Push what the step left; the task returns the metrics."""
        ti = context["ti"]
        for reference in result.outputs:
            ti.xcom_push(key=reference.name, value=reference)
        if result.details:
            ti.xcom_push(key=RUN_DETAILS, value=dict(result.details))
        return dict(result.metrics) or None

    def _workspace(self, declared: StepDeclaration) -> Workspace:
        if self.conn_id:
            return Workspace(self.conn_id)
        return workspace_of(declared_data(declared.command, declared.inputs, declared.outputs))


@contextmanager
def _as_airflow_has_them() -> Iterator[None]:
    """What the author has to change fails the task without retries."""
    try:
        yield
    except UserError as error:
        raise AirflowFailException(str(error)) from error


def check(task: Operator) -> None:
    """Refuse what can be known only when the whole DAG of a step is declared; called by the DAG policy.

    :raises UserError: for sources that are not there, or an input that no step writes.
    """
    operator_class = task.operator_class if isinstance(task, MappedOperator) else type(task)
    if not issubclass(operator_class, StepOperator):
        return
    for values in mapped_values(task) if isinstance(task, MappedOperator) else [vars(task)]:
        operator_class.check_sources(values, dag_folder(task))
        check_connected(task.dag_id, task.task_id, operator_class.declared(task.task_id, values).inputs.values())


def dag_folder(task: Operator) -> Path:
    """The folder of the file that declares a task's DAG."""
    return Path(dag.folder) if (dag := task.get_dag()) else Path.cwd()


def sources_in(folder: Path, source_directory: str | None) -> Path:
    """A step's source directory, absolute; relative ones lie in the DAG file's ``folder``."""
    return (folder / (source_directory or ".")).resolve()


def as_list(what: str, value: Any) -> Any:
    """A copy of the author's list; what is known only when the step runs (an XCom of another task) stays as it is."""
    if value is None:
        return []
    if isinstance(value, ResolveMixin):
        return value
    if not isinstance(value, list | tuple):
        raise InvalidDeclaration(f"{what} of a step is a list, found {type(value).__name__}: {value!r}.")
    return list(value)


def _as_inputs(values: Any) -> Any:
    """An output among the inputs is meant to be read. Source: v1, semantics section 12."""
    if isinstance(values, ResolveMixin):
        return values
    return [each.as_input() if isinstance(each, OutputFileDatasetConfig) else each for each in values]


def is_known(value: Any) -> bool:
    """Whether a constructor argument has its final value while the DAG is parsed."""
    return not isinstance(value, ResolveMixin) and not is_template(value)


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
