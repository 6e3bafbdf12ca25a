"""A step that is a command for a shell: what of it the shell reads, and what it cannot break."""

from __future__ import annotations

import pytest

from airflow_aml_data import Dataset, Datastore, Workspace
from airflow_aml_data.core.compute.local import LocalCompute
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.plan import StepDeclaration, plan_step
from airflow_aml_data.core.step import describe, run_step
from airflow_aml_data.errors import InvalidDeclaration, StepFailed
from tests.core.steps import nothing_published

STORE = Datastore(Workspace(), None)
UPLOADED = OutputFileDatasetConfig("out").as_upload()
NASTY = 'it\'s $HOME `id` "q" *;.txt'


def declare(*command, **more):
    run = StepRun(dag_id="dag", run_id="r1", task_id="step")
    return StepDeclaration(run=run, command=command, shell=True, **more)


def run(steps, *command, **more):
    compute = LocalCompute(grace_seconds=1)
    scratch = more.pop("scratch", steps.scratch)
    return run_step(
        steps.connected, declare(*command, **more), compute, on_line=steps.lines.append, scratch_root=scratch
    )


def test_text_is_the_shells_and_paths_are_arguments_of_their_own(steps, put, tmp_path):
    put({f"my data/{NASTY}": "content"})
    file = Dataset.File.from_files((STORE, f"my data/{NASTY}")).as_named_input("file").as_mount()

    run(
        steps,
        "cp",
        file,
        UPLOADED,
        "&& tr a-z A-Z <",
        file,
        "; echo;",
        "echo",
        5,
        None,
        "$((1 + 1))",
        scratch=tmp_path / "a b",
    )

    assert steps.lines == ["CONTENT", "5 None 2"]
    ((path, content),) = steps.stored().items() - {(f"my data/{NASTY}", "content")}
    assert (path.endswith(f"/out/{NASTY}"), content) == (True, "content")


def test_inputs_and_outputs_beside_the_command_are_variables_in_it(steps, put):
    put({"in/x": "1"})
    folder = Dataset.File.from_files((STORE, "in")).as_named_input("folder").as_mount()

    run(steps, 'cp "$folder/x" "$out/y" && ls "$out"', inputs=[folder], outputs=[UPLOADED])

    assert steps.lines == ["y"]


def test_without_sources_it_starts_in_an_empty_folder(steps):
    run(steps, "ls -A | wc -l")

    assert [each.strip() for each in steps.lines] == ["0"]


def test_a_copy_of_its_sources_is_the_working_folder(steps, tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "tool.sh").write_text("echo from the tool; touch left")

    run(steps, "bash tool.sh", source_directory=tmp_path / "tools")

    assert steps.lines == ["from the tool"]
    assert [each.name for each in (tmp_path / "tools").iterdir()] == ["tool.sh"]


def test_a_failing_command_publishes_nothing(steps):
    with pytest.raises(StepFailed, match=r"^echo half > \$out/x; exit 3 ended with exit code 3"):
        run(steps, "echo half > $out/x; exit 3", outputs=[UPLOADED])

    assert nothing_published(steps)


def test_a_python_script_of_the_command_has_a_run(steps):
    code = "from azureml.core import Run; Run.get_context().log('n', 1)"

    assert run(steps, f'python3 -c "{code}"').metrics == {"n": 1}


def test_the_log_shows_the_command_with_names_for_paths(steps):
    lines = describe(plan_step(steps.connected, declare("tool --out", UPLOADED, "-v")))

    assert lines[0].endswith(": tool --out $out -v")


def test_what_no_shell_can_be_given_is_refused(steps):
    with pytest.raises(InvalidDeclaration, match="NUL"):
        run(steps, "echo \0")
    with pytest.raises(InvalidDeclaration, match="longer than the system lets"):
        run(steps, "x" * 200_000)
