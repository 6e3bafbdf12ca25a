"""What a step reads and writes, settled before anything is moved."""

from __future__ import annotations

import pytest

from airflow_aml_data import Dataset, Datastore, Workspace
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.plan import Slot, declared_data, plan_step, workspace_of
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration, InvalidPath, WiringError

STORE = Datastore(Workspace(), None)
FILES = Dataset.File.from_files((STORE, "data"))
RAW = FILES.as_named_input("raw").as_mount()
OUT = OutputFileDatasetConfig("out")


def test_configs_in_arguments_count_as_inputs_and_outputs():
    data = declared_data(["--in", RAW, "--out", OUT, 5, None], [RAW], [OUT])
    assert data.command == ("--in", Slot("raw"), "--out", Slot("out"), 5, None)
    assert list(data.inputs) == ["raw"]
    assert list(data.outputs) == ["out"]


def test_the_users_lists_are_not_changed():
    """v1 does."""
    arguments, inputs, outputs = [RAW, OUT], [], []
    declared_data(arguments, inputs, outputs)
    assert (arguments, inputs, outputs) == ([RAW, OUT], [], [])


def test_text_that_looks_like_a_slot_stays_text():
    assert declared_data(["DatasetConsumptionConfig:raw", "Slot(name='raw')", RAW], [], []).command[:2] == (
        "DatasetConsumptionConfig:raw",
        "Slot(name='raw')",
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ([RAW, FILES.as_named_input("raw").as_download()], [], r"\[raw\] is repeated. Input port names"),
        ([], [OUT, OutputFileDatasetConfig("out").as_upload()], r"\[out\] is repeated. Output port names"),
        ([FILES.as_named_input("out")], [OUT], r"\[out\] names an input and an output"),
    ],
)
def test_a_name_is_used_once(inputs, outputs, said):
    """G07."""
    with pytest.raises(WiringError, match=said):
        declared_data([], inputs, outputs)


def test_generated_names_are_the_same_every_time_and_free():
    """G04."""
    unnamed = [FILES.as_mount(), FILES.as_download(), FILES.as_named_input("input_2").as_mount()]
    assert list(declared_data(unnamed, [], []).inputs) == ["input_1", "input_3", "input_2"]


@pytest.mark.parametrize(
    ("arguments", "inputs", "outputs", "said"),
    [
        ([FILES], [], [], "as_named_input"),
        ([], [FILES], [], "as_named_input"),
        ([[1]], [], [], "found list"),
        ([b"x"], [], [], "found bytes"),
        ([], ["x"], [], "found str"),
        ([], [], ["x"], "outputs takes"),
    ],
)
def test_other_things_are_refused(arguments, inputs, outputs, said):
    """G28."""
    with pytest.raises(InvalidDeclaration, match=said):
        declared_data(arguments, inputs, outputs)


@pytest.mark.parametrize("name", ["path", "HOME", "pwd", "LD_PRELOAD"])
def test_names_that_programs_need_are_accepted_with_a_warning(name):
    """G05."""
    with pytest.warns(UserWarning, match=name):
        declared_data([], [], [OutputFileDatasetConfig(name)])


def plan(steps, **more):
    return plan_step(steps.connected, steps.declare("pass", **more))


def test_arguments_become_text(steps):
    assert plan(steps, arguments=[5, 0.5, None, True, "x"]).command[2:] == ["5", "0.5", "None", "True", "x"]


def test_params_become_environment_variables(steps):
    """G40."""
    made = plan(steps, parameters={"my-lr x": 0.1}, environment_variables={"A": 1})
    assert made.environment_variables == {"AML_PARAMETER_my_lr_x": "0.1", "A": "1"}


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": {"a b": 1, "a-b": 2}},
        {"parameters": {"a": "\0"}},
        {"environment_variables": {"": "x"}},
        {"environment_variables": {"a=b": "x"}},
        {"environment_variables": {"a": "\0"}},
        {"arguments": ["\0"]},
    ],
)
def test_what_no_process_can_be_given_is_refused(steps, more):
    with pytest.raises(InvalidDeclaration):
        plan(steps, **more)


def test_an_output_no_step_writes(steps):
    """G37."""
    with pytest.raises(WiringError, match="Input x is not connected to any previous step"):
        plan(steps, inputs=[OUT.as_input("x")])


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("no.py", FilesNotFound, r"script not found at: /.*no\.py"),
        ("../x.py", InvalidPath, "inside"),
        ("/etc/hostname", InvalidPath, "relative"),
    ],
)
def test_a_script_that_is_not_there(steps, name, error, said):
    """G41."""
    with pytest.raises(error, match=said):
        plan(steps, script_name=name)


def test_outputs_of_two_tries_have_two_places(steps):
    places = {plan(steps, outputs=[OUT], try_number=number).outputs[0].path for number in (1, 2)}
    assert len(places) == 2


def test_a_step_runs_in_one_workspace(steps):
    other = Datastore(Workspace("other"), "s")
    foreign = OutputFileDatasetConfig("foreign", destination=(other, "p"))
    with pytest.raises(WiringError, match="several workspaces: azureml_default, other"):
        workspace_of(declared_data([RAW], [], [foreign]))
    assert workspace_of(declared_data([], [], [foreign])) == Workspace("other")
    with pytest.raises(WiringError, match="output 'foreign' belongs to workspace 'other'"):
        plan(steps, outputs=[foreign])
