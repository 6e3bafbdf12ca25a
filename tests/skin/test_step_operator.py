"""``PythonScriptStepOperator`` in real DAG runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_aml_data import Dataset, Datastore, OutputReference
from tests.skin.conftest import FinishedRun

HEADER = """
import sys
from airflow.sdk import DAG, Param, task
from airflow_aml_data import DataPath, Dataset, Datastore, OutputFileDatasetConfig, PythonScriptStepOperator, RunConfiguration, Workspace

ws = Workspace()
store = ws.get_default_datastore()
"""


@pytest.fixture
def script(dags_folder: Path) -> Callable[[str], None]:
    """Write ``s.py`` beside the DAG file."""

    def write(text: str) -> None:
        (dags_folder / "s.py").write_text(
            "import json, os, sys\nfrom azureml.core import Run\nrun = Run.get_context()\n" + text
        )

    return write


@pytest.mark.slow
def test_trigger_form_params_reach_arguments_versions_and_split_percentages(
    run_dag: Callable[..., FinishedRun], script: Callable[[str], None], datastore: Datastore, put: Callable[..., None]
) -> None:
    """The templates stand inside the declarations, where v1 had PipelineParameter."""
    put({"v1/a": "1", "v2/b": "2", **{f"many/{i:03}": "x" for i in range(200)}})
    for folder in ("v1", "v2"):
        files = Dataset.File.from_files((datastore, folder))
        files.register(datastore.workspace, "data", create_new_version=True)
    script(
        """
data, part, rest = (sorted(os.listdir(run.input_datasets[n])) for n in ("data", "part", "rest"))
run.log("data", data); run.log("part", part); run.log("both", len(part) + len(rest)); run.log("argv", sys.argv[1:])
run.log("env", [os.environ["AML_PARAMETER_my_lr_x"], os.environ["MODE"]])
"""
    )
    text = (
        HEADER
        + """
with DAG("d", params={"version": Param(1), "share": Param(0.5), "seed": Param(7), "word": Param("a b"), "lr": Param(0.1)}):
    part, rest = Dataset.File.from_files((store, "many")).random_split("{{ params.share }}", seed="{{ params.seed }}")
    PythonScriptStepOperator(
        task_id="s", script_name="s.py",
        arguments=["--word={{ params.word }}", 5, None],
        inputs=[Dataset.get_by_name(ws, "data", version="{{ params.version }}").as_named_input("data").as_mount(),
                part.as_named_input("part").as_mount(), rest.as_named_input("rest").as_mount()],
        params={"my-lr x": "{{ params.lr }}"},
        runconfig=RunConfiguration(environment_variables={"MODE": "{{ params.word }}"}),
    )
"""
    )

    default = run_dag(text).xcom("s")
    chosen = run_dag(text, conf={"version": 2, "share": 0.1, "word": "c", "lr": 3}).xcom("s")

    assert (default["data"], default["argv"], default["env"]) == (["a"], ["--word=a b", "5", "None"], ["0.1", "a b"])
    assert (chosen["data"], chosen["argv"], chosen["env"]) == (["b"], ["--word=c", "5", "None"], ["3", "c"])
    assert default["both"] == chosen["both"] == 200
    assert set(chosen["part"]) < set(default["part"])  # one seed: a smaller part lies inside a larger one


def test_trigger_form_params_reach_destinations_and_leave_v1s_placeholders_alone(
    run_dag: Callable[..., FinishedRun], script: Callable[[str], None], workspace: object
) -> None:
    script("open(os.path.join(sys.argv[1], 'x'), 'w')")

    finished = run_dag(
        HEADER
        + """
with DAG("d", params={"team": Param("blue")}):
    out = OutputFileDatasetConfig("out", destination=(store, "{{ params.team }}/{run-id}/{output-name}")).as_upload()
    PythonScriptStepOperator(task_id="s", script_name="s.py", arguments=[out])
""",
        conf={"team": "red"},
    )

    path = finished.xcom("s", "out").path
    assert path.startswith("red/d.manual__")
    assert path.endswith("/out")


@pytest.mark.slow
def test_the_parts_of_an_unseeded_split_are_complementary_across_the_steps_of_a_run(
    run_dag: Callable[..., FinishedRun], script: Callable[[str], None], put: Callable[..., None]
) -> None:
    put({f"many/{i:03}": "x" for i in range(300)})
    script("run.log('files', sorted(os.listdir(sys.argv[1])))")

    finished = run_dag(
        HEADER
        + """
with DAG("d"):
    part, rest = Dataset.File.from_files((store, "many")).random_split(0.5)
    for name, data in (("part", part), ("rest", rest)):
        PythonScriptStepOperator(task_id=name, script_name="s.py", arguments=[data.as_named_input("data").as_mount()])
"""
    )

    part, rest = finished.xcom("part")["files"], finished.xcom("rest")["files"]
    assert sorted(part + rest) == [f"{i:03}" for i in range(300)]
    assert 100 < len(part) < 200


def test_a_taskflow_task_opens_the_reference_of_a_step(
    run_dag: Callable[..., FinishedRun], script: Callable[[str], None], workspace: object
) -> None:
    script("open(os.path.join(sys.argv[1], 'table.csv'), 'w').write('a,b\\n1,x\\n2,y\\n')")

    finished = run_dag(
        HEADER
        + """
with DAG("d"):
    step = PythonScriptStepOperator(
        task_id="s", script_name="s.py", arguments=[OutputFileDatasetConfig("processed").as_upload()])

    @task
    def look(ref):
        frame = ref.to_pandas_dataframe()
        return {"paths": ref.to_path(), "text": open(ref.download()[0]).read(), "sum": int(frame["a"].sum())}

    look(step.output["processed"])
"""
    )

    assert finished.xcom("look") == {"paths": ["/table.csv"], "text": "a,b\n1,x\n2,y\n", "sum": 3}
    assert isinstance(finished.xcom("s", "processed"), OutputReference)


def test_a_step_takes_the_output_of_another_as_an_xcom_too(
    run_dag: Callable[..., FinishedRun], script: Callable[[str], None], workspace: object
) -> None:
    script(
        """
if len(sys.argv) == 3:
    run.log("read", open(os.path.join(sys.argv[1], "x")).read())
else:
    open(os.path.join(sys.argv[1], "x"), "w").write("content")
"""
    )

    finished = run_dag(
        HEADER
        + """
with DAG("d"):
    step = PythonScriptStepOperator(task_id="a", script_name="s.py", arguments=[OutputFileDatasetConfig("x").as_upload()])
    PythonScriptStepOperator(task_id="b", script_name="s.py", arguments=[step.output["x"], "read"])
"""
    )

    assert finished.xcom("b") == {"read": "content"}


@pytest.mark.slow
def test_mapped_steps_read_one_output_and_write_one_each(
    run_dag: Callable[..., FinishedRun], script: Callable[[str], None], workspace: object
) -> None:
    script(
        "open(os.path.join(sys.argv[1], 'x'), 'w').write(str(sys.argv[2:])); run.log('n', len(os.listdir(sys.argv[1])))"
    )

    finished = run_dag(
        HEADER
        + """
with DAG("d"):
    first = OutputFileDatasetConfig("first").as_upload()
    PythonScriptStepOperator(task_id="a", script_name="s.py", arguments=[first])
    PythonScriptStepOperator.partial(task_id="b", script_name="s.py", inputs=[first.as_input("one")]).expand(
        arguments=[[OutputFileDatasetConfig("second").as_upload(), "1"], [OutputFileDatasetConfig("second").as_upload(), "2"]])
"""
    )

    assert finished.state == "success"


@pytest.mark.slow
def test_a_step_reads_what_a_step_of_another_dag_has_registered(
    run_dag: Callable[..., FinishedRun], script: Callable[[str], None], workspace: object
) -> None:
    """The article, "Register OutputFileDatasetConfig objects for reuse": by name, in the newest version or a given one."""
    script(
        "if len(sys.argv) == 3: open(os.path.join(sys.argv[1], 'x'), 'w').write(sys.argv[2])\n"
        "else: run.log('read', open(os.path.join(sys.argv[1], 'x')).read())"
    )
    writer = """
with DAG("writer", params={"word": Param("")}):
    out = OutputFileDatasetConfig("out").as_upload().register_on_complete("shared")
    PythonScriptStepOperator(task_id="s", script_name="s.py", arguments=[out, "{{ params.word }}"])
"""
    reader = """
with DAG("reader", params={"version": Param("latest")}):
    shared = Dataset.get_by_name(ws, "shared", version="{{ params.version }}")
    PythonScriptStepOperator(task_id="s", script_name="s.py", arguments=[shared.as_named_input("shared").as_mount()])
"""
    for word in ("first", "second"):
        assert run_dag(HEADER + writer, conf={"word": word}).state == "success"

    assert run_dag(HEADER + reader).xcom("s") == {"read": "second"}
    assert run_dag(HEADER + reader, conf={"version": 1}).xcom("s") == {"read": "first"}


def test_a_mistake_of_the_author_fails_without_retries_and_a_failing_script_with_them(
    parse: Callable[[str], object],
    script: Callable[[str], None],
    run_dag: Callable[..., FinishedRun],
    workspace: object,
) -> None:
    script("sys.exit(3)")

    finished = run_dag(
        HEADER
        + """
with DAG("d", default_args={"retries": 1, "retry_delay": 0}):
    PythonScriptStepOperator(task_id="script_fails", script_name="s.py")
    PythonScriptStepOperator(task_id="no_such_data", script_name="s.py",
        inputs=[Dataset.get_by_name(ws, "nobody_registered_this").as_named_input("x").as_mount()])
"""
    )

    assert finished.state == "failed"
    assert finished.tries == {"script_fails": 2, "no_such_data": 1}


@pytest.mark.slow
def test_requirements_make_a_virtual_environment_of_the_steps_own(
    run_dag: Callable[..., FinishedRun], script: Callable[[str], None], workspace: object
) -> None:
    script(
        "import importlib.util as u; run.log('found', [bool(u.find_spec(n)) for n in ('six', 'pandas')]); import six"
    )

    finished = run_dag(
        HEADER
        + """
with DAG("d"):
    PythonScriptStepOperator(task_id="s", script_name="s.py", runconfig=RunConfiguration(requirements=["six==1.17.0"]))
"""
    )

    assert finished.xcom("s") == {"found": [True, False]}
