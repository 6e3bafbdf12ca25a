"""Steps under ``.partial().expand()`` and in mapped task groups: wired as plain ones are, whichever is declared first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent

import pytest
from airflow.dag_processing.dagbag import BundleDagBag

from tests.skin.conftest import FinishedRun
from tests.skin.test_wiring import HEADER as WIRING_HEADER

HEADER = WIRING_HEADER.replace(
    "with DAG",
    """
from airflow.sdk import task_group
from airflow_aml_data import CommandStepOperator as Command

def reads(*more):
    return Step(task_id="reads", script_name="read.py", arguments=[out.as_input("x"), *more])

with DAG""",
)

WRITE = "import sys; open(sys.argv[1] + '/n', 'w').write(sys.argv[2])"
"""Writes its second argument."""

READ = """
import os, sys
from azureml.core import Run
found = sorted(os.path.join(at, name) for at, _, names in os.walk(sys.argv[1]) for name in names)
Run.get_context().log("found", [[os.path.relpath(each, sys.argv[1]), open(each).read()] for each in found])
"""
"""Logs every file of its first argument, with its content."""


@pytest.fixture
def scripts(dags_folder: Path) -> None:
    """The scripts that the steps run."""
    (dags_folder / "write.py").write_text(WRITE)
    (dags_folder / "read.py").write_text(READ)


@pytest.fixture
def parse_steps(parse: Callable[[str], BundleDagBag], scripts: None) -> Callable[..., BundleDagBag]:
    """Parse a DAG of the given statements."""
    return lambda *statements: parse(HEADER + "".join(indent(dedent(each), "    ") for each in statements))


@pytest.fixture
def run_steps(run_dag: Callable[..., FinishedRun], scripts: None, workspace: object) -> Callable[..., FinishedRun]:
    """Run a DAG of the given statements."""

    def run(*statements: str, dag_params: object = None) -> FinishedRun:
        header = HEADER.replace('DAG("wiring"', f'DAG("wiring", params={dag_params}')
        return run_dag(header + "".join(indent(dedent(each), "    ") for each in statements))

    return run


WRITERS = {
    "plain": 'Step(task_id="a", script_name="write.py", arguments=[out, 1])',
    "outputs in partial": 'Step.partial(task_id="a", script_name="write.py", outputs=[out.as_upload()]).expand(arguments=[[1], [2]])',
    "outputs in expand": 'Step.partial(task_id="a", script_name="write.py").expand(arguments=[[out, 1], [out, 2]])',
    "outputs in some tasks": 'Step.partial(task_id="a", script_name="write.py").expand(arguments=[[out], [other], [out]])',
    "expand_kwargs": 'Step.partial(task_id="a").expand_kwargs([{"script_name": "write.py", "outputs": [out]}])',
    "expand over an XCom": """
        words = task(task_id="words")(lambda: [[1], [2]])()
        Step.partial(task_id="a", script_name="write.py", outputs=[out]).expand(arguments=words)
    """,
    "a mapped command": 'Command.partial(task_id="a", outputs=[out]).expand(command=["echo 1 > $out/n", "echo 2 > $out/n"])',
    "a command in expand": 'Command.partial(task_id="a").expand(command=[["echo >", out], ["echo 1 >", out]])',
}
READERS = {
    "plain": 'Step(task_id="b", script_name="read.py", arguments=[out.as_input("x")])',
    "inputs in partial": 'Step.partial(task_id="b", script_name="read.py", inputs=[out.as_input()]).expand(arguments=[[1], [2]])',
    "inputs in expand": 'Step.partial(task_id="b", script_name="read.py").expand(inputs=[[out], [out.as_input().as_download()]])',
    "expand_kwargs": 'Step.partial(task_id="b", script_name="read.py").expand_kwargs([{"arguments": [out.as_input()]}])',
    "a mapped command": 'Command.partial(task_id="b").expand(command=[["ls", out.as_input()], ["cat", out.as_input()]])',
}


@pytest.mark.parametrize("reader_first", [False, True], ids=["writer first", "reader first"])
@pytest.mark.parametrize(
    ("writer", "reader"),
    [(writer, "plain") for writer in WRITERS if writer != "plain"]
    + [("plain", reader) for reader in READERS if reader != "plain"]
    + [("outputs in expand", "inputs in expand")],
)
def test_g35_a_reader_is_downstream_of_its_writer_when_either_is_mapped(
    parse_steps: Callable[..., BundleDagBag], writer: str, reader: str, reader_first: bool
) -> None:
    statements = [WRITERS[writer], READERS[reader]]

    bag = parse_steps(*(["\n", *statements[:: -1 if reader_first else 1]][i] + "\n" for i in range(3)))

    assert not bag.import_errors, bag.import_errors
    assert bag.dags["wiring"].task_dict["b"].upstream_task_ids == {"a"}


@pytest.mark.parametrize("reader_first", [False, True], ids=["writer first", "reader first"])
def test_order_follows_the_data_through_mapped_steps_in_task_groups(
    parse_steps: Callable[..., BundleDagBag], reader_first: bool
) -> None:
    statements = [f'with TaskGroup("{name}"):\n    {text}\n' for name, text in (
        ("early", WRITERS["outputs in partial"]), ("late", READERS["inputs in expand"]))]  # fmt: skip

    bag = parse_steps(*statements[:: -1 if reader_first else 1])

    assert not bag.import_errors, bag.import_errors
    assert bag.dags["wiring"].task_dict["late.b"].upstream_task_ids == {"early.a"}


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ('Step.partial(task_id="b", script_name="s.py").expand(inputs=[[out.as_input("in1")]])', "Input in1 on step b is not"),
        ('Step.partial(task_id="b", script_name="s.py").expand(arguments=[[1], [files]])', "cannot be used directly as arg"),
        ('Step.partial(task_id="b", script_name="s.py").expand(inputs=[[files]])', "Please call the as_named_input"),
        ('Step.partial(task_id="b", script_name="s.py").expand(outputs=[["x"]])', "outputs takes OutputFileDatasetConfig"),
        ('Step.partial(task_id="b", script_name="s.py", inputs=[1]).expand(arguments=[[1]])', "inputs takes named datasets"),
        ('Step.partial(task_id="b", script_name="s.py").expand(arguments=["--x", "y"])', "arguments of a step is a list"),
        (
            'Step.partial(task_id="b", script_name="s.py", inputs=[files.as_named_input("x")]).expand('
            'arguments=[[1], [table.as_named_input("x")]])',
            "[x] is repeated. Input port names must be unique",
        ),
        (
            'Step.partial(task_id="b", script_name="s.py", outputs=[out]).expand_kwargs('
            '[{"arguments": [OutputFileDatasetConfig("out")]}])',
            "[out] is repeated. Output port names must be unique",
        ),
        (
            'Step.partial(task_id="b", script_name="s.py", outputs=[out]).expand(inputs=[[table.as_named_input("out")]])',
            "names an input and an output of one step",
        ),
        (
            'Step(task_id="a", script_name="s.py", outputs=[out])\n'
            'Step.partial(task_id="b", script_name="s.py").expand(outputs=[[other], [out.as_upload()]])',
            "Step output out can not be used as an output for step b, as it is already an output of step a",
        ),
        (
            "one, two = OutputFileDatasetConfig(), OutputFileDatasetConfig()\n"
            'Step.partial(task_id="b", script_name="s.py").expand(outputs=[[one, two], [two, one]])',
            "One output is called output_1 and output_2 in different tasks of mapped step b",
        ),
        (
            'Step.partial(task_id="a", script_name="s.py", inputs=[other]).expand(outputs=[[out]])\n'
            'Step.partial(task_id="b", script_name="s.py", inputs=[out]).expand(outputs=[[other]])',
            "Cycle detected",
        ),
        ('Step.partial(task_id="b").expand(script_name=["s.py", "missing.py"])', "script not found at: "),
        ('Step.partial(task_id="b", script_name="missing.py").expand(arguments=[[1]])', "script not found at: "),
        ('Step.partial(task_id="b", script_name="s.py", compute_target="").expand(arguments=[[1]])', "compute_target is 'local'"),
        ('Step.partial(task_id="b", script_name="s.py").expand(runconfig=[{}])', "runconfig must be a RunConfiguration"),
        ('Command.partial(task_id="b").expand(command=["true", ""])', "A CommandStep needs a command"),
        ('Command.partial(task_id="b").expand(command=[["cat", files]])', "cannot be used directly as arguments"),
    ],
)  # fmt: skip
def test_a_wiring_mistake_of_a_mapped_step_is_an_import_error_of_the_dag_file(
    parse_steps: Callable[..., BundleDagBag], dags_folder: Path, statement: str, message: str
) -> None:
    """Semantics section 12, and G07, G21, G28, G37, G38, G41."""
    (dags_folder / "s.py").touch()

    (error,) = parse_steps(statement).import_errors.values()

    assert message in error


def test_what_is_known_only_at_run_time_is_left_alone_at_parse(parse_steps: Callable[..., BundleDagBag]) -> None:
    bag = parse_steps(
        """
        kwargs = task(task_id="kwargs")(lambda: [{"script_name": "missing.py"}])()
        Step.partial(task_id="b").expand_kwargs(kwargs)
        Step.partial(task_id="c", script_name="{{ params.script }}").expand(inputs=kwargs.map(lambda each: []))
        """
    )

    assert not bag.import_errors, bag.import_errors


def test_the_users_lists_are_not_changed_by_mapped_steps(parse_steps: Callable[..., BundleDagBag]) -> None:
    """v1 changes them."""
    bag = parse_steps(
        """
        lists = [[out, 1], [out, 2]], [files.as_named_input("f")], []
        before = repr(lists)
        Step.partial(task_id="b", script_name="write.py", inputs=lists[1], outputs=lists[2]).expand(arguments=lists[0])
        Command(task_id="c", command=lists[1], outputs=lists[2])
        assert repr(lists) == before
        """
    )

    assert not bag.import_errors, bag.import_errors


@pytest.mark.slow
def test_a_reader_of_a_mapped_writer_gets_all_its_outputs_in_map_order(run_steps: Callable[..., FinishedRun]) -> None:
    finished = run_steps(
        """
        reads()
        Step.partial(task_id="a", script_name="write.py").expand(arguments=[[out.as_upload(), n] for n in range(11)])
        """
    )

    assert finished.xcom("reads") == {"found": [[f"{n:02}/n", str(n)] for n in range(11)]}


@pytest.mark.slow
def test_a_reader_of_one_mapped_task_gets_a_folder_of_one(run_steps: Callable[..., FinishedRun]) -> None:
    """The script finds the same layout however many tasks there were."""
    finished = run_steps(
        'Step.partial(task_id="a", script_name="write.py").expand(arguments=[[out, 7]])\n', "reads().set_downstream([])"
    )

    assert finished.xcom("reads") == {"found": [["0/n", "7"]]}


@pytest.mark.slow
def test_a_table_of_a_mapped_writer_has_the_rows_of_all_in_map_order(
    run_steps: Callable[..., FinishedRun], dags_folder: Path
) -> None:
    (dags_folder / "table.py").write_text(
        "from azureml.core import Run\nrun = Run.get_context()\n"
        "run.log('rows', run.input_datasets['t'].to_pandas_dataframe().values.tolist())"
    )

    finished = run_steps(
        """
        table = out.read_delimited_files().keep_columns("n")
        Step(task_id="b", script_name="table.py", inputs=[table.as_input("t")])
        Command.partial(task_id="a", outputs=[out.as_upload()]).expand(
            command=[f"printf 'n,m\\n{n},0\\n' > $out/same_name.csv" for n in (5, 3, 4)])
        """
    )

    assert finished.xcom("b") == {"rows": [["5"], ["3"], ["4"]]}


@pytest.mark.parametrize(
    "given",
    [
        pytest.param('step.output["out"]', id="the lazy sequence of a mapped task's XComs"),
        pytest.param("task(task_id='t')(lambda refs: list(refs))(step.output['out'])", id="references in a list"),
        pytest.param(
            "task(task_id='t')(lambda refs: [each.to_json() for each in refs])(step.output['out'])",
            id="plain dictionaries",
        ),
    ],
)
@pytest.mark.slow
def test_a_list_of_references_is_one_input_of_all_of_them(run_steps: Callable[..., FinishedRun], given: str) -> None:
    finished = run_steps(
        f"""
        step = Step.partial(task_id="a", script_name="write.py").expand(arguments=[[out, n] for n in (5, 3)])
        Step(task_id="b", script_name="read.py", arguments=[{given}])
        """
    )

    assert finished.xcom("b") == {"found": [["0/n", "5"], ["1/n", "3"]]}


@pytest.mark.slow
def test_inside_a_mapped_task_group_a_reader_gets_the_output_of_its_own_index(
    run_steps: Callable[..., FinishedRun],
) -> None:
    finished = run_steps(
        """
        @task_group
        def group(word):
            Step(task_id="b", script_name="read.py", arguments=[out.as_input()])
            Step(task_id="a", script_name="write.py", arguments=[out, word])

        reads()
        group.expand(word=["x", "y", "z"])
        """
    )

    assert [each["found"] for each in finished.xcoms("group.b")] == [[["n", word]] for word in "xyz"]
    assert finished.xcom("reads") == {"found": [["0/n", "x"], ["1/n", "y"], ["2/n", "z"]]}


@pytest.mark.parametrize(
    "writer",
    [
        'Step(task_id="a", script_name="write.py", arguments=[out, 1], pre_execute=skip)',
        'Step.partial(task_id="a", script_name="write.py", pre_execute=skip).expand(arguments=[[out], [out]])',
        'Step.partial(task_id="a", script_name="write.py", pre_execute=skip).expand(arguments=[[out], [other]])',
    ],
    ids=["plain", "mapped", "one of the mapped tasks"],
)
@pytest.mark.slow
def test_an_output_that_was_not_published_fails_its_reader_without_retries(
    run_steps: Callable[..., FinishedRun], writer: str
) -> None:
    finished = run_steps(
        f"""
        def skip(context):
            from airflow.sdk.exceptions import AirflowSkipException
            raise AirflowSkipException

        {writer}
        Step(task_id="b", script_name="read.py", inputs=[out], trigger_rule="all_done", retries=2, retry_delay=0)
        """
    )

    assert (finished.task_states, finished.tries["b"]) == ({"a": "skipped", "b": "failed"}, 1)


@pytest.mark.slow
def test_tasks_with_outputs_of_their_own_under_one_name_are_read_one_by_one(
    run_steps: Callable[..., FinishedRun],
) -> None:
    finished = run_steps(
        """
        parts = [OutputFileDatasetConfig("part") for _ in range(3)]
        Step.partial(task_id="a", script_name="write.py").expand(arguments=[[part, n] for n, part in enumerate(parts)])
        Step(task_id="b", script_name="read.py", arguments=[parts[1].as_input()])
        """
    )

    assert finished.xcom("b") == {"found": [["n", "1"]]}


@pytest.mark.slow
def test_mapped_steps_have_params_of_their_own(run_steps: Callable[..., FinishedRun], dags_folder: Path) -> None:
    """G40"""
    (dags_folder / "show.py").write_text(
        "import os; from azureml.core import Run\n"
        "names = sorted(each for each in os.environ if each.startswith('AML_PARAMETER_'))\n"
        "Run.get_context().log('params', {each[14:]: os.environ[each] for each in names})"
    )

    finished = run_steps(
        """
        Step.partial(task_id="a", script_name="show.py", params={"my-lr x": "{{ 1 + 1 }}"}).expand(arguments=[[1], [2]])
        Command.partial(task_id="b", command="python show.py", source_directory=".").expand(params=[{"n": 1}, {"n": 2}])
        """,
        dag_params={"n": 0, "m": 0},
    )

    assert finished.xcoms("a") == [{"params": {"my_lr_x": "2"}}] * 2
    assert finished.xcoms("b") == [{"params": {"n": "1"}}, {"params": {"n": "2"}}]
