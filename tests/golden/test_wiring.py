"""G35 to G41: order follows the data, and what cannot be wired is an error of the DAG file (semantics, section 12)."""

from __future__ import annotations

import re

import pytest

from tests.skin.conftest import run

SCRIPT = """
import os, sys
from azureml.core import Run
run = Run.get_context()
run.log("lr", os.environ.get("AML_PARAMETER_my_lr_x"))
if "a" in run.output_datasets:
    open(run.output_datasets["a"] + "/f", "w").write("from step1")
if "x" in run.input_datasets:
    run.log("read", open(run.input_datasets["x"] + "/f").read())
"""


@pytest.mark.slow
def test_g35_g40_the_reader_runs_after_the_writer_whatever_the_order_and_params_become_variables(
    parse_dag, steps, airflow_database
):
    bag = parse_dag(
        "step('step2', arguments=[a.as_input('x')], params={'my-lr x': 0.1})",
        "step('step1', arguments=[a.as_upload()])",
        script=SCRIPT,
    )
    assert not bag.import_errors

    finished = run(bag.dags["golden"])

    assert finished.state == "success"
    assert finished.xcom("step2") == {"lr": "0.1", "read": "from step1"}
    assert finished.xcom("step1") == {"lr": None}


@pytest.mark.parametrize("order", [1, -1], ids=["writer first", "reader first"])
@pytest.mark.parametrize("declared", ["arguments=[a.as_input()]", "inputs=[a.as_input().as_download()]", "inputs=[a]"])
def test_g35_an_output_that_a_step_reads_puts_it_after_its_writer(order, declared, parse_dag):
    bag = parse_dag(*["step('step1', outputs=[a])", f"step('step2', {declared})"][::order])

    assert not bag.import_errors
    tasks = bag.dags["golden"].task_dict
    assert tasks["step2"].upstream_task_ids == {"step1"}
    assert tasks["step1"].upstream_task_ids == set()


def test_g36_asking_for_the_reader_alone_includes_its_writer(parse_dag):
    bag = parse_dag("step('other')", "step('step2', arguments=[a.as_input()])", "step('step1', arguments=[a])")
    assert not bag.import_errors

    asked = bag.dags["golden"].partial_subset(task_ids=["step2"], include_upstream=True)

    assert asked.task_ids == ["step2", "step1"]


def test_g36_a_writer_declared_outside_the_dag_is_not_pulled_in_as_in_v1_but_an_error(refusal):
    said = refusal("step('step2', arguments=[a.as_input('x')])\nstep('step1', arguments=[a])")

    assert "Input x on step step2 is not connected to any previous step." in said


def test_g37_an_input_that_no_step_writes_is_refused_when_the_dag_is_built(refusal):
    said = refusal("step('train', arguments=[a.as_input('in1')])")

    assert "Input in1 on step train is not connected to any previous step." in said


def test_g38_steps_that_read_each_others_outputs_are_reported_as_a_cycle(refusal):
    said = refusal("step('s1', inputs=[b.as_input()], outputs=[a])", "step('s2', inputs=[a.as_input()], outputs=[b])")

    assert re.search(r"Cycle detected in Dag: golden. Faulty task: s[12]", said), said


def test_g39_unrelated_steps_are_parallel_and_run_after_is_written_as_in_airflow(parse_dag):
    bag = parse_dag(
        "one, two, three = step('one', outputs=[a]), step('two', outputs=[b]), step('three')", "two >> three"
    )

    assert not bag.import_errors
    tasks = bag.dags["golden"].task_dict
    assert tasks["one"].upstream_task_ids == tasks["two"].upstream_task_ids == set()
    assert tasks["three"].upstream_task_ids == {"two"}


def test_g40_params_become_environment_variables(steps):
    steps.run("import os; print(os.environ['AML_PARAMETER_my_lr_x'])", parameters={"my-lr x": 0.1})

    assert steps.lines == ["0.1"]


def test_g41_a_missing_script_is_refused_when_the_dag_is_built_with_its_absolute_path(refusal, dags_folder):
    said = refusal("PythonScriptStepOperator(task_id='train', script_name='code/train.py')")

    path = dags_folder / "code" / "train.py"
    assert (
        f"Step [code/train.py]: script not found at: {path}. Make sure to specify an appropriate source_directory"
        in said
    )
