"""Run a step's script as a child process of the worker."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from airflow_aml_data.errors import InvalidDeclaration

_LAUNCHER = Path(__file__).with_name("launcher.py")
_START = (sys.executable, "-I", "-S", str(_LAUNCHER))
_CHUNK = 64 * 1024
_LONGEST_LINE = 64 * 1024
"""A longer line of output is logged in pieces, so that a script without line ends cannot fill the memory."""

_AIRFLOW_SECRETS = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "_AIRFLOW_")


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
        """
        lifeline_read, self._lifeline = os.pipe()
        status_read, status_write = os.pipe()
        output_read, output_write = os.pipe()
        options = {
            "read_only": [str(each) for each in command.read_only],
            "writable": [str(each) for each in command.writable],
            "grace_seconds": self._grace_seconds,
        }
        launcher = [*_START, str(lifeline_read), str(status_write), json.dumps(options)]
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is the step's
                [*launcher, *command.arguments],
                cwd=command.folder,
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                pass_fds=(lifeline_read, status_write),
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
            for end in (lifeline_read, status_write, output_write):
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
        return int(code) if code else -9  # no status: the launcher itself was killed

    def stop(self) -> None:
        """End the running command and all its processes; safe to call at any time, from a signal handler too."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)


@cache
def can_make_read_only(folder: Path) -> bool:
    """Whether this machine lets a command see folders on the file system of ``folder`` read-only."""
    done = subprocess.run([*_START, "check", str(folder)], capture_output=True, check=False)  # noqa: S603
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
