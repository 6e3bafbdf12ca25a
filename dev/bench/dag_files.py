"""DAG files for the benches: the same graph with Airflow's BashOperator and with our step."""

from dataclasses import dataclass

THEIRS = """\
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG({dag_id!r}):
    steps = [BashOperator(task_id=f"step_{{n}}", bash_command="true") for n in range({tasks})]
    for first, second in {edges}:
        steps[first] >> steps[second]
"""

OURS = """\
from airflow.sdk import DAG
from airflow_aml_data import OutputFileDatasetConfig, PythonScriptStepOperator

with DAG({dag_id!r}):
    outputs = [OutputFileDatasetConfig(name=f"output_{{n}}") for n in range({tasks})]
    arguments = [["--output", output] for output in outputs]
    for first, second in {edges}:
        arguments[second] += ["--input", outputs[first].as_input()]
    for n in range({tasks}):
        PythonScriptStepOperator(task_id=f"step_{{n}}", script_name={script!r}, arguments=arguments[n])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A graph of steps. In their DAG file the edges are drawn, in ours they follow from the data."""

    tasks: int
    edges: tuple[tuple[int, int], ...]

    @classmethod
    def chain(cls, tasks: int) -> "Graph":
        return cls(tasks=tasks, edges=tuple((n, n + 1) for n in range(tasks - 1)))

    @classmethod
    def wide(cls, tasks: int, edges: int) -> "Graph":
        """Join each step to the next, then to the one after that, and so on, until there are enough edges."""
        every = ((n, n + distance) for distance in range(1, tasks) for n in range(tasks - distance))
        return cls(tasks=tasks, edges=tuple(edge for edge, _ in zip(every, range(edges), strict=False)))

    def theirs(self, dag_id: str) -> str:
        return THEIRS.format(dag_id=dag_id, tasks=self.tasks, edges=self.edges)

    def ours(self, dag_id: str, *, script: str) -> str:
        """:param script: Path of a Python script, run with ``--output`` and, per edge, ``--input``."""
        return OURS.format(dag_id=dag_id, tasks=self.tasks, edges=self.edges, script=script)
