"""Order follows the data, and wiring mistakes are import errors of the DAG file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import BundleDagBag

HEADER = """
from airflow.sdk import DAG, TaskGroup, task
from airflow_aml_data import *
from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator as Step, Workspace

ws = Workspace()
store = ws.get_default_datastore()
files = Dataset.File.from_files((store, "raw"))
table = Dataset.Tabular.from_delimited_files((store, "raw.csv"))
out, other = OutputFileDatasetConfig("out"), OutputFileDatasetConfig("other")
with DAG("wiring"):
"""


@pytest.fixture
def parse_steps(parse: Callable[[str], BundleDagBag], dags_folder: Path) -> Callable[[str], BundleDagBag]:
    """Parse a DAG of the given indented statements; ``s.py`` exists."""
    (dags_folder / "s.py").write_text("print('hello')")

    def parse_body(body: str) -> BundleDagBag:
        return parse(HEADER + body)

    return parse_body


def upstream(bag: BundleDagBag, task_id: str) -> set[str]:
    assert not bag.import_errors, bag.import_errors
    return set(bag.dags["wiring"].task_dict[task_id].upstream_task_ids)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            """
    Step(task_id="a", script_name="s.py", arguments=["--out", out])
    Step(task_id="b", script_name="s.py", arguments=["--in", out.as_input("x")])
""",
            id="writer first",
        ),
        pytest.param(
            """
    Step(task_id="b", script_name="s.py", inputs=[out.as_input().as_download()])
    Step(task_id="a", script_name="s.py", outputs=[out.as_upload()])
""",
            id="reader first",
        ),
        pytest.param(
            """
    Step(task_id="a", script_name="s.py", outputs=[out])
    Step(task_id="b", script_name="s.py", inputs=[out])
""",
            id="an output config among the inputs",
        ),
        pytest.param(
            """
    Step(task_id="b", script_name="s.py", inputs=[out])
    Step(task_id="a", script_name="s.py", arguments=[out.register_on_complete("r").as_upload()])
""",
            id="an output config among the inputs, written later by a registered copy",
        ),
        pytest.param(
            """
    Step(task_id="a", script_name="s.py", arguments=[out])
    Step.partial(task_id="b", script_name="s.py").expand(arguments=[[out.as_input("x"), "1"], [out.as_input("x"), "2"]])
""",
            id="a mapped reader",
        ),
        pytest.param(
            """
    a = Step(task_id="a", script_name="s.py", arguments=[out])
    @task
    def b(ref):
        print(ref)
    b(a.output["out"])
""",
            id="a TaskFlow reader",
        ),
    ],
)
def test_a_step_that_reads_an_output_is_downstream_of_the_one_that_writes_it(
    parse_steps: Callable[[str], BundleDagBag], body: str
) -> None:
    """The article: step2 is ready once step1 has completed, whatever the order of declaration (G35)."""
    assert upstream(parse_steps(body), "b") == {"a"}


def test_order_follows_the_data_through_task_groups(parse_steps: Callable[[str], BundleDagBag]) -> None:
    bag = parse_steps(
        """
    with TaskGroup("late"):
        Step(task_id="b", script_name="s.py", arguments=[out.as_input()])
    with TaskGroup("early"):
        Step(task_id="a", script_name="s.py", arguments=[out])
"""
    )

    assert upstream(bag, "late.b") == {"early.a"}


def test_steps_without_common_data_are_parallel(parse_steps: Callable[[str], BundleDagBag]) -> None:
    """G39"""
    bag = parse_steps(
        """
    Step(task_id="a", script_name="s.py", inputs=[files.as_named_input("f").as_mount()], outputs=[out])
    Step(task_id="b", script_name="s.py", inputs=[files.as_named_input("f").as_mount()], outputs=[other])
"""
    )

    assert upstream(bag, "a") == upstream(bag, "b") == set()


def test_one_declaration_serves_several_dags_of_a_file(parse: Callable[[str], BundleDagBag], dags_folder: Path) -> None:
    """DAG factories declare an output once and use it in each DAG."""
    (dags_folder / "s.py").write_text("")
    bag = parse(
        HEADER
        + """
    pass
for dag_id in ("one", "two"):
    with DAG(dag_id):
        Step(task_id="b_" + dag_id, script_name="s.py", arguments=[out.as_input()])
        Step(task_id="a_" + dag_id, script_name="s.py", arguments=[out])
"""
    )

    assert not bag.import_errors
    for dag_id in ("one", "two"):
        assert bag.dags[dag_id].task_dict[f"b_{dag_id}"].upstream_task_ids == {f"a_{dag_id}"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            'Step(task_id="b", script_name="s.py", arguments=[out.as_input("in1")])',
            "Input in1 on step b is not connected to any previous step",
        ),
        (
            'Step(task_id="a", script_name="s.py", outputs=[out])\n'
            '    Step(task_id="b", script_name="s.py", outputs=[out.as_upload()])',
            "Step output out can not be used as an output for step b, as it is already an output of step a",
        ),
        (
            'Step(task_id="a", script_name="s.py", inputs=[other.as_input()], outputs=[out])\n'
            '    Step(task_id="b", script_name="s.py", inputs=[out.as_input()], outputs=[other])',
            "Cycle detected",
        ),
        (
            'Step(task_id="a", script_name="s.py", inputs=[files.as_named_input("x"), table.as_named_input("x")])',
            "[x] is repeated. Input port names must be unique",
        ),
        (
            'Step(task_id="a", script_name="s.py", outputs=[out, OutputFileDatasetConfig("out")])',
            "[out] is repeated. Output port names must be unique",
        ),
        (
            'Step(task_id="a", script_name="s.py", inputs=[files.as_named_input("out")], outputs=[out])',
            "names an input and an output of one step",
        ),
        ('Step(task_id="a", script_name="s.py", inputs=[files])', "Please call the as_named_input method"),
        ('Step(task_id="a", script_name="s.py", arguments=[table])', "cannot be used directly as arguments"),
        ('Step(task_id="a", script_name="s.py", arguments=[object])', "An argument is text, a number, a bool"),
        ('Step(task_id="a", script_name="missing.py")', "script not found at: "),
        ('Step(task_id="a", script_name="../s.py")', "must be relative to source_directory"),
        ('Step(task_id="a", script_name="s.py", compute_target="")', "compute_target is 'local'"),
        ('Step(task_id="a", script_name="s.py", runconfig={})', "runconfig must be a RunConfiguration"),
        ('Step(task_id="a", script_name="s.py", outputs=["out"])', "outputs takes OutputFileDatasetConfig"),
        ('table.as_named_input("t").as_mount()', "Only FileDataset supports mount"),
        ('files.as_named_input("1x")', 'Invalid input name "1x"'),
        ("files.random_split(1.1)", "percentage must be a number between 0.0 and 1.0"),
    ],
)
def test_a_wiring_mistake_is_an_import_error_of_the_dag_file(
    parse_steps: Callable[[str], BundleDagBag], body: str, message: str
) -> None:
    """Semantics section 12, and G07, G26, G28, G37, G38, G41, G54."""
    (error,) = parse_steps("    " + body).import_errors.values()

    assert message in error


def test_what_airflow_stores_of_a_dag_is_the_same_at_every_parse(parse_steps: Callable[[str], BundleDagBag]) -> None:
    """A representation that changes, such as a memory address or a drawn seed, would make a new DAG version each time."""
    from airflow.serialization.serialized_objects import DagSerialization

    body = """
    part, rest = files.random_split(0.5)
    Step(task_id="b", script_name="s.py", arguments=[OutputFileDatasetConfig().as_upload(), out.as_input()],
         inputs=[part.as_named_input("part").as_mount(), rest.as_named_input("rest").as_mount()])
    Step(task_id="a", script_name="s.py", arguments=[out.register_on_complete("r", tags={"k": "v"})])
    Step.partial(task_id="c", script_name="s.py", inputs=[part.as_named_input("part"), other], outputs=[OutputFileDatasetConfig()]
        ).expand(arguments=[[out.as_input()], [rest.as_mount()]], params=[{"n": 1}])
    CommandStepOperator.partial(task_id="d").expand_kwargs([{"command": ["cat", out.as_input(), other], "params": {"n": 1}}])
"""

    first, second = (DagSerialization.to_dict(parse_steps(body).dags["wiring"]) for _ in range(2))

    assert first == second
    assert " at 0x" not in str(first)
