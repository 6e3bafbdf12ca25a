"""The interpreter that a step's ``RunConfiguration`` asks for."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from airflow_aml_data.errors import InvalidDeclaration


@dataclass(frozen=True, slots=True)
class RunConfiguration:
    """What a step's script runs with.

    :param interpreter: Path of a Python on the worker; None: the worker's own.
    :param requirements: Packages of a virtual environment that is made once on each worker and kept. A script that
        asks a dataset for a DataFrame needs ``pandas``, ``pyarrow`` and ``sqlalchemy`` among them.
    :param environment_variables: Added to the script's environment. (templated)

    Source: v1, ``azureml.core.runconfig.RunConfiguration``.
    """

    interpreter: str | None = None
    requirements: Sequence[str] = ()
    environment_variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.requirements, str) or not all(isinstance(each, str) for each in self.requirements):
            raise InvalidDeclaration(
                f"requirements is a list of packages such as ['scikit-learn==1.7.2'], found {self.requirements!r}."
            )
        if not isinstance(self.environment_variables, Mapping):
            raise InvalidDeclaration(f"environment_variables maps names to text, found {self.environment_variables!r}.")


def interpreter_for(config: RunConfiguration) -> str:
    """The Python to run a script with; its virtual environment is made first when there is none yet."""
    python = config.interpreter or sys.executable
    if not Path(python).exists():
        raise InvalidDeclaration(f"runconfig.interpreter {python!r} does not exist on this worker.")
    if not config.requirements:
        return python
    from airflow.providers.standard.utils.python_virtualenv import prepare_virtualenv

    wanted = json.dumps([python, sorted(config.requirements)])
    root = Path(tempfile.gettempdir(), f"airflow_aml_data_environments_{os.getuid()}")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = root / sha256(wanted.encode()).hexdigest()[:16]
    complete = folder / "complete.json"
    with (root / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            prepare_virtualenv(
                venv_directory=str(folder),
                python_bin=python,
                system_site_packages=False,
                requirements=list(config.requirements),
            )
            complete.write_text(wanted)
    return str(folder / "bin" / "python")
