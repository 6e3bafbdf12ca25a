"""Scripts as child processes: output, exit codes, and nothing that outlives them."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path
from textwrap import dedent

import pytest

from airflow_aml_data.core.compute import local
from airflow_aml_data.core.compute.local import Command, LocalCompute, script_environment
from airflow_aml_data.errors import InvalidDeclaration
from tests.core.steps import become_ordinary_user, in_child, start_child

DAEMON = """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open(sys.argv[1], "w").write(str(os.getpid()))
            time.sleep(60)
        time.sleep(60)
    while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
        time.sleep(0.01)
"""


@pytest.fixture
def run(tmp_path):
    def run(script: str, *arguments: str, compute: LocalCompute | None = None, on_line=None, **more):
        lines: list[str] = []
        command = Command(
            arguments=[sys.executable, "-c", dedent(script), *arguments],
            folder=tmp_path,
            environment=dict(os.environ),
            **more,
        )
        code = (compute or LocalCompute(grace_seconds=1)).run(command, on_line or lines.append)
        return code, lines

    return run


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.01)
    return True


@pytest.mark.parametrize(
    ("ending", "code"),
    [("pass", 0), ("sys.exit(3)", 3), ("sys.exit(255)", 255), ("os.kill(os.getpid(), 15)", -15), ("os.abort()", -6)],
)
def test_exit_codes(run, ending, code):
    assert run(f"import os, sys; {ending}")[0] == code


def test_lines_arrive_while_the_script_runs(run, tmp_path):
    go = tmp_path / "go"
    seen = []

    def on_line(line: str) -> None:
        seen.append(line)
        go.touch()

    script = "import os, sys, time; print('first', flush=True)\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\nprint('second')"
    assert run(script, str(go), on_line=on_line)[0] == 0
    assert seen == ["first", "second"]


def test_text_of_any_kind_is_handed_over(run):
    script = r"import sys; sys.stdout.buffer.write(b'a\r\n\n\xff\x00z\n' + 'ü'.encode() * 40000 + b'\nend')"
    _, lines = run(script)
    assert lines[:3] == ["a", "", "\\xff\x00z"]
    assert len(lines) == 6
    assert lines[-1] == "end"
    assert all(len(each) <= 64 * 1024 for each in lines)


def test_100_mb_without_a_line_end_stay_in_bounded_memory(run):
    total = 0

    def count(line: str) -> None:
        nonlocal total
        total += len(line)

    tracemalloc.start()
    run("import sys\nfor _ in range(1600): sys.stdout.write('x' * 65536)", on_line=count)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 1600 * 65536
    assert peak < 4_000_000


def test_a_daemon_the_script_left_is_gone(run, tmp_path):
    pid = tmp_path / "pid"
    assert run(DAEMON, str(pid))[0] == 0
    assert is_gone(int(pid.read_text()))


def test_stop_from_another_thread_ends_the_script_and_its_daemons(run, tmp_path):
    pid, compute = tmp_path / "pid", LocalCompute(grace_seconds=0.3)
    script = (
        "import signal; signal.signal(15, signal.SIG_IGN)\n"
        + dedent(DAEMON)
        + "print('up', flush=True); time.sleep(60)"
    )

    code, _ = run(script, str(pid), compute=compute, on_line=lambda _: threading.Thread(target=compute.stop).start())

    assert code == -signal.SIGKILL
    assert is_gone(int(pid.read_text()))
    compute.stop()  # again: nothing to do


def test_a_script_may_tidy_up_when_it_is_stopped(run, tmp_path):
    compute = LocalCompute(grace_seconds=20)
    script = (
        "import signal, sys, time\n"
        "def bye(*_): print('bye', flush=True); sys.exit(7)\n"
        "signal.signal(15, bye); print('up', flush=True); time.sleep(60)"
    )
    lines = []

    def on_line(line: str) -> None:
        lines.append(line)
        compute.stop()

    assert run(script, compute=compute, on_line=on_line)[0] == 7
    assert lines == ["up", "bye"]


def test_an_error_while_logging_ends_the_script(run, tmp_path):
    def fail(line: str) -> None:
        raise ValueError(line)

    script = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(ValueError, match=r"\d+") as error:
        run(script, on_line=fail)
    assert is_gone(int(str(error.value)))


def test_killing_the_task_with_signal_9_ends_the_script_and_its_daemons(run, tmp_path):
    pid, own = tmp_path / "pid", tmp_path / "own"
    script = dedent(DAEMON) + "open(sys.argv[2], 'w').write(str(os.getpid())); print('up', flush=True); time.sleep(60)"

    def work() -> None:
        run(
            script,
            str(pid),
            str(own),
            on_line=lambda _: os.kill(os.getpid(), signal.SIGKILL),
            compute=LocalCompute(grace_seconds=0.2),
        )

    assert in_child(work) == -signal.SIGKILL
    assert wait_until(lambda: is_gone(int(pid.read_text())) and is_gone(int(own.read_text())))


def test_a_command_that_is_not_there(tmp_path):
    lines = []
    command = Command(arguments=["/no/such"], folder=tmp_path, environment={})
    assert LocalCompute().run(command, lines.append) == 127
    assert lines == ["/no/such: No such file or directory"]


def test_arguments_that_are_too_long_leave_no_descriptors_open(run):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(InvalidDeclaration, match="longer"):
            run("pass", "x" * 200_000)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_descriptor_of_the_task_reaches_the_script_and_none_stays_open(run):
    before = len(list(Path("/proc/self/fd").iterdir()))
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    _, lines = run("import os; print(sorted(os.listdir('/proc/self/fd')))")
    os.close(secret)
    assert lines == ["['0', '1', '2', '3']"]  # 3: the listing itself
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_task_with_more_than_1024_open_files(run):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    opened = []
    try:
        opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
        assert run("pass") == (0, [])
    finally:
        for each in opened:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


WRITE_THERE = """
    import errno, os, sys
    for place in sys.argv[1:]:
        try:
            open(os.path.join(place, "new"), "w").write("x")
            print("written")
        except OSError as error:
            print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize("below", [None, "/dev/shm"], ids=["disk", "nosuid,nodev"])
@pytest.mark.parametrize("ordinary", [False, True], ids=["as is", "ordinary user"])
def test_read_only_folders(run, below, ordinary):
    """An output inside an input stays writable; a mount keeps the flags an ordinary user may not take off."""

    def work() -> None:
        if ordinary:
            become_ordinary_user()
        assert local.can_make_read_only.__wrapped__(Path(folder))
        more = {"read_only": [Path(folder, "in")], "writable": [Path(folder, "in/out"), Path(folder, "missing")]}
        code, lines = run(WRITE_THERE, f"{folder}/in", f"{folder}/in/deep", f"{folder}/in/out", folder, **more)
        assert (code, lines) == (0, ["EROFS", "EROFS", "written", "written"]), (code, lines)

    with tempfile.TemporaryDirectory(dir=below) as folder:
        Path(folder, "in/out").mkdir(parents=True)
        Path(folder, "in/deep").mkdir()
        assert in_child(work) == 0
        assert not Path(folder, "in/new").exists()


def test_a_read_only_folder_that_cannot_be_made_so_stops_the_script_before_it_starts(run, tmp_path):
    code, lines = run("print('ran')", read_only=[tmp_path / "missing"])
    assert code == 126
    assert len(lines) == 1 and "read-only" in lines[0]


def test_airflows_own_settings_do_not_reach_the_script():
    given = {
        "AIRFLOW__CORE__FERNET_KEY": "k",
        "AIRFLOW_CONN_X": "u",
        "AIRFLOW_VAR_X": "v",
        "_AIRFLOW_X": "w",
        "AIRFLOW_HOME": "h",
        "PATH": "p",
    }
    assert script_environment(given) == {"AIRFLOW_HOME": "h", "PATH": "p"}


def test_the_environment_is_not_in_the_repr(tmp_path):
    assert "hidden" not in repr(Command(arguments=[], folder=tmp_path, environment={"SECRET": "hidden"}))


def test_two_tasks_side_by_side_do_not_share_lines(run):
    def work(mark: str) -> None:
        _, lines = run(f"for i in range(2000): print('{mark}', i)")
        assert lines == [f"{mark} {i}" for i in range(2000)]

    children = [start_child(lambda mark=mark: work(mark)) for mark in ("a", "b")]
    assert [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children] == [0, 0]
