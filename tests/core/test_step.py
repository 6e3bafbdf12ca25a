"""Steps end to end: plan, stage, run, commit, and everything that may go wrong on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from textwrap import dedent

import pytest

from airflow_aml_data import DataPath, Dataset, Datastore, Workspace
from airflow_aml_data.core import step as step_module
from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.compute.local import LocalCompute
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.storage.local import LocalStorage
from airflow_aml_data.errors import (
    AmlDataError,
    DataChanged,
    InvalidDeclaration,
    InvalidPath,
    OutputConflict,
    OutputInUse,
    OutputUnusable,
    StepFailed,
    StorageError,
    UserError,
)
from tests.core.steps import READ, WRITE, Steps, become_ordinary_user, in_child, kill_myself, start_child

UPLOADED = OutputFileDatasetConfig("out").as_upload()
MOUNTED = OutputFileDatasetConfig("out")
FIXED = OutputFileDatasetConfig("out", destination=("workspaceblobstore", "fixed/place"))


def nothing_published(steps: Steps) -> bool:
    return steps.stored() == {} and set(steps.states()) <= {"abandoned"} and steps.leftovers() == []


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
        assert steps.run(script).metrics == {"once": 0.5, "many": [1, 2], "row.a": 1, "row.b": "x"}

    def test_metrics_the_script_destroyed_lose_no_output(self, steps):
        script = WRITE + (
            "    import json; run = json.load(open(os.environ['AML_DATA_RUN_FILE']))\n"
            '    open(run[\'metrics_file\'], \'wb\').write(b\'{"name": "a", "value": 1}\\n{"nam\\xff\')\n'
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


class TestBadOutputs:
    def test_nothing_written(self, steps):
        with pytest.raises(OutputUnusable, match="holds no file"):
            steps.run("pass", arguments=[UPLOADED])
        assert nothing_published(steps)

    def test_folder_deleted(self, steps):
        with pytest.raises(OutputUnusable, match="removed its output folder"):
            steps.run("import shutil, sys; shutil.rmtree(sys.argv[1])", arguments=[UPLOADED])
        assert nothing_published(steps)

    @pytest.mark.parametrize(
        "make",
        [
            "os.symlink(outside, out + '/link')",
            "os.symlink(outside + '/secret', out + '/link')",
            "os.rmdir(out); os.symlink(outside, out)",
            "os.rmdir(out); os.symlink(outside + '/secret', out)",
            "os.symlink('nowhere', out + '/dangling')",
            "os.symlink('loop', out + '/loop')",
            "os.mkdir(out + '/d'); os.symlink('d', out + '/link')",
        ],
    )
    @pytest.mark.parametrize("output", [UPLOADED, MOUNTED], ids=["upload", "mount"])
    def test_links_to_anything_but_a_file_inside_are_refused(self, steps, tmp_path, make, output):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_text("s")

        with pytest.raises(OutputUnusable, match="symbolic link"):
            steps.run(f"import os, sys; out, outside = sys.argv[1:]; {make}", arguments=[output, str(outside)])

        assert (outside / "secret").read_text() == "s"
        assert steps.states() == ["abandoned"]
        if output is UPLOADED:
            assert steps.leftovers() == []
            assert not any(steps.root.glob("dataset/*"))

    def test_a_link_to_a_file_inside_is_stored_as_the_file(self, steps):
        script = "import os, sys; os.chdir(sys.argv[1]); open('a', 'w').write('x'); os.symlink('a', 'b')"

        made = steps.run(script, arguments=[UPLOADED]).outputs[0]

        assert not (steps.root / made.path / "b").is_symlink()
        assert (steps.root / made.path / "b").read_text() == "x"

    @pytest.mark.parametrize("make", ["os.mkfifo('p')", "socket.socket(socket.AF_UNIX).bind('s')"])
    def test_pipes_and_sockets_are_refused(self, steps, make):
        script = f"import os, socket, sys; os.chdir(sys.argv[1]); open('good', 'w').write('x'); {make}"

        with pytest.raises(OutputUnusable, match="device, socket or pipe"):
            steps.run(script, arguments=[UPLOADED])

        assert nothing_published(steps)

    def test_one_bad_output_keeps_back_the_good_one(self, steps):
        with pytest.raises(OutputUnusable, match="'bad' holds no file"):
            steps.run(WRITE, arguments=[UPLOADED], outputs=[OutputFileDatasetConfig("bad").as_upload()])
        assert nothing_published(steps)

    def test_a_conflict_of_the_second_output_takes_back_the_first(self, steps):
        steps.write("old.txt", output=FIXED.as_upload(), task_id="before")
        before = steps.stored()
        second = OutputFileDatasetConfig("second", destination=(None, "fixed/place")).as_upload()
        script = "import sys; [open(p + '/old.txt', 'w').write('bad') for p in sys.argv[1:]]"

        with pytest.raises(OutputConflict):
            steps.run(script, arguments=[UPLOADED, second])

        assert steps.stored() == before
        assert steps.states() == ["committed", "abandoned", "abandoned"]
        assert steps.leftovers() == []

    def test_names_of_any_byte_travel_unchanged(self, steps):
        names = [
            b"new\nline",
            b"\xff\xfe",
            b"-rf",
            b"quo'te\"",
            b"sp ace",
            b"\\back",
            b"%41",
            b"x" * 255,
            b"\x01\x7f",
            "é".encode(),
        ]
        script = f"import os, sys; [open(os.path.join(os.fsencode(sys.argv[1]), n), 'wb').write(n) for n in {names!r}]"
        made = steps.run(script, arguments=[UPLOADED], task_id="one").outputs[0]

        check = (
            "import os, sys; d = os.fsencode(sys.argv[1]); found = os.listdir(d)\n"
            f"assert sorted(found) == sorted({names!r}), found\n"
            "assert all(open(os.path.join(d, n), 'rb').read() == n for n in found)"
        )
        for mode in ("as_mount", "as_download"):
            steps.run(check, arguments=[getattr(made.as_dataset(), mode)()], task_id=mode)
        half = made.as_dataset().take_sample(0.5, seed=1)
        steps.run("pass", arguments=[half.as_mount()], task_id="half")
        merged = OutputFileDatasetConfig("out", destination=(None, "fixed")).as_upload(overwrite=True)
        for number in (1, 2):
            steps.run(script, arguments=[merged], task_id=f"merge{number}")
        steps.run(script, arguments=[OutputFileDatasetConfig("out", destination=(None, "fixed"))], task_id="mounted")

    def test_many_files(self, steps):
        """20,000 of them here, in the interest of slow machines."""
        script = (
            "import sys, os; o = sys.argv[1]\n"
            "for d in range(20):\n    os.mkdir(f'{o}/{d}')\n"
            "    for i in range(1000): os.close(os.open(f'{o}/{d}/{i}', os.O_CREAT))"
        )
        made = steps.run(script, arguments=[UPLOADED], task_id="one").outputs[0]

        steps.run(
            "import os, sys; print(sum(len(n) for _, _, n in os.walk(sys.argv[1])))", arguments=[made], task_id="two"
        )

        assert made.files == 20_000
        assert steps.lines == ["20000"]

    @pytest.mark.parametrize("bits", [0o000, 0o555])
    def test_folders_without_permissions_are_stored_or_refused_but_never_left_behind(self, empty_catalog, bits):
        """Root may do anything: so this runs without root's rights where the tests run as root."""

        def work() -> None:
            become_ordinary_user()
            os.environ["AIRFLOW_HOME"] = f"{folder}/home"
            os.umask(0o077)
            steps = Steps(Workspace(), Path(folder))
            script = (
                "import os, sys; os.chdir(sys.argv[1]); os.mkdir('d')\nopen('d/a', 'w').write('x'); open('b', 'w')\n"
            )
            script += f"os.chmod('d', {bits}); os.chmod('.', 0o555)"
            if bits:
                output = UPLOADED.as_upload(source_globs="*/a")
                made = steps.run(script, arguments=[output]).outputs[0]
                assert made.to_path() == ["/d/a"]
                steps.run(
                    "import sys\ntry: open(sys.argv[1] + '/d/a', 'w'); raise SystemExit(9)\nexcept OSError: pass",
                    arguments=[made],
                    task_id="reader",
                )
            else:
                with pytest.raises(OutputUnusable, match="cannot be read"):
                    steps.run(script, arguments=[UPLOADED])
                assert nothing_published(steps), steps.leftovers()
            assert steps.leftovers() == []

        with tempfile.TemporaryDirectory() as folder:
            assert in_child(work) == 0


class TestBadScripts:
    @pytest.mark.parametrize(
        ("ending", "said"),
        [
            ("sys.exit(3)", "exit code 3"),
            ("os.kill(os.getpid(), 9)", "signal 9"),
            ("raise ValueError('why')", "exit code 1"),
        ],
    )
    def test_upload_output_of_a_failed_script_is_not_published(self, steps, ending, said):
        """The article: "If the job fails or is canceled, the output directory isn't uploaded"."""
        with pytest.raises(StepFailed, match=said):
            steps.run(f"{WRITE}\n    {ending}", arguments=[UPLOADED])
        assert nothing_published(steps)

    def test_mounted_files_of_a_failed_script_stay_and_cannot_be_taken_for_an_output(self, steps):
        """G18, and: no one can take them for a committed output."""
        with pytest.raises(StepFailed):
            steps.run(WRITE + "    sys.exit(1)", arguments=[MOUNTED])
        assert [*steps.stored().values()] == ["new a.txt"]
        assert steps.states() == ["abandoned"]
        assert steps.leftovers() == []

        good = steps.write(task_id="other", output=MOUNTED)
        abandoned = steps.connected.catalog.find_outputs(state="abandoned")[0]
        from dataclasses import replace

        forged = replace(good, output_id=abandoned.id)
        with pytest.raises(DataChanged, match="abandoned"):
            steps.run(READ, arguments=[forged], task_id="reader")

    def test_output_without_end_and_in_any_encoding_is_logged(self, steps):
        script = "import sys; sys.stdout.buffer.write(b'caf\\xe9 \\xff\\n' + 'grün'.encode()); sys.stdout.flush()"
        steps.run(script)
        assert steps.lines == ["caf\\xe9 \\xff", "grün"]

    def test_arguments_arrive_as_they_are(self, steps):
        given = [
            "two words",
            "it's",
            '"q"',
            "line\nbreak",
            "-v",
            "--x=y",
            "grün ☃",
            "",
            "$HOME `id` *",
            "\\",
            5,
            0.5,
            None,
            True,
        ]
        steps.run("import json, sys; print(json.dumps(sys.argv[1:]))", arguments=given)
        import json

        assert json.loads(steps.lines[0]) == [str(each) for each in given]

    @pytest.mark.parametrize("bad", ["nul\0", "x" * 200_000], ids=["NUL", "too long"])
    def test_arguments_no_process_can_take_are_refused(self, steps, bad):
        with pytest.raises(InvalidDeclaration, match="argument"):
            steps.run(WRITE, arguments=[UPLOADED, bad])
        assert steps.stored() == {}
        assert steps.leftovers() == []

    def test_an_interpreter_that_is_not_there_fails_the_step(self, steps):
        with pytest.raises(StepFailed, match="127"):
            steps.run(WRITE, arguments=[UPLOADED], interpreter="/no/such/python")
        assert "/no/such/python: No such file or directory" in steps.lines[0]
        assert nothing_published(steps)

    def test_sources_with_a_dangling_link_or_a_pipe_run_or_are_refused_clearly(self, steps, tmp_path):
        sources = tmp_path / "own"
        sources.mkdir()
        (sources / "script.py").write_text("print('ran')")
        (sources / ".#script.py").symlink_to("user@host.123")  # an editor's lock
        steps.run("", source_directory=sources)
        assert steps.lines == ["ran"]

        os.mkfifo(sources / "pipe")
        with pytest.raises(InvalidDeclaration, match="pipe"):
            steps.run("", source_directory=sources, task_id="other")
        assert steps.leftovers() == []


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


def unreachable(*args, **more):
    raise StorageError(5, "gone")


def no_links(*args, **more):
    raise PermissionError(1, "Operation not permitted")


class TestKilled:
    """kill -9 of the process that runs the step, then the next try of the same task."""

    POINTS = ("begun", "in the script", "published half", "published", "manifest", "committing", "committed")

    @staticmethod
    def arrange(point: str) -> None:
        if point == "begun":
            step_module.stage_step = lambda *_: kill_myself()
        elif point == "published half":
            link, rename, done = os.link, Path.rename, []

            def one_link(*args):
                link(*args)
                done.append(args) or len(done) < 2 or kill_myself()

            os.link = one_link
            Path.rename = lambda *args: (rename(*args), kill_myself())
        elif point == "published":
            LocalStorage.write_bytes = lambda *_: kill_myself()
        elif point == "manifest":
            step_module.commit_step.__globals__["_record"] = lambda *_: kill_myself()
        elif point == "committing":
            Catalog.commit_outputs = lambda *_: kill_myself()
        elif point == "committed":
            LocalStorage.drop_staging = lambda *_: kill_myself()

    @pytest.mark.parametrize("point", POINTS)
    @pytest.mark.parametrize(
        "output",
        [UPLOADED, FIXED.as_upload(), FIXED.as_upload(overwrite=True), FIXED],
        ids=["exclusive", "fixed", "overwrite", "mount"],
    )
    def test_the_next_try_succeeds_and_clears_what_the_dead_one_left(self, steps, put, point, output):
        if output.overwrite:
            put({"fixed/place/a.txt": "old"})
        if point == "committed" and output.mode == "mount":
            return  # nothing is left to do there

        def first_try() -> None:
            self.arrange(point)
            script = WRITE
            if point == "in the script":
                script += f"    import time; os.kill({os.getpid()}, 9); time.sleep(60)"
            steps.run(script, arguments=[output, "a.txt", "b.txt"], compute=LocalCompute(grace_seconds=0.1))

        assert in_child(first_try) == -signal.SIGKILL
        committed = point == "committed"
        if committed and not output.is_exclusive and not output.overwrite:
            with pytest.raises(OutputConflict):  # the catalog knows it as committed: it is not this try's to remove
                steps.write("a.txt", "b.txt", output=output, try_number=2)
            assert steps.stored() == {"fixed/place/a.txt": "new a.txt", "fixed/place/b.txt": "new b.txt"}
            return

        made = steps.write("a.txt", "b.txt", output=output, try_number=2)

        expected = {f"{made.path}/a.txt": "new a.txt", f"{made.path}/b.txt": "new b.txt"}
        stored = steps.stored()
        assert expected.items() <= stored.items()
        if not committed:
            assert stored == expected
            assert steps.states() == ["abandoned", "committed"]
            assert steps.leftovers() == []
        assert made.to_path() == ["/a.txt", "/b.txt"]

    @pytest.mark.parametrize("output", [FIXED.as_upload(), FIXED.as_upload(overwrite=True)], ids=["fixed", "overwrite"])
    def test_two_tries_killed_one_after_the_other(self, steps, put, output, monkeypatch):
        """The second dies before it has cleared away what the first left."""
        if output.overwrite:
            put({"fixed/place/a.txt": "old"})

        def killed_at_commit() -> None:
            self.arrange("committing")
            steps.write("a.txt", output=output)

        def killed_at_clearing() -> None:
            step_module.discard = lambda *_: kill_myself()
            steps.write("a.txt", output=output, try_number=2)

        assert in_child(killed_at_commit) == in_child(killed_at_clearing) == -signal.SIGKILL

        with pytest.raises(StepFailed):
            steps.run("raise SystemExit(1)", arguments=[output], try_number=3)

        assert steps.stored() == ({"fixed/place/a.txt": "old"} if output.overwrite else {})
        assert steps.leftovers() == []

    def test_what_a_dead_step_left_elsewhere_is_not_touched(self, steps):
        good = steps.write("keep.txt", output=FIXED.as_upload(), task_id="other")

        def dies() -> None:
            self.arrange("committing")
            steps.write("b.txt", output=FIXED.as_upload())

        assert in_child(dies) == -signal.SIGKILL
        steps.write("b.txt", output=FIXED.as_upload(), try_number=2)
        assert good.to_path() == ["/keep.txt"]


class TestSideBySide:
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


class TestInputs:
    def test_a_reference_and_its_plain_dictionary_are_the_same_input(self, steps):
        made = steps.write("a.txt", task_id="write")

        steps.run(READ, arguments=[made], task_id="one")
        steps.run(READ, arguments=[json.loads(json.dumps(made.to_json()))], task_id="two")

        assert steps.lines == ["a.txt new a.txt", "a.txt new a.txt"]

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


FULL_DISK = """
    import json, subprocess, sys
    from pathlib import Path
    folder = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder / "home/azureml_workspace/datastores"], check=True)
    import os
    os.environ["AIRFLOW_HOME"] = str(folder / "home")
    from airflow_aml_data import Workspace
    from airflow_aml_data.core.outputs import OutputFileDatasetConfig
    from airflow_aml_data.errors import AmlDataError
    from tests.core.steps import Steps
    steps = Steps(Workspace(), folder)
    result = []
    for output, script in json.loads(sys.argv[2]):
        try:
            out = OutputFileDatasetConfig("out", destination=(None, output)).as_upload()
            steps.run(script, arguments=[out], task_id=f"t{len(result)}")
            result.append("ok")
        except AmlDataError as error:
            result.append(f"{type(error).__name__}: {error}")
    print(json.dumps([result, sorted(steps.stored()), steps.states(), steps.leftovers()]))
"""


class TestFullDisk:
    def run(self, tmp_path: Path, empty_catalog: Path, *works: tuple[str, str]) -> list:
        import json
        import shutil

        home = tmp_path / "home" / "azureml_workspace"
        (home / "datastores").mkdir(parents=True)
        shutil.copy(empty_catalog, home / "catalog.db")
        done = subprocess.run(
            ["unshare", "-rm", sys.executable, "-c", dedent(FULL_DISK), str(tmp_path), json.dumps(works)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def test_a_step_on_a_full_disk_publishes_nothing_and_frees_it_again(self, tmp_path, empty_catalog):
        fill = "import sys; f = open(sys.argv[1] + '/big', 'wb')\nfor _ in range(40): f.write(b'x' * 65536)"
        careless = (
            "import sys; f = open(sys.argv[1] + '/big', 'wb', buffering=0)\n"
            "try:\n  while True: f.write(b'x' * 4096)\nexcept OSError: pass"
        )
        small = "import sys; open(sys.argv[1] + '/small', 'w').write('x')"

        result, stored, states, leftovers = self.run(
            tmp_path,
            empty_catalog,
            ("p/{run-id}", fill),
            ("fixed", fill),
            ("p/{run-id}", careless),
            ("fixed", careless),
            ("fixed", small),
        )

        assert result[0].startswith("StepFailed: ")
        assert result[1].startswith("StepFailed: ")
        assert result[2].startswith("StorageError: ") and "space" in result[2], result
        assert result[3].startswith("StorageError: ") and "space" in result[3]
        assert result[4] == "ok"
        assert stored == ["fixed/small"]
        assert states == ["abandoned"] * 4 + ["committed"]
        assert leftovers == []


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
