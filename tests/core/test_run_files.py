"""Files a script leaves with its run: ``./outputs``, ``./logs`` and what it uploads."""

from __future__ import annotations

import json

import pytest

from airflow_aml_data import Dataset
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.plan import declared_data
from airflow_aml_data.core.run_files import RUN_FILES
from airflow_aml_data.errors import StepFailed, WiringError
from tests.core.steps import WRITE

OUT = OutputFileDatasetConfig("out").as_upload()

LEAVE = """
    import os
    for path in ("outputs/model.pkl", "outputs/plots/roc.png", "logs/train.log", "elsewhere/lost.txt"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").write("new " + path)
"""


def found(steps, result):
    """What the step's run files hold."""
    (made,) = [each for each in result.outputs if each.name == RUN_FILES]
    prefix = f"{made.path}/"
    return {path.removeprefix(prefix): text for path, text in steps.stored().items() if path.startswith(prefix)}


def test_files_below_outputs_and_logs_are_one_more_output(steps):
    """v1: "./outputs" and "./logs" are uploaded to the run."""
    result = steps.run(LEAVE)

    (made,) = result.outputs
    assert made.path == f"dataset/{steps.declare('').run.id}/run_files"
    assert made.to_path() == ["/logs/train.log", "/outputs/model.pkl", "/outputs/plots/roc.png"]
    assert steps.states() == ["committed"]
    assert steps.leftovers() == []


def test_a_later_step_reads_them_like_any_output(steps):
    (made,) = steps.run(LEAVE).outputs
    steps.run("import sys; print(open(sys.argv[1] + '/outputs/model.pkl').read())", arguments=[made], task_id="next")
    assert steps.lines == ["new outputs/model.pkl"]


def test_a_step_without_such_files_has_no_such_output(steps):
    assert [each.name for each in steps.run(WRITE, arguments=[OUT]).outputs] == ["out"]
    assert steps.run("import os; os.mkdir('outputs')", task_id="nothing").outputs == []
    assert len(steps.states()) == 1


def test_files_of_the_sources_count_only_when_the_script_changed_them(steps):
    sources = steps.folder / "with_outputs"
    for name in ("outputs/shipped.txt", "outputs/changed.txt", "logs/shipped.log"):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_text("shipped")
    (sources / "script.py").write_text(
        "open('outputs/changed.txt', 'w').write('changed'); open('outputs/new.txt', 'w')"
    )

    result = steps.run("", source_directory=sources)

    assert found(steps, result) == {"outputs/changed.txt": "changed", "outputs/new.txt": ""}
    (sources / "script.py").write_text("print(open('outputs/shipped.txt').read())")
    assert steps.run("", source_directory=sources, task_id="reader").outputs == []


def test_a_failed_script_leaves_no_run_files(steps):
    with pytest.raises(StepFailed):
        steps.run(LEAVE + "    raise SystemExit(1)")
    assert steps.stored() == {}
    assert steps.states() == []
    assert steps.leftovers() == []


def test_no_output_is_published_when_the_run_files_cannot_be(steps):
    """All outputs of a step are committed, or none."""
    script = LEAVE + "    import sys; open(sys.argv[1] + '/a', 'w').write('x')\n    os.mkfifo(sys.argv[1] + '/pipe')"
    with pytest.raises(Exception, match="pipe"):
        steps.run(script, arguments=[OUT])
    assert steps.stored() == {}
    assert set(steps.states()) == {"abandoned"}
    assert steps.leftovers() == []


def test_links_to_files_are_stored_as_files_and_others_are_left_out(steps):
    script = """
        import os
        os.makedirs("outputs/run1")
        open("best", "w").write("best")
        open("outputs/run1/m", "w").write("m")
        os.symlink(os.path.abspath("best"), "outputs/best")
        os.symlink("run1", "outputs/latest")
        os.symlink("nowhere", "outputs/broken")
        os.mkfifo("outputs/pipe")
    """
    assert found(steps, steps.run(script)) == {"outputs/best": "best", "outputs/run1/m": "m"}


def test_a_folder_that_is_an_output_of_its_own_is_not_stored_twice(steps):
    output = OutputFileDatasetConfig("mine", source="outputs").as_upload()
    result = steps.run(LEAVE, outputs=[output])
    assert {each.name: each.to_path() for each in result.outputs} == {
        "mine": ["/model.pkl", "/plots/roc.png"],
        RUN_FILES: ["/logs/train.log"],
    }


def test_an_input_placed_below_outputs_is_not_taken_for_the_scripts_work(steps, put):
    put({"data/1": "one", "data/2": "two"})
    data = Dataset.File.from_files((steps.workspace.get_default_datastore(), "data"))
    for mode in (
        data.as_named_input("x").as_mount("outputs/data"),
        data.as_named_input("x").as_download("outputs/data"),
    ):
        result = steps.run("open('outputs/new', 'w')", inputs=[mode], task_id=mode.mode)
        assert found(steps, result) == {"outputs/new": ""}


@pytest.mark.parametrize("name", [RUN_FILES, "run_details", "return_value"])
def test_an_output_cannot_take_a_name_that_is_spoken_for(name):
    with pytest.raises(WiringError, match=name):
        declared_data([OutputFileDatasetConfig(name)], [], [])


def test_a_retry_gets_run_files_of_its_own(steps):
    script = LEAVE + "    open('outputs/try', 'w').write('{}')"
    with pytest.raises(StepFailed):
        steps.run(script.format(1) + "; raise SystemExit(1)")
    result = steps.run(script.format(2), try_number=2)
    assert found(steps, result)["outputs/try"] == "2"
    assert steps.states() == ["committed"]


def test_uploads_join_them_and_win(steps):
    script = """
        import io, os
        from azureml.core import Run
        run = Run.get_context()
        os.makedirs("outputs"); os.makedirs("made/deep")
        open("outputs/a", "w").write("a"); open("made/deep/f", "w").write("f"); open("made/g", "w").write("g")
        run.upload_file("outputs/a", "outputs/a")
        open("outputs/a", "a").write(" later")
        run.upload_file(name="models/m.bin", path_or_stream=io.BytesIO(b"bytes"))
        run.upload_file("text", io.StringIO("text"))
        run.upload_folder("all", "made")
        run.upload_files(["one", "two"], ["made/g", "made/deep/f"])
        run.parent.upload_file("for_the_pipeline", "made/g")
        run.parent.upload_file("text", io.StringIO("text"))
        assert run.get_file_names() == sorted(run.get_file_names()) and "outputs/a" in run.get_file_names()
        run.download_file("models/m.bin", "copy.bin")
        run.download_file("models/m.bin")
        assert open("copy.bin").read() == open("m.bin").read() == "bytes"
        run.download_files("all/", "copies")
        assert open("copies/all/deep/f").read() == "f"
        with run.child_run("fold") as fold:
            fold.upload_file("text", io.StringIO("of the fold"))
            assert fold.get_file_names() == ["text"]
        for call in (
            lambda: run.upload_file("../up", "made/g"),
            lambda: run.upload_file("", "made/g"),
            lambda: run.upload_file("x", "not there"),
            lambda: run.upload_folder("x", "not there"),
            lambda: run.upload_file("one", "made/deep/f"),
            lambda: run.upload_file("x", "made/g", datastore_name="other"),
            lambda: run.upload_files(["x"], []),
            lambda: run.download_file("not there"),
        ):
            try:
                call()
            except Exception as error:
                print(type(error).__name__)
    """
    result = steps.run(script)

    assert found(steps, result) == {
        "all/deep/f": "f",
        "all/g": "g",
        "fold/text": "of the fold",
        "for_the_pipeline": "g",
        "models/m.bin": "bytes",
        "one": "g",
        "outputs/a": "a",
        "text": "text",
        "two": "f",
    }
    expected = (
        "InvalidPath InvalidPath FilesNotFound FilesNotFound FilesExist NotOffered InvalidDeclaration FilesNotFound"
    )
    assert steps.lines[-8:] == expected.split()


def test_images_are_kept_and_their_names_are_the_metric(steps):
    script = """
        import pathlib
        from azureml.core import Run
        class Plot:
            def savefig(self, path, format):
                pathlib.Path(path).write_text(format)
        run = Run.get_context()
        pathlib.Path("own.jpg").write_text("jpg")
        run.log_image("ROC", plot=Plot())
        run.log_image("ROC", plot=Plot())
        run.log_image("picture", path="own.jpg")
        try:
            run.log_image("nothing")
        except ValueError as error:
            print(error)
    """
    result = steps.run(script)
    assert found(steps, result) == {"ROC.png": "png", "ROC_1.png": "png", "picture.jpg": "jpg"}
    assert result.metrics == {"ROC": ["ROC.png", "ROC_1.png"], "picture": "picture.jpg"}
    assert steps.lines[-1] == "log_image wants a path or a plot, one of them."


def test_metrics_beyond_xcom_are_in_a_file(steps):
    script = """
        from azureml.core import Run
        run = Run.get_context()
        run.log_list("million", range(100_000))
        run.log("accuracy", 0.5)
    """
    result = steps.run(script)
    assert result.metrics == {"accuracy": 0.5}
    assert len(json.loads(found(steps, result)["metrics_of_the_step.json"])["million"]) == 100_000
    assert len(steps.lines[0]) < 1000


@pytest.mark.slow
def test_later_steps_see_what_earlier_ones_reported_to_the_pipelines_run(steps):
    """Of a step that ran again the last time counts; failed steps and other runs do not."""
    report = """
        import sys
        from azureml.core import Run
        parent = Run.get_context().parent
        parent.log("mse", float(sys.argv[1]))
        parent.tag("last", sys.argv[1])
    """
    ask = """
        from azureml.core import Run
        run = Run.get_context()
        run.log("own", 1)
        run.parent.log("mse", 5)
        print(run.parent.get_metrics(), run.parent.get_tags(), run.get_metrics(), run.tags)
    """
    steps.run(report, arguments=[1], task_id="first")
    steps.run(report, arguments=[2], task_id="second")
    steps.run(report, arguments=[3], task_id="first", try_number=2)
    steps.run(report, arguments=[9], task_id="first", run_id="another")
    with pytest.raises(StepFailed):
        steps.run(report + "    raise SystemExit(1)", arguments=[9], task_id="failed")

    steps.run(ask, task_id="ask")

    assert steps.lines[-1] == "{'mse': [2.0, 3.0, 5]} {'last': '3'} {'own': 1} {}"
