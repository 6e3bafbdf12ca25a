"""What a process takes, its children included: seconds, CPU seconds, and the most memory of any one of them.

The system counts for a new process also the memory of the one that starts it. So this file, run as a script, is what starts
it: a small one. ``measured.py RESULT COMMAND ...`` writes the numbers to a file; what the command prints is its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple


class Measured(NamedTuple):
    """What a process took."""

    seconds: float
    cpu_seconds: float
    memory_mb: float

    def without(self, seconds: float, cpu_seconds: float) -> Measured:
        return self._replace(seconds=self.seconds - seconds, cpu_seconds=self.cpu_seconds - cpu_seconds)


def measure(command: Sequence[object], environment: Mapping[str, str] | None = None) -> tuple[Measured, str]:
    """Run a command to its end; give what it took, and what it printed.

    :raises RuntimeError: with its errors when it fails.
    """
    with NamedTemporaryFile() as result:
        words = [sys.executable, "-I", "-S", __file__, result.name, *map(str, command)]
        ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"{command[0]} ended with exit code {ended.returncode}:\n{ended.stdout}{ended.stderr}")
        return Measured(**json.loads(Path(result.name).read_text())), ended.stdout


def main() -> None:
    result, *command = sys.argv[1:]
    start = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - start
    found = Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    Path(result).write_text(json.dumps(found._asdict()))
    sys.exit(os.waitstatus_to_exitcode(status) and 1)


if __name__ == "__main__":
    main()
