"""The interpreter, or the job's environment, that a step's ``RunConfiguration`` asks for."""

from __future__ import annotations

import fcntl
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from airflow_aml_data.core.azureml.jobs import JobSettings
from airflow_aml_data.core.sampling import is_template
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration

_LATER_SECONDS = 600
PYTHON_OF_JOBS = "python"
"""The interpreter in a job's environment."""


@dataclass(frozen=True, slots=True)
class RunConfiguration:
    """What a step's script runs with; text in it may hold templates.

    :param interpreter: Path of a Python on the worker; None: the worker's own. A job has its environment's.
    :param requirements: Packages of a virtual environment that is made once on each worker and kept. A script that
        asks a dataset for a DataFrame needs ``pandas``, ``pyarrow`` and ``sqlalchemy`` among them. For jobs, Azure ML makes an image
        with them, ``pandas`` and ``pyarrow``, and keeps it.
    :param environment_variables: Added to the script's environment.

    The rest is for jobs only.

    :param environment: A registered environment, ``NAME:VERSION`` or ``NAME@latest``, or one of Azure ML's own,
        ``azureml://registries/azureml/environments/NAME/versions/VERSION``; None: one that is made of the next two and ``requirements``.
        Its Python has to be 3.11 or later.
    :param image: A Docker image; None: Azure ML's base image.
    :param conda: A conda specification, or the path of a YAML file with one, relative to the DAG file's folder.
    :param instance_count: On how many machines the command runs.
    :param instance_type: Machines of serverless compute, such as ``Standard_DS3_v2``.
    :param identity: ``managed``, ``user``, ``aml_token``, or the client id of a managed identity; None: the compute's.
    :param timeout_seconds: When Azure ML ends the job, whoever waits for it; None: ten minutes after the task's ``execution_timeout``,
        if it has one.
    :param shm_size: Shared memory, such as ``8g``.

    Source: v1, ``azureml.core.runconfig.RunConfiguration``.
    """

    interpreter: str | None = None
    requirements: Sequence[str] = ()
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    environment: str | None = None
    image: str | None = None
    conda: Mapping[str, Any] | str | None = None
    instance_count: int | str = 1
    instance_type: str | None = None
    identity: str | None = None
    timeout_seconds: int | str | None = None
    shm_size: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.requirements, str) or not all(isinstance(each, str) for each in self.requirements):
            raise InvalidDeclaration(
                f"requirements is a list of packages such as ['scikit-learn==1.7.2'], found {self.requirements!r}."
            )
        if not isinstance(self.environment_variables, Mapping):
            raise InvalidDeclaration(f"environment_variables maps names to text, found {self.environment_variables!r}.")
        if self.environment and (self.image or self.conda or self.requirements):
            raise InvalidDeclaration(
                f"runconfig names the environment {self.environment!r}, and what one would be made of: image, conda or requirements. "
                "Keep one of them."
            )
        if self.conda and self.requirements:
            raise InvalidDeclaration(
                "runconfig has conda and requirements. Put the packages into the conda specification."
            )
        for name in ("instance_count", "timeout_seconds"):
            value = getattr(self, name)
            if value is not None and not is_template(value):
                _positive(name, value)


def settings_for(
    config: RunConfiguration,
    compute_target: str,
    folder: Path,
    *,
    execution_timeout: timedelta | None,
    tags: Mapping[str, str],
) -> JobSettings:
    """Where and with what the job of a step runs.

    :param folder: The DAG file's.
    :param execution_timeout: The task's: who waits cancels the job then. A while later it ends by itself, should nobody be there.
    """
    timeout = config.timeout_seconds
    if timeout is None and execution_timeout:
        timeout = math.ceil(execution_timeout.total_seconds()) + _LATER_SECONDS
    return JobSettings(
        compute=compute_target,
        environment=config.environment or "",
        image=config.image or "",
        conda=_conda(config.conda, folder),
        requirements=tuple(config.requirements),
        instance_count=_positive("instance_count", config.instance_count),
        instance_type=config.instance_type or "",
        identity=config.identity or "",
        timeout_seconds=None if timeout is None else _positive("timeout_seconds", timeout),
        shm_size=config.shm_size or "",
        tags=tags,
    )


def _positive(name: str, value: int | str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1 or isinstance(value, bool | float):
        raise InvalidDeclaration(f"runconfig.{name} is {value!r}. Allowed: whole numbers, 1 and more.")
    return number


def _conda(conda: Mapping[str, Any] | str | None, folder: Path) -> Mapping[str, Any] | None:
    if not isinstance(conda, str):
        return conda
    import yaml

    file = folder / conda
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FilesNotFound(f"runconfig.conda {conda!r}: there is no file {file}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidDeclaration(f"runconfig.conda {conda!r}: {file} is not YAML: {error}.") from error
    if not isinstance(content, Mapping) or "dependencies" not in content:
        raise InvalidDeclaration(
            f"runconfig.conda {conda!r}: {file} is no conda specification: it has no 'dependencies'."
        )
    return content


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
