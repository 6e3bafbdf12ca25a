"""Destinations that hold something, or that somebody else writes to."""

from __future__ import annotations

import os
import threading
from textwrap import dedent

import pytest

from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.storage.local import LocalStorage
from airflow_aml_data.errors import (
    DataChanged,
    OutputConflict,
    OutputInUse,
    StepFailed,
    StorageError,
)
from tests.core.steps import (
    READ,
    WRITE,
    Steps,
    nothing_published,
    start_child,
)

UPLOADED = OutputFileDatasetConfig("out").as_upload()
FIXED = OutputFileDatasetConfig("out", destination=("workspaceblobstore", "fixed/place"))


def unreachable(*args, **more):
    raise StorageError(5, "gone")


def no_links(*args, **more):
    raise PermissionError(1, "Operation not permitted")


class TestConflicts:
    def test_upload_onto_an_existing_file_changes_nothing(self, steps):
        """G15."""
        first = steps.write("a.txt", output=FIXED.as_upload(), task_id="one")
        (steps.root / first.path / "a.txt").chmod(0o644)
        (steps.root / first.path / "a.txt").write_text("old")

        with pytest.raises(OutputConflict, match=r"a\.txt"):
            steps.write("a.txt", "b.txt", output=FIXED.as_upload(), task_id="two")

        assert steps.stored() == {"fixed/place/a.txt": "old"}
        assert steps.states() == ["committed", "abandoned"]
        assert steps.leftovers() == []

    @pytest.mark.parametrize(("there", "new"), [("a", "a/b"), ("a/b", "a")])
    def test_a_file_in_the_place_of_a_folder_is_a_conflict_too(self, steps, put, there, new):
        put({f"fixed/place/{there}": "old"})
        with pytest.raises(OutputConflict):
            steps.write("c", new, output=FIXED.as_upload(overwrite=there == "a"))
        assert steps.stored() == {f"fixed/place/{there}": "old"}

    def test_other_files_are_kept(self, steps, put):
        """G16: references name what their own step wrote, nothing else."""
        put({"fixed/place/other": "old"})
        made = steps.write("a.txt", output=FIXED.as_upload())
        assert steps.stored() == {"fixed/place/a.txt": "new a.txt", "fixed/place/other": "old"}
        assert made.to_path() == ["/a.txt"]
        steps.run(READ, arguments=[made], task_id="reader")
        assert steps.lines == ["a.txt new a.txt"]

    def test_overwrite_replaces_same_names_and_keeps_others(self, steps, put):
        put({"fixed/place/a.txt": "old", "fixed/place/b.txt": "old"})
        steps.write("a.txt", output=FIXED.as_upload(overwrite=True))
        assert steps.stored() == {"fixed/place/a.txt": "new a.txt", "fixed/place/b.txt": "old"}
        assert steps.leftovers() == []

    @pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
    def test_what_overwrite_replaced_comes_back_when_the_catalog_does_not_answer(self, steps, put, monkeypatch, links):
        """A failed step publishes nothing, so it may not have replaced anything either."""
        if not links:
            monkeypatch.setattr(os, "link", no_links)
        put({"fixed/place/a.txt": "old", "fixed/place/b.txt": "old"})
        monkeypatch.setattr(Catalog, "commit_outputs", unreachable)

        with pytest.raises(StorageError, match="gone"):
            steps.write("a.txt", "c.txt", output=FIXED.as_upload(overwrite=True))

        assert steps.stored() == {"fixed/place/a.txt": "old", "fixed/place/b.txt": "old"}
        assert steps.leftovers() == []

    @pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
    def test_a_fixed_place_is_cleared_when_the_catalog_does_not_answer(self, steps, monkeypatch, links):
        if not links:
            monkeypatch.setattr(os, "link", no_links)
        with monkeypatch.context() as patch:
            patch.setattr(Catalog, "commit_outputs", unreachable)
            with pytest.raises(StorageError, match="gone"):
                steps.write(output=FIXED.as_upload())
        assert nothing_published(steps)

        steps.write(output=FIXED.as_upload(), try_number=2)
        assert steps.stored() == {"fixed/place/a.txt": "new a.txt"}

    def test_committed_data_survives_an_answer_that_got_lost(self, steps, monkeypatch):
        """The transaction went through, the connection broke before the answer: the data must stay."""
        commit = Catalog.commit_outputs

        def commit_then_break(*args, **more):
            commit(*args, **more)
            raise StorageError(5, "lost")

        monkeypatch.setattr(Catalog, "commit_outputs", commit_then_break)
        with pytest.raises(StorageError, match="lost"):
            steps.write()
        assert [*steps.stored().values()] == ["new a.txt"]
        assert steps.states() == ["committed"]

    @pytest.mark.parametrize("call", ["abandon_outputs", "release_leases"])
    def test_the_first_error_is_the_one_reported(self, steps, monkeypatch, call):
        monkeypatch.setattr(Catalog, call, unreachable)
        with pytest.raises(StepFailed, match="exit code 3"):
            steps.run(WRITE + "    sys.exit(3)", arguments=[UPLOADED])

    @pytest.mark.parametrize(("owner", "call"), [(Catalog, "release_leases"), (LocalStorage, "drop_staging")])
    def test_a_step_that_has_committed_does_not_fail_at_tidying_up(self, steps, monkeypatch, owner, call):
        """It would run again, onto its own files."""
        monkeypatch.setattr(owner, call, unreachable)
        steps.write(output=FIXED.as_upload())
        assert steps.states() == ["committed"]

    @pytest.mark.parametrize("output", [FIXED, FIXED.as_upload()], ids=["mount", "upload"])
    def test_a_second_writer_is_refused_before_its_script_starts(self, steps, output):
        """The article: concurrent writers of one output fail (G23)."""
        refused = []

        def second(line: str) -> None:
            with pytest.raises(OutputInUse, match="first") as error:
                steps.run("print('started')", arguments=[output], task_id="second", on_line=refused.append)
            refused.append(error.value)

        steps.run("print('now', flush=True)" + dedent(WRITE), arguments=[output], task_id="first", on_line=second)

        assert len(refused) == 1
        assert steps.states() == ["committed"]

    def test_an_output_changed_or_removed_after_the_commit_is_named(self, steps):
        made = steps.write("a.txt", "b.txt")
        file = steps.root / made.path / "b.txt"
        file.chmod(0o644)
        file.write_text("new b.TXT")
        for reading in (
            lambda: steps.run(READ, arguments=[made], task_id="r1"),
            lambda: steps.run(READ, arguments=[made.as_dataset().as_download()], task_id="r2"),
            made.download,
            made.to_path,
        ):
            with pytest.raises(DataChanged, match=r"'b\.txt'"):
                reading()
        file.unlink()
        with pytest.raises(DataChanged, match=r"'b\.txt'"):
            made.to_path()
        (steps.root / made.manifest).write_text("{}")
        with pytest.raises(DataChanged, match="manifest"):
            made.to_path()
        (steps.root / made.manifest).unlink()
        with pytest.raises(DataChanged, match="manifest"):
            made.to_path()

    def test_two_outputs_of_one_step_without_names_do_not_mix(self, steps):
        script = "import sys; [open(p + '/f', 'w').write(str(i)) for i, p in enumerate(sys.argv[1:])]"
        from airflow_aml_data import OutputFileDatasetConfig as InADag

        made = steps.run(script, arguments=[InADag().as_upload(), InADag().as_upload()]).outputs

        assert [each.name for each in made] == ["output_1", "output_2"]
        assert [*steps.stored().values()] == ["0", "1"]


class TestSideBySide:
    @pytest.mark.slow
    def test_two_processes_start_on_one_fresh_catalog(self, workspace, tmp_path):
        start_read, start_write = os.pipe()

        def work(number: int) -> None:
            os.read(start_read, 1)
            for count in range(3):
                Steps(workspace, tmp_path / str(number)).write(task_id=f"t{number}{count}")

        children = [start_child(lambda number=number: work(number)) for number in (1, 2)]
        os.write(start_write, b"..")

        assert [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children] == [0, 0]
        steps = Steps(workspace, tmp_path)
        assert steps.states() == ["committed"] * 6
        assert len(steps.stored()) == 6
        assert steps.leftovers() == []

    def test_steps_of_one_machine_share_the_scratch_folder(self, steps):
        """Starting one looks for what dead ones left, while others end."""
        errors = []

        def work(number: int) -> None:
            from airflow_aml_data.core.scratch import scratch_folder

            try:
                for count in range(150):
                    with scratch_folder(f"{number}.{count}", steps.scratch) as folder:
                        (folder / "file").write_text("")
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=[number]) for number in range(3)]
        [each.start() for each in threads]
        [each.join() for each in threads]
        assert errors == []
        assert steps.leftovers() == []
