"""What a script finds of its inputs, and what it cannot do to them."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_aml_data import Dataset, Datastore
from airflow_aml_data.core.outputs import OutputFileDatasetConfig, as_dataset
from airflow_aml_data.errors import (
    InvalidDeclaration,
    InvalidPath,
    UserError,
    WiringError,
)
from tests.core.steps import READ, WRITE, Steps, in_child

FIXED = OutputFileDatasetConfig("out", destination=("workspaceblobstore", "fixed/place"))


class TestInputs:
    def test_a_reference_and_its_plain_dictionary_are_the_same_input(self, steps):
        made = steps.write("a.txt", task_id="write")

        steps.run(READ, arguments=[made], task_id="one")
        steps.run(READ, arguments=[json.loads(json.dumps(made.to_json()))], task_id="two")

        assert steps.lines == ["a.txt new a.txt", "a.txt new a.txt"]

    def test_outputs_of_several_tasks_are_one_input_with_a_folder_for_each(self, steps):
        folder = steps.write("b.txt", "c/d.txt", task_id="one")
        script = "import os, sys; os.rmdir(sys.argv[1]); open(sys.argv[1], 'w').write('2')"
        (file,) = steps.run(script, arguments=[FIXED.as_upload()], task_id="two").outputs
        both = as_dataset([folder, file])

        for given in ([folder, file], [file.to_json()] * 11, both.as_named_input("x").as_download()):
            steps.run(READ, arguments=[given], task_id="read")

        expected = ["0/b.txt new b.txt", "0/c/d.txt new c/d.txt", "1/place 2"]
        assert sorted(steps.lines[:3]) == sorted(steps.lines[14:]) == expected
        assert sorted(steps.lines[3:14]) == [f"{number:02}/place 2" for number in range(11)]
        assert both.to_path() == ["/0/b.txt", "/0/c/d.txt", "/1/place"]
        with pytest.raises(WiringError, match="Outputs of several workspaces"):
            as_dataset([folder, replace(file, conn_id="other")])

    def test_files_mounted_from_two_places_leave_what_lies_around_them_writable(self, steps, monkeypatch, request):
        """Both on another file system than the step's scratch folder, so that files are linked by name."""
        folder = tempfile.TemporaryDirectory(dir="/dev/shm")
        request.addfinalizer(folder.cleanup)
        roots = {name: Path(folder.name, name) for name in ("one", "two")}
        stores = {name: {"kind": "local", "root": str(root)} for name, root in roots.items()}
        connection = {"conn_type": "azureml", "extra": {"datastores": stores}}
        monkeypatch.setenv("AIRFLOW_CONN_AZUREML_DEFAULT", json.dumps(connection))
        for name, root in roots.items():
            root.mkdir()
            (root / name).write_text("old")
        both = Dataset.File.from_files([(Datastore(steps.workspace, name), "*") for name in stores])
        script = """
            import os, sys
            open(sys.argv[2], "w")
            for name in ("one", "two"):
                try: open(os.path.join(sys.argv[1], name), "w")
                except OSError as error: print(name, error.strerror)
        """

        steps.run(script, arguments=[both.as_mount(), f"{folder.name}/beside"])

        assert steps.lines == ["one Read-only file system", "two Read-only file system"]

    @pytest.mark.parametrize("below", [None, "/dev/shm"], ids=["one file system", "two file systems"])
    @pytest.mark.parametrize("path", ["data", "data/*.txt", "data/a.txt"])
    def test_a_mounted_input_cannot_be_changed(self, steps, put, path, below, monkeypatch, request):
        """G29: ``OSError``, read-only; whether the files are linked or not."""
        put({"data/a.txt": "old"})
        if below:
            folder = tempfile.TemporaryDirectory(dir=below)
            request.addfinalizer(folder.cleanup)
            monkeypatch.setattr(Steps, "scratch", Path(folder.name))
        given = Dataset.File.from_files((steps.workspace.get_default_datastore(), path)).as_named_input("x").as_mount()
        script = """
            import os, sys
            given = sys.argv[1]
            file = given if os.path.isfile(given) else given + "/a.txt"
            assert open(file).read() == "old"
            for change in (lambda: open(file, "w"), lambda: open(file, "a"), lambda: os.truncate(file, 0)):
                try:
                    change()
                except OSError as error:
                    print(error.errno)
        """
        steps.run(script, arguments=[given])

        assert steps.lines == ["30"] * 3
        assert steps.stored() == {"data/a.txt": "old"}

    def test_where_mounts_cannot_be_made_read_only_the_script_gets_copies(self, steps, put, monkeypatch):
        """As in a container without the right to make namespaces."""
        from airflow_aml_data.core import stage

        monkeypatch.setattr(stage, "can_make_read_only", lambda folder: False)
        put({"data/a.txt": "old"})
        raw = (
            Dataset.File.from_files((steps.workspace.get_default_datastore(), "data")).as_named_input("raw").as_mount()
        )
        made = steps.write(task_id="writer")
        script = "import os, sys; [(open(p + '/a.txt', 'a').write('!'), os.remove(p + '/a.txt')) for p in sys.argv[1:]]"

        steps.run(script, arguments=[raw, made])

        assert sorted(steps.stored().values()) == ["new a.txt", "old"]

    def test_an_input_that_contains_the_steps_output(self, steps, put):
        put({"all/in.txt": "in"})
        everything = Dataset.File.from_files((steps.workspace.get_default_datastore(), "all"))
        for mode in ("as_mount", "as_upload"):
            output = getattr(OutputFileDatasetConfig("out", destination=(None, f"all/{mode}")), mode)()
            steps.run(WRITE, arguments=[output, f"{mode}.txt"], inputs=[everything.as_mount()], task_id=mode)
        assert steps.stored() == {
            "all/in.txt": "in",
            "all/as_mount/as_mount.txt": "new as_mount.txt",
            "all/as_upload/as_upload.txt": "new as_upload.txt",
        }

    def test_a_mounted_output_inside_a_committed_output(self, steps):
        outer = steps.write("a.txt", output=FIXED, task_id="outer")
        inner = OutputFileDatasetConfig("inner", destination=(None, "fixed/place/inner"))

        steps.run(WRITE, arguments=[inner, "b.txt"], inputs=[outer], task_id="inner")

        assert steps.stored() == {"fixed/place/a.txt": "new a.txt", "fixed/place/inner/b.txt": "new b.txt"}
        assert outer.to_path() == ["/a.txt"]

    @pytest.mark.parametrize(("first", "second"), [("data", "data/sub"), ("data/sub", "data"), ("data", "./data")])
    def test_inputs_may_not_lie_in_each_other(self, steps, first, second):
        """The first may be the stored folder itself: what is put below it would land in the store."""
        made = [steps.write(f"{n}.txt", task_id=n).as_dataset() for n in ("a", "b")]
        before = steps.stored()

        with pytest.raises((InvalidDeclaration, InvalidPath, UserError), match="path_on_compute"):
            steps.run("pass", inputs=[made[0].as_mount(first), made[1].as_mount(second)])

        assert steps.stored() == before

    def test_path_on_compute_is_relative_to_the_working_directory(self, steps):
        """G34."""
        made = steps.write()
        steps.run("print(open('my/data/a.txt').read())", inputs=[made.as_dataset().as_download("my/data")], task_id="r")
        assert steps.lines == ["new a.txt"]

    @pytest.mark.parametrize("mode", ["as_mount", "as_download"])
    def test_absolute_path_on_compute_works_again_and_again(self, steps, tmp_path, mode):
        """G30: gone after the task; so the next run finds the place free."""
        made = steps.write()
        place = tmp_path / "abs" / "data"
        for number in (1, 2):
            given = getattr(made.as_dataset(), mode)(str(place))
            steps.run(f"print(open({str(place / 'a.txt')!r}).read())", inputs=[given], task_id=f"r{number}")
            assert not os.path.lexists(place)
        assert steps.lines == ["new a.txt"] * 2

    def test_absolute_path_on_compute_of_a_killed_step_is_taken_over(self, steps, tmp_path):
        made = steps.write(task_id="writer")
        given = made.as_dataset().as_mount(str(tmp_path / "data"))
        assert (
            in_child(
                lambda: steps.run(
                    f"import os, time; os.kill({os.getpid()}, 0); os.kill(int(os.environ['P']), 9); time.sleep(60)",
                    inputs=[given],
                    environment_variables={"P": str(os.getpid())},
                )
            )
            == -signal.SIGKILL
        )

        steps.run(READ, arguments=[given], try_number=2)

        assert steps.lines == ["a.txt new a.txt"]
        assert not os.path.lexists(tmp_path / "data")

    @pytest.mark.parametrize("place", [".", "script.py", "../outside", "a/../../../b"])
    def test_path_on_compute_that_is_taken_or_outside_is_refused(self, steps, place):
        made = steps.write(task_id="writer")
        with pytest.raises(UserError, match="path_on_compute"):
            steps.run("pass", inputs=[made.as_dataset().as_mount(place)])
        assert steps.leftovers() == []

    def test_an_absolute_place_with_files_is_refused_and_left_alone(self, steps, tmp_path):
        made = steps.write(task_id="writer")
        place = tmp_path / "place"
        place.mkdir()
        (place / "mine").write_text("mine")
        with pytest.raises(UserError, match="path_on_compute"):
            steps.run("pass", inputs=[made.as_dataset().as_mount(str(place))])
        assert [each.name for each in place.iterdir()] == ["mine"]

    def test_an_empty_sample_is_an_empty_folder(self, steps):
        made = steps.write()
        for mode in ("as_mount", "as_download"):
            given = getattr(made.as_dataset().take_sample(0.0, seed=1), mode)()
            steps.run("import os, sys; print(os.listdir(sys.argv[1]))", arguments=[given], task_id=mode)
        assert steps.lines == ["[]", "[]"]

    def test_two_drawn_samples_of_one_dataset_stay_two_inputs(self, steps):
        made = steps.write(*[f"{i:03}" for i in range(60)])
        samples = [made.as_dataset().take_sample(0.5).as_download() for _ in range(2)]
        script = "import os, sys; print([sorted(os.listdir(each)) for each in sys.argv[1:]])"

        steps.run(script, arguments=samples, task_id="reader")

        first, second = eval(steps.lines[0])
        assert first != second

    def test_parts_of_a_drawn_split_are_complementary_across_steps_of_a_run(self, steps):
        names = [f"{i:03}" for i in range(40)]
        parts = steps.write(*names).as_dataset().random_split(0.5)
        script = "import os, sys; print(*sorted(os.listdir(sys.argv[1])))"
        for number, part in enumerate(parts):
            steps.run(script, arguments=[part.as_download()], task_id=f"part{number}")
        one, two = (line.split() for line in steps.lines)
        assert sorted(one + two) == names

    def test_input_with_a_name_programs_need(self, steps):
        for name in ("PATH", "PYTHONPATH", "AML_DATA_RUN_FILE"):
            with pytest.warns(UserWarning, match=name):
                steps.run(
                    f"import sys; from azureml.core import Run; assert Run.get_context().input_datasets[{name!r}] == sys.argv[1]",
                    arguments=[steps.write(task_id=f"w{name}").as_dataset().as_named_input(name).as_mount()],
                    task_id=name,
                )
