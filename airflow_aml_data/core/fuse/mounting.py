"""From what a step's mount shows to how it is mounted and served."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from airflow_aml_data.core.compute.local import Mount
from airflow_aml_data.core.fuse.specification import Specification

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
    "from airflow_aml_data.core.fuse.server import main; main(int(sys.argv[1]))"
)
"""Without the modules that Python looks for when it starts: a mount should answer at once."""


def mount_at(point: Path, specification: Specification) -> Mount:
    """How a command gets to see these files below ``point``, a folder of its own.

    What the server is told holds credentials.
    """
    path = json.dumps([each for each in sys.path if each]).encode()
    return Mount(
        point=point,
        server=[sys.executable, "-I", "-S", "-c", _START],
        server_input=path + b"\n" + specification.to_bytes(),
        is_read_only=not specification.outputs,
    )
