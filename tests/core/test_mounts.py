"""Inputs and outputs in mount mode on stores that are not on this machine: real mounts, of a local folder that is said to be remote."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from airflow_aml_data import Dataset
from airflow_aml_data.core import stage
from airflow_aml_data.core.compute.local import LocalCompute, can_mount
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.storage.local import LocalStorage
from airflow_aml_data.errors import MountNotPossible, OutputUnusable, StepFailed
from tests.core.steps import READ, WRITE, become_ordinary_user, in_child
from tests.core.test_compute import is_gone, wait_until

OUT = OutputFileDatasetConfig("out")
FIXED = OutputFileDatasetConfig("out", destination=("workspaceblobstore", "fixed/place"))


pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def far(monkeypatch):
    """The embedded workspace's datastore is a remote one, as far as steps are concerned."""
    monkeypatch.setattr(LocalStorage, "is_remote", True)
    monkeypatch.setattr(LocalStorage, "output_folder", lambda *_: None)


@pytest.fixture
def data(steps):
    """A path of the default datastore as a dataset."""
    return lambda path: Dataset.File.from_files((steps.workspace.get_default_datastore(), path))


def test_this_machine_can_mount(tmp_path):
    """Or the rest of these tests would look at the fallback."""
    assert can_mount(tmp_path)


class TestInputs:
    def test_ten_of_10000_files_move_their_bytes_only(self, steps, put, data):
        put({f"in/{number // 100}/{number:05}.bin": b"%05d" % number * 800 for number in range(10_000)})
        script = """
            import os, sys
            size = 0
            for folder, names, files in os.walk(sys.argv[1]):
                size += sum(os.stat(os.path.join(folder, each)).st_size for each in files)
            print(size)
            print([open(f"{sys.argv[1]}/{n // 100}/{n:05}.bin").read() == f"{n:05}" * 800 for n in range(0, 10_000, 1000)])
        """
        steps.run(script, arguments=[data("in").as_mount()])

        assert steps.lines == [
            str(10_000 * 4000),
            str([True] * 10),
            "Mounted inputs: 10 of 10,000 files were read, 39.1 KiB of 38.1 MiB were fetched",
        ]

    def test_random_reads_fetch_little_more_than_they_ask_for(self, steps, put, data):
        content = os.urandom(20_000_000)
        put({"in/large.bin": content})
        script = """
            import os, random, sys
            content, mounted = open(sys.argv[2], "rb").read(), os.open(sys.argv[1], os.O_RDONLY)
            for _ in range(40):
                at = random.randrange(len(content))
                assert os.pread(mounted, 4096, at) == content[at : at + 4096]
        """
        steps.run(script, arguments=[data("in/large.bin").as_mount(), str(steps.root / "in/large.bin")])

        fetched, unit = steps.lines[-1].split("read, ")[1].split()[:2]
        assert (unit, float(fetched) < 1000) == ("KiB", True)

    def test_several_readers_of_files_of_all_sizes_get_every_byte(self, steps, put, data):
        sizes = [0, 1, 4095, 4096, 131_073, 524_288, 524_289, 9_000_001]
        put({f"in/{size}": os.urandom(size) for size in sizes})
        script = """
            import mmap, os, random, subprocess, sys
            mounted, real, seed = sys.argv[1:4]
            random.seed(seed)
            for name in sorted(os.listdir(mounted), key=lambda _: random.random()):
                content = open(f"{real}/{name}", "rb").read()
                with open(f"{mounted}/{name}", "rb") as file:
                    for _ in range(30):
                        at = random.randrange(len(content) + 10)
                        size = random.choice([1, 100, 5000, 200_000, 3_000_000])
                        assert os.pread(file.fileno(), size, at) == content[at : at + size], (name, at, size)
                    assert file.read() == content
                    if content:
                        assert mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:] == content
            if len(seed) == 1:
                children = [subprocess.Popen([sys.executable, *sys.argv[:3], seed + str(n)]) for n in range(3)]
                assert [each.wait() for each in children] == [0, 0, 0]
                print("same")
        """
        steps.run(script, arguments=[data("in").as_mount(), str(steps.root / "in"), "1"])
        assert steps.lines[0] == "same"

    def test_nothing_can_be_changed(self, steps, put, data):
        """G29, also beside an output, which the kernel lets change."""
        put({"in/a.txt": "old", "in/deep/b.txt": "old"})
        script = """
            import errno, os, shutil, sys
            given = sys.argv[1]
            file = f"{given}/a.txt"
            for change in (
                lambda: open(file, "w"), lambda: open(file, "a"), lambda: open(file, "r+"), lambda: os.truncate(file, 0),
                lambda: open(f"{given}/new", "w"), lambda: os.mkdir(f"{given}/new"), lambda: os.remove(file),
                lambda: os.rmdir(f"{given}/deep"), lambda: os.rename(file, f"{given}/b.txt"), lambda: os.chmod(file, 0o777),
                lambda: os.utime(file, (1, 1)), lambda: os.symlink("a.txt", f"{given}/new"), lambda: os.mkfifo(f"{given}/new"),
                lambda: os.link(file, f"{given}/new"), lambda: os.mkdir(f"{given}/../new"), lambda: os.rmdir(given),
            ):
                try:
                    change()
                    print("changed")
                except OSError as error:
                    print(errno.errorcode[error.errno])
            print(os.access(file, os.R_OK), os.access(file, os.W_OK))
            if len(sys.argv) > 2:
                open(f"{sys.argv[2]}/x", "w").write("x")
        """
        for arguments in ([data("in").as_mount()], [data("in").as_mount(), OUT]):
            steps.lines.clear()
            steps.run(script, arguments=arguments, task_id=f"step{len(arguments)}")
            assert steps.lines[:17] == ["EROFS"] * 16 + ["True False"]
        assert {path: content for path, content in steps.stored().items() if path.startswith("in/")} == {
            "in/a.txt": "old",
            "in/deep/b.txt": "old",
        }

    def test_a_changed_file_is_an_error_that_the_log_explains(self, steps, put, data):
        put({"in/a.txt": "old", "in/b.txt": "old"})
        script = """
            import os, sys
            open(sys.argv[2] + "/in/a.txt", "w").write("newer")
            print(open(sys.argv[1] + "/b.txt").read())
            open(sys.argv[1] + "/a.txt").read()
        """
        with pytest.raises(StepFailed):
            steps.run(script, arguments=[data("in").as_named_input("raw").as_mount(), str(steps.root)])

        assert steps.lines[0] == "old"
        (told,) = (each for each in steps.lines if each.startswith("'raw/a.txt'"))
        assert told == (
            "'raw/a.txt' of the step's mount cannot be read: 'in/a.txt' on datastore 'workspaceblobstore' was changed "
            "while it was read."
        )
        assert "OSError: [Errno 5] Input/output error" in steps.lines

    def test_places_and_names(self, steps, put, data, tmp_path):
        put({"in/größe/日本 1.txt": "one", "in/b": "two"})
        elsewhere = tmp_path / "elsewhere" / "data"
        for place, below in ((None, None), ("data/here", "work/data/here"), (str(elsewhere), elsewhere)):
            steps.lines.clear()
            script = "    print(__import__('sys').argv[1])" + READ
            steps.run(script, arguments=[data("in").as_mount(place)], task_id=f"step{below}".replace("/", "_"))
            assert steps.lines[0].endswith(str(below or "mount/input_1"))
            assert sorted(steps.lines[1:3]) == ["b two", "größe/日本 1.txt one"]
            assert not os.path.lexists(elsewhere)
        steps.run("import sys; print(open(sys.argv[1]).read())", arguments=[data("in/b").as_mount()], task_id="file")
        assert "two" in steps.lines
        assert steps.leftovers() == []

    def test_an_ordinary_user(self, steps, put, data):
        put({"in/a.txt": "old"})

        def work() -> None:
            become_ordinary_user()
            can_mount.cache_clear()
            steps.run(READ, arguments=[data("in").as_mount()], task_id="read")
            steps.write("b.txt", output=OUT, task_id="write")
            assert steps.lines[0] == "a.txt old", steps.lines

        assert in_child(work) == 0
        assert [*steps.stored().values()] == ["new b.txt", "old"]


class TestFallback:
    @pytest.fixture(autouse=True)
    def machine_that_cannot_mount(self, monkeypatch):
        monkeypatch.setattr(stage, "can_mount", lambda folder: False)

    def test_inputs_are_downloaded_with_a_warning_and_outputs_are_stored_at_the_end(self, steps, put, data, caplog):
        put({"in/a.txt": "old"})

        steps.run(READ, arguments=[data("in").as_named_input("raw").as_mount()], task_id="read")
        made = steps.write("b.txt", output=OUT, task_id="write")

        assert steps.lines == ["a.txt old"]
        assert steps.stored() == {"in/a.txt": "old", f"{made.path}/b.txt": "new b.txt"}
        warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
        assert warnings[0].startswith("Input 'raw' is copied (3 B)")
        assert warnings[1].startswith("Output 'out' is stored when the script ends")

    def test_or_the_step_fails(self, steps, put, data, monkeypatch):
        put({"in/a.txt": "old"})
        monkeypatch.setenv(
            "AIRFLOW_CONN_AZUREML_DEFAULT", json.dumps({"conn_type": "azureml", "extra": {"mount_fallback": "fail"}})
        )
        with pytest.raises(MountNotPossible, match=r"Input 'raw' is in mount mode.*Give the worker these"):
            steps.run(READ, arguments=[data("in").as_named_input("raw").as_mount()], task_id="read")
        with pytest.raises(MountNotPossible, match="Output 'out' is in mount mode"):
            steps.write("b.txt", output=OUT, task_id="write")
        assert steps.stored() == {"in/a.txt": "old"}


def test_kill_9_of_the_task_leaves_no_mount_no_server_and_no_script(steps, put, data, tmp_path):
    put({"in/a.txt": "old"})
    before = Path("/proc/self/mountinfo").read_text()
    script = """
        import os, sys, time
        file = open(sys.argv[1] + "/a.txt")
        print(os.getpid(), os.path.ismount(os.path.dirname(sys.argv[1])), flush=True)
        time.sleep(60)
    """

    def work() -> None:
        def on_line(line: str) -> None:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
            (tmp_path / "seen").write_text(f"{line} {children}")
            os.kill(os.getpid(), signal.SIGKILL)

        steps.run(script, arguments=[data("in").as_mount()], on_line=on_line, compute=LocalCompute(grace_seconds=0.2))

    assert in_child(work) == -signal.SIGKILL
    own, mounted, *others = (tmp_path / "seen").read_text().split()
    assert mounted == "True"
    assert len(others) == 2  # launcher and server
    assert wait_until(lambda: all(is_gone(int(each)) for each in (own, *others)))
    assert Path("/proc/self/mountinfo").read_text() == before


def test_a_step_is_stopped_at_once_while_its_store_hangs(steps, put, data):
    """Nobody writes into the pipe that has taken the file's place: reading it would never end."""
    put({"in/a.txt": "old"})
    script = """
        import os, sys
        place = sys.argv[2] + "/in/a.txt"
        os.remove(place); os.mkfifo(place)
        print("reads", flush=True)
        open(sys.argv[1] + "/a.txt").read()
    """
    compute = LocalCompute(grace_seconds=60)
    with pytest.raises(StepFailed, match="signal 15"):
        steps.run(
            script,
            arguments=[data("in").as_mount(), str(steps.root)],
            compute=compute,
            on_line=lambda line: compute.stop() if line == "reads" else None,
        )
    assert steps.leftovers() == []


class TestOutputs:
    def test_files_are_stored_as_they_are_closed(self, steps):
        script = """
            import os, sys
            out, store = sys.argv[1:3]
            stored = lambda: {n: open(os.path.join(f, n)).read() for f, _, ns in os.walk(store + "/fixed") for n in ns}
            file = open(out + "/a.txt", "w")
            file.write("one"); file.flush()
            print(stored())
            file.close()
            print(stored())
            with open(out + "/a.txt", "a") as file: file.write(", two")
            print(stored())
            os.truncate(out + "/a.txt", 3)
            os.makedirs(out + "/deep/er")
            with open(out + "/deep/er/b.txt", "x") as file: file.write("b")
            print(stored())
            os.rename(out + "/deep", out + "/moved")
            os.replace(out + "/a.txt", out + "/moved/er/b.txt")
            print(stored(), os.listdir(out), os.listdir(out + "/moved/er"))
            with open(out + "/moved/er/b.txt", "r+") as file: file.seek(1); file.write("N")
            open(out + "/empty", "w").close()
            open(out + "/gone", "w").close()
            os.remove(out + "/gone")
        """
        (made,) = steps.run(script, arguments=[FIXED, str(steps.root)]).outputs

        assert steps.lines == [
            "{}",
            "{'a.txt': 'one'}",
            "{'a.txt': 'one, two'}",
            "{'a.txt': 'one', 'b.txt': 'b'}",
            "{'b.txt': 'one'} ['moved'] ['b.txt']",
        ]
        assert steps.stored() == {"fixed/place/empty": "", "fixed/place/moved/er/b.txt": "oNe"}
        assert made.to_path() == ["/empty", "/moved/er/b.txt"]
        assert steps.leftovers() == []

    def test_what_programs_do(self, steps):
        script = """
            import mmap, os, shutil, sqlite3, subprocess, sys, tarfile, zipfile
            import numpy, pandas
            out = sys.argv[1]
            frame = pandas.DataFrame({"n": range(1000)})
            frame.to_csv(out + "/t.csv"); frame.to_parquet(out + "/t.parquet")
            assert frame.equals(pandas.read_parquet(out + "/t.parquet"))
            with zipfile.ZipFile(out + "/z.zip", "w") as file: file.write(out + "/t.csv")
            with zipfile.ZipFile(out + "/z.zip", "a") as file: file.writestr("x", "y")
            base = sqlite3.connect(out + "/base.db")
            base.execute("create table t (n)")
            for n in range(5):
                base.execute("insert into t values (?)", [n]); base.commit()
            base.close()
            os.makedirs(out + "/tree/a/b")
            os.symlink("../t.csv", out + "/tree/link")
            subprocess.run(["cp", "-r", out + "/tree", out + "/copy"], check=True)
            subprocess.run(["tar", "cf", out + "/t.tar", "-C", out, "t.csv", "tree"], check=True)
            subprocess.run(["tar", "xf", out + "/t.tar", "-C", out + "/copy"], check=True)
            subprocess.run(["bash", "-c", "(echo one; echo two) > bash.txt; echo three >> bash.txt; cat bash.txt"], cwd=out, check=True)
            shutil.copy(out + "/copy/t.csv", out + "/copy/z.csv")
            shutil.move(out + "/copy/z.csv", out + "/moved.csv")
            mapped = numpy.memmap(out + "/mapped.bin", dtype="u1", mode="w+", shape=100_000)
            mapped[:] = 7
            os.chmod(out + "/t.csv", 0o600)
            assert os.stat(out + "/t.csv").st_mode & 0o777 == 0o600
            os.utime(out + "/t.csv", (10**9, 10**9))
            assert os.stat(out + "/t.csv").st_mtime == 10**9
            assert os.statvfs(out).f_bavail > 0
        """
        (made,) = steps.run(script, arguments=[OUT]).outputs
        folder = steps.root / made.path

        assert made.to_path() == [
            *("/base.db", "/bash.txt", "/copy/link", "/copy/t.csv", "/copy/tree/link", "/mapped.bin", "/moved.csv"),
            *("/t.csv", "/t.parquet", "/t.tar", "/tree/link", "/z.zip"),
        ]
        assert (folder / "bash.txt").read_text() == "one\ntwo\nthree\n"
        assert (folder / "mapped.bin").read_bytes() == b"\7" * 100_000
        assert (folder / "tree/link").read_text() == (folder / "moved.csv").read_text()
        assert not (folder / "tree/link").is_symlink()

    def test_a_script_that_is_killed_leaves_exactly_the_files_it_closed(self, steps):
        """G18, G23, whoever else closes descriptors of the others."""
        script = """
            import os, subprocess, sys, threading
            out = sys.argv[1]
            def write(start):
                for n in range(start, 1000, 2):
                    with open(f"{out}/{n:04}", "w") as file: file.write(str(n))
            threads = [threading.Thread(target=write, args=[start]) for start in (0, 1)]
            for each in threads: each.start()
            for each in threads: each.join()
            half, other = open(f"{out}/half", "w"), open(f"{out}/other", "w")
            half.write("x" * 100_000); half.flush()
            os.set_inheritable(half.fileno(), True)
            threading.Thread(target=lambda: (other.write("y"), other.flush())).start()
            subprocess.run(["true"], close_fds=False)
            if os.fork() == 0: os._exit(0)
            os.wait()
            assert open(out + "/half").read() == "x" * 100_000
            subprocess.run(["bash", "-c", "exec > $0/log; echo half; kill -9 $$", out])
            os.kill(os.getpid(), 9)
        """
        with pytest.raises(StepFailed, match="signal 9"):
            steps.run(script, arguments=[FIXED])

        assert steps.stored() == {f"fixed/place/{n:04}": str(n) for n in range(1000)}
        assert steps.states() == ["abandoned"]
        assert steps.leftovers() == []

    def test_files_left_open_by_a_script_that_ends_by_itself_are_stored(self, steps):
        """When it ends well, also with threads: the end kills them, and the kernel may not ask for what a killed one closes."""
        script = """
            import os, sys, threading, time
            file = os.open(sys.argv[1] + "/a.txt", os.O_WRONLY | os.O_CREAT)
            os.write(file, b"new")
            for _ in range(int(sys.argv[3])): threading.Thread(target=time.sleep, args=[60], daemon=True).start()
            os._exit(int(sys.argv[2]))
        """
        steps.run(script, arguments=[FIXED, "0", "3"])
        assert steps.stored() == {"fixed/place/a.txt": "new"}
        with pytest.raises(StepFailed):
            steps.run(script, arguments=[OUT, "3", "0"], try_number=2)
        assert sorted(steps.stored().values()) == ["new", "new"]

    def test_closing_fails_when_the_store_does(self, steps):
        script = """
            import os, sys
            file = open(sys.argv[1] + "/a.txt", "w")
            file.write("new")
            os.makedirs(sys.argv[2] + "/fixed/place/a.txt/in the way")
            try: file.close()
            except OSError as error: print(error)
            if sys.argv[3] == "again":
                os.removedirs(sys.argv[2] + "/fixed/place/a.txt/in the way")
        """
        (made,) = steps.run(script, arguments=[FIXED, str(steps.root), "again"]).outputs
        assert steps.lines[1] == "[Errno 5] Input/output error"
        assert "'out/a.txt' of the step's mount cannot be stored: " in steps.lines[0]
        assert "Is a directory" in steps.lines[0]
        assert made.to_path() == ["/a.txt"]

    def test_a_step_whose_files_could_not_be_stored_fails(self, steps):
        script = """
            import os, sys
            open(sys.argv[1] + "/good", "w").close()
            file = open(sys.argv[1] + "/a.txt", "w")
            os.makedirs(sys.argv[2] + "/fixed/place/a.txt/in the way")
        """
        with pytest.raises(OSError, match="could not be stored"):
            steps.run(script, arguments=[FIXED, str(steps.root)])
        assert steps.states() == ["abandoned"]

    def test_what_is_at_the_destination_already(self, steps, put):
        put({f"fixed/place/{name}": f"old {name}" for name in ("kept", "read", "longer", "new", "gone", "deep/moved")})
        script = """
            import os, sys
            out = sys.argv[1]
            print(sorted(os.listdir(out)), open(out + "/read").read())
            with open(out + "/longer", "a") as file: file.write("!")
            with open(out + "/new", "w") as file: file.write("new")
            os.remove(out + "/gone")
            os.rename(out + "/deep", out + "/deeper")
            print(open(out + "/deeper/moved").read())
        """
        (made,) = steps.run(script, arguments=[FIXED]).outputs

        assert steps.lines == [
            "['deep', 'gone', 'kept', 'longer', 'new', 'read'] old read",
            "old deep/moved",
        ]
        assert steps.stored() == {
            "fixed/place/kept": "old kept",
            "fixed/place/read": "old read",
            "fixed/place/longer": "old longer!",
            "fixed/place/new": "new",
            "fixed/place/deeper/moved": "old deep/moved",
        }
        assert made.to_path() == ["/longer", "/new"]

    def test_the_output_made_a_file_as_in_the_article(self, steps):
        made = steps.run("import sys; open(sys.argv[1], 'w').write('csv')", arguments=[FIXED], task_id="one").outputs[0]
        assert made.to_path() == ["/place"]
        steps.run("import sys; open(sys.argv[1], 'a').write(', more')", arguments=[FIXED], task_id="two")
        assert steps.stored() == {"fixed/place": "csv, more"}
        steps.run(
            "import sys; print(open(sys.argv[1]).read())",
            arguments=[Dataset.File.from_files((steps.workspace.get_default_datastore(), "fixed/place")).as_mount()],
            task_id="three",
        )
        assert steps.lines[0] == "csv, more"

    def test_nothing_else_appears_beside_the_output(self, steps):
        script = """
            import os, sys
            os.makedirs(sys.argv[1] + "/../other")
        """
        with pytest.raises(StepFailed):
            steps.run(script, arguments=[FIXED])
        assert steps.lines[-1].startswith("OSError: [Errno 30] Read-only file system")

    @pytest.mark.parametrize("target", ["/etc/hostname", "missing"])
    def test_links_out_of_the_output_are_refused(self, steps, target):
        script = f"import os, sys; os.symlink({target!r}, sys.argv[1] + '/link')"
        with pytest.raises(OutputUnusable, match="symbolic link"):
            steps.run(script, arguments=[FIXED])

    def test_the_next_step_reads_what_this_one_wrote(self, steps):
        made = steps.run(WRITE, arguments=[OUT, "a.txt", "b/c.txt"], task_id="write").outputs[0]
        steps.run(READ, arguments=[made.as_dataset().as_mount()], task_id="read")
        assert sorted(steps.lines[:2]) == ["a.txt new a.txt", "b/c.txt new b/c.txt"]
