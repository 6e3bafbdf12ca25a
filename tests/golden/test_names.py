"""G01 to G07: names of inputs and outputs (semantics, section 8)."""

from __future__ import annotations

import pytest

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, Workspace
from airflow_aml_data.errors import InvalidName

FILES = Dataset.File.from_files((Datastore(Workspace("no_such_connection"), "store"), "raw"))
RULE = "The name can only be alphanumeric characters and underscore, and must not begin with a number."


@pytest.mark.parametrize("name", ["good", "_x", "a1", "A_B_9"])
def test_g01_letters_digits_and_underscores_make_a_name(name):
    output = OutputFileDatasetConfig(name)

    assert output.name == name
    assert FILES.as_named_input(name).name == name
    assert output.as_input(name).name == name


@pytest.mark.parametrize("name", ["bad name!", "1abc", "a-b", "a.b", "é", "{run-id}"])
def test_g02_another_output_name_is_refused_when_it_is_declared(name, refusal):
    with pytest.raises(InvalidName) as refused:
        OutputFileDatasetConfig(name)

    assert str(refused.value) == f'Invalid output name "{name}". {RULE}'
    assert f'Invalid output name "{name}". {RULE}' in refusal(f"OutputFileDatasetConfig({name!r})")


@pytest.mark.parametrize("name", ["my in", "1x", "é"])
def test_g03_another_input_name_is_refused_when_it_is_declared(name, refusal):
    for declare in (FILES.as_named_input, OutputFileDatasetConfig("out").as_input):
        with pytest.raises(InvalidName) as refused:
            declare(name)
        assert str(refused.value) == f'Invalid input name "{name}". {RULE}'
    assert f'Invalid input name "{name}". {RULE}' in refusal(f"files.as_named_input({name!r})")


@pytest.mark.parametrize("name", [None, ""])
def test_g04_a_step_gives_the_nameless_the_same_names_every_time(name, steps, put):
    put({"raw/1": "one"})
    raw = Dataset.File.from_files((steps.workspace.get_default_datastore(), "raw"))
    script = """
        import sys
        from azureml.core import Run
        run = Run.get_context()
        print(*run.input_datasets, *run.output_datasets)
        open(sys.argv[1] + "/f", "w").close()
    """

    made = [
        steps.run(script, arguments=[OutputFileDatasetConfig(name).as_upload(), raw.as_mount()], task_id=task_id)
        for task_id in ("one", "two")
    ]

    assert [each.outputs[0].name for each in made] == ["output_1", "output_1"]
    assert steps.lines == ["input_1 output_1", "input_1 output_1"]


@pytest.mark.parametrize("name", ["path", "HOME", "pwd"])
def test_g05_a_name_that_programs_need_is_accepted_with_a_warning(name, parse_dag, steps):
    said = f"Output '{name}' has the name of an environment variable that programs need"
    script = f"""
        import os
        from azureml.core import Run
        folder = Run.get_context().output_datasets[{name!r}]
        print(os.environ.get({name!r}) == folder)
        open(folder + "/f", "w").close()
    """

    with pytest.warns(UserWarning, match=said):
        bag = parse_dag(f"step('writer', outputs=[OutputFileDatasetConfig({name!r})])")
    with pytest.warns(UserWarning, match=said):
        made = steps.run(script, outputs=[OutputFileDatasetConfig(name)])

    assert not bag.import_errors
    assert said in str(bag.captured_warnings)
    assert made.outputs[0].to_path() == ["/f"]
    assert steps.lines == ["False"]  # the variable is not the script's to find the output by


def test_g06_a_line_end_after_a_name_is_refused_unlike_in_v1():
    for declare in (OutputFileDatasetConfig, FILES.as_named_input):
        with pytest.raises(InvalidName, match=r'name "a\n"'):
            declare("a\n")


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("inputs=[files.as_named_input('x'), table.as_named_input('x')]", "[x] is repeated. Input port names must be unique."),
        ("arguments=[a.as_input('x')], inputs=[files.as_named_input('x')]", "[x] is repeated. Input port names must be unique."),
        ("outputs=[a, OutputFileDatasetConfig('a')]", "[a] is repeated. Output port names must be unique."),
    ],
)  # fmt: skip
def test_g07_a_name_for_two_things_of_one_step_is_refused_when_the_dag_is_built(declared, said, refusal):
    assert said in refusal(f"step('reader', {declared})")
