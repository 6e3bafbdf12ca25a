"""Steps end to end: plan, stage, run, commit."""

from __future__ import annotations

import pytest

from airflow_aml_data import DataPath, Dataset, Datastore, Workspace
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.errors import (
    AmlDataError,
    InvalidPath,
    OutputUnusable,
    StepFailed,
    StorageError,
    UserError,
)
from tests.core.steps import READ, WRITE

UPLOADED = OutputFileDatasetConfig("out").as_upload()
MOUNTED = OutputFileDatasetConfig("out")


class TestWhatAStepLeaves:
    def test_the_next_step_reads_what_the_first_wrote_mounted_and_downloaded(self, steps):
        written = steps.write("a.txt", "deep/er/b.txt", task_id="one")

        for mode in ("as_mount", "as_download"):
            given = getattr(written.as_dataset().as_named_input("data"), mode)()
            steps.lines.clear()
            steps.run(READ, arguments=[given], task_id=mode)
            assert sorted(steps.lines) == ["a.txt new a.txt", "deep/er/b.txt new deep/er/b.txt"]
        assert (written.files, written.size_bytes) == (2, len("new a.txt") + len("new deep/er/b.txt"))
        assert steps.leftovers() == []

    @pytest.mark.parametrize("output", [UPLOADED, MOUNTED], ids=["upload", "mount"])
    def test_an_output_that_the_script_made_a_file_is_handed_on_as_a_file(self, steps, output):
        """The article's script opens the output's path for writing."""
        made = steps.run("import sys; open(sys.argv[1], 'w').write('x,y')", arguments=[output]).outputs[0]

        steps.run("import sys; print(open(sys.argv[1]).read())", arguments=[made], task_id="reader")

        assert steps.lines == ["x,y"]
        assert made.files == 1

    def test_default_destination_holds_run_id_and_output_name(self, steps):
        """G08: ``dataset/{run-id}/{output-name}``."""
        made = steps.write()

        run = steps.declare("").run.id
        assert made.path == f"dataset/{run}/out"
        assert steps.stored() == {f"dataset/{run}/out/a.txt": "new a.txt"}

    def test_metrics_come_with_the_result(self, steps):
        script = """
            from azureml.core import Run
            run = Run.get_context()
            run.log("once", 0.5)
            run.log_list("many", [1, 2])
            run.log_row("row", a=1, b="x")
        """
        assert steps.run(script).metrics == {"once": 0.5, "many": [1, 2], "row": {"a": [1], "b": ["x"]}}

    def test_metrics_the_script_destroyed_lose_no_output(self, steps):
        script = WRITE + (
            "    import json; run = json.load(open(os.environ['AML_DATA_RUN_FILE']))\n"
            '    open(run[\'records_file\'], \'wb\').write(b\'{"name": "a", "value": 1}\\n{"nam\\xff\')\n'
        )
        result = steps.run(script, arguments=[UPLOADED])

        assert result.metrics == {"a": 1}
        assert steps.states() == ["committed"]

    def test_registration_makes_a_version_only_when_the_step_succeeds(self, steps):
        """The article: "If the job fails or is canceled" nothing is registered (G17, G66)."""
        output = UPLOADED.register_on_complete("scored", description="d", tags={"k": "v"})
        with pytest.raises(StepFailed):
            steps.run(WRITE + "    sys.exit(3)", arguments=[output], try_number=1)
        assert steps.connected.catalog.list_datasets() == []

        made = [steps.write(output=output, task_id=f"t{i}") for i in (1, 2)]

        assert [(each.dataset, each.dataset_version) for each in made] == [("scored", 1), ("scored", 2)]
        assert Dataset.get_by_name(steps.workspace, "scored").to_path() == ["/a.txt"]

    def test_a_version_that_is_latest_is_settled_when_the_step_is_planned(self, steps, put):
        put({"data/1.txt": "one"})
        data = Dataset.File.from_files((steps.workspace.get_default_datastore(), "data"))
        data.register(steps.workspace, "data")
        script = "import json, os; print(json.load(open(os.environ['AML_DATA_RUN_FILE']))['inputs']['x']['dataset']['registered'])"

        steps.run(script, inputs=[Dataset.get_by_name(steps.workspace, "data").as_named_input("x").as_mount()])

        assert steps.lines == ["['data', 1]"]

    def test_source_publishes_that_folder_and_leaves_it_as_it_is(self, steps, tmp_path):
        """G20, in either mode; an absolute folder is the user's own."""
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "a.txt").write_text("mine")
        (mine / "link").symlink_to("a.txt")
        for number, output in enumerate(
            [
                OutputFileDatasetConfig("out", source=str(mine)),
                OutputFileDatasetConfig("out", source=str(mine)).as_upload(),
            ]
        ):
            made = steps.run("pass", outputs=[output], task_id=f"t{number}").outputs[0]

            assert sorted(made.to_path()) == ["/a.txt", "/link"]
            assert (mine / "link").is_symlink()
        assert steps.leftovers() == []

    def test_relative_source_lies_below_the_working_directory(self, steps):
        output = OutputFileDatasetConfig("out", source="results").as_upload(source_globs="*.csv")
        script = "import os; os.mkdir('results'); open('results/a.csv','w').write('1'); open('results/b.txt','w')"

        assert steps.run(script, outputs=[output]).outputs[0].to_path() == ["/a.csv"]

    def test_source_outside_its_folder_is_refused(self, steps):
        output = OutputFileDatasetConfig("out", source="../../other")
        with pytest.raises(InvalidPath, match=r"\.\."):
            steps.run("pass", outputs=[output])

    def test_source_globs_publish_only_what_matches(self, steps):
        """Semantics section 10: ``*.csv`` matches at any depth, ``sub/*.csv`` nothing."""
        names = ["a.csv", "b.txt", "sub/c.csv", "sub/d.txt"]

        made = steps.write(*names, output=MOUNTED.as_upload(source_globs="*.csv"))

        assert made.to_path() == ["/a.csv", "/sub/c.csv"]
        assert len(steps.stored()) == 2
        with pytest.raises(OutputUnusable, match="source_globs"):
            steps.write(*names, output=MOUNTED.as_upload(source_globs="sub/*.csv"), task_id="other")

    def test_zero_byte_files_are_kept_and_empty_folders_are_not(self, steps):
        script = "import os, sys; os.mkdir(sys.argv[1] + '/empty'); open(sys.argv[1] + '/zero', 'w')"

        made = steps.run(script, arguments=[UPLOADED]).outputs[0]

        assert made.to_path() == ["/zero"]
        assert not (steps.root / made.path / "empty").exists()


def test_every_error_of_a_step_is_one_of_ours():
    assert issubclass(StepFailed, AmlDataError)
    assert not issubclass(StepFailed, UserError)  # the task's retries apply
    assert issubclass(StorageError, AmlDataError)
    assert not issubclass(StorageError, UserError)


def test_data_paths_of_another_workspace_are_refused(steps):
    from airflow_aml_data.errors import WiringError

    foreign = Dataset.File.from_files(DataPath(Datastore(Workspace("other"), "s"), "x"))
    with pytest.raises(WiringError, match="other"):
        steps.run("pass", inputs=[foreign.as_mount()])
