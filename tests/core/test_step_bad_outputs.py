"""Scripts and outputs that cannot be published: one clear error each, nothing published, nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

import pytest

from airflow_aml_data import Workspace
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.errors import (
    DataChanged,
    InvalidDeclaration,
    OutputConflict,
    OutputUnusable,
    StepFailed,
)
from tests.core.steps import (
    READ,
    WRITE,
    Steps,
    become_ordinary_user,
    in_child,
    nothing_published,
)

UPLOADED = OutputFileDatasetConfig("out").as_upload()
MOUNTED = OutputFileDatasetConfig("out")
FIXED = OutputFileDatasetConfig("out", destination=("workspaceblobstore", "fixed/place"))


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

    @pytest.mark.slow
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

    @pytest.mark.slow
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

    @pytest.mark.slow
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
