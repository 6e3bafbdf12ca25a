"""Run a step's script as a child process of the worker."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from airflow_aml_data.errors import InvalidDeclaration, StorageError

_LAUNCHER = Path(__file__).with_name("launcher.py")
_START = (sys.executable, "-I", "-S", str(_LAUNCHER))
_CHUNK = 64 * 1024
_LONGEST_LINE = 64 * 1024
"""A longer line of output is logged in pieces, so that a script without line ends cannot fill the memory."""

_AIRFLOW_SECRETS = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "_AIRFLOW_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A file system that a process serves to the command, and to nobody else.

    :param point: An empty folder.
    :param server: What serves it; the descriptor of a socket is added, see :mod:`.fuse.server`.
    :param server_input: For its standard input; may hold credentials.
    """

    point: Path
    server: Sequence[str] = field(repr=False)
    server_input: bytes = field(repr=False)
    is_read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run, and what of the file system it may change.

    :param read_only: Mounted inputs.
    :param writable: Outputs; they may lie inside a mounted input.
    """

    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    read_only: Sequence[Path] = field(default=())
    writable: Sequence[Path] = field(default=())
    mount: Mount | None = None


class LocalCompute:
    """Runs commands on this machine, one at a time.

    :param grace_seconds: How long a script that is told to stop may take before it is killed.
    """

    def __init__(self, grace_seconds: float = 10.0) -> None:
        self._grace_seconds = grace_seconds
        self._lifeline: int | None = None

    def run(self, command: Command, on_line: Callable[[str], None]) -> int:
        """Run a command to its end.

        Its output, standard error included, is handed over line by line as it appears. When this returns, no
        process of the command is left, also none it started in the background.

        :returns: The exit code; negative: the number of the signal that ended it.
        :raises StorageError: when its mount failed, or what it wrote there could not be stored.
        """
        lifeline_read, self._lifeline = os.pipe()
        status_read, status_write = os.pipe()
        output_read, output_write = os.pipe()
        options: dict[str, object] = {
            "read_only": [str(each) for each in command.read_only],
            "writable": [str(each) for each in command.writable],
            "grace_seconds": self._grace_seconds,
            "mount": None,
        }
        server: _Server | None = None
        passed = [lifeline_read, status_write]
        if command.mount:
            server = _Server(command.mount, output_write)
            options["mount"] = [str(command.mount.point), command.mount.is_read_only, server.launchers_end]
            passed.append(server.launchers_end)
        launcher = [*_START, str(lifeline_read), str(status_write), json.dumps(options)]
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is the step's
                [*launcher, *command.arguments],
                cwd=command.folder,
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                pass_fds=passed,
                start_new_session=True,
            )
        except OSError as error:
            self.stop()
            os.close(status_read)
            os.close(output_read)
            if error.errno == errno.E2BIG:
                raise InvalidDeclaration(
                    "The arguments and environment variables of the step are longer than the system lets a process have "
                    "(Linux: 128 KiB for one argument). Pass them in a file."
                ) from error
            raise
        finally:
            for end in (*passed, output_write):
                os.close(end)
        try:
            for line in _lines(output_read):
                on_line(line)
        finally:
            self.stop()
            process.wait()
            os.close(output_read)
            with os.fdopen(status_read, "rb") as status:
                code = status.read()
        if server:
            server.check()
        return int(code) if code else -9  # no status: the launcher itself was killed

    def stop(self) -> None:
        """End the running command and all its processes; safe to call at any time, from a signal handler too."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)


class _Server:
    """The process that serves a mount. It ends when nobody holds the launcher's end of its socket any more.

    :param output: Where it writes what the step's log should tell.
    """

    def __init__(self, mount: Mount, output: int) -> None:
        theirs, its = socket.socketpair()
        with its, os.fdopen(os.memfd_create("mount"), "wb") as told:
            told.write(mount.server_input)
            told.seek(0)
            self._process = subprocess.Popen(  # noqa: S603 - our own
                [*mount.server, str(its.fileno())],
                env=script_environment(os.environ),
                stdin=told,
                stdout=output,
                stderr=output,
                pass_fds=[its.fileno()],
                start_new_session=True,
            )
        self.launchers_end = theirs.detach()

    def check(self) -> None:
        """Wait for its end.

        :raises StorageError: when that was none it should have had.
        """
        if self._process.wait() != 0:
            raise StorageError(
                "The step's mount failed, or what was written to it could not be stored; see the log above."
            )


@cache
def can_make_read_only(folder: Path) -> bool:
    """Whether this machine lets a command see folders on the file system of ``folder`` read-only."""
    return _check("read-only", folder)


@cache
def can_mount(folder: Path) -> bool:
    """Whether this machine lets a command mount files below ``folder`` that a process serves: Linux, FUSE and the right to it."""
    return _check("mount", folder)


def _check(what: str, folder: Path) -> bool:
    done = subprocess.run([*_START, "check", what, str(folder)], capture_output=True, check=False)  # noqa: S603
    return done.returncode == 0


def script_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment without Airflow's own settings and secrets, which are not the script's business."""
    return {key: value for key, value in inherited.items() if not key.startswith(_AIRFLOW_SECRETS)}


def _lines(stream: int) -> Iterator[str]:
    """Lines of bytes as text; what is not UTF-8 is shown as ``\\xNN``."""
    rest = b""
    while chunk := os.read(stream, _CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield from _pieces(line)
        while len(rest) >= _LONGEST_LINE:
            yield _text(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
    if rest:
        yield from _pieces(rest)


def _pieces(line: bytes) -> Iterator[str]:
    for start in range(0, max(len(line), 1), _LONGEST_LINE):
        yield _text(line[start : start + _LONGEST_LINE])


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "backslashreplace")
