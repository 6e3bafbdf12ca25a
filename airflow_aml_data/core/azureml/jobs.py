"""Command jobs of an Azure ML workspace: what they are, how they are submitted, and how they end."""

from __future__ import annotations

import io
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.errors import AzureMlError, AzureMlNotFound, AzureMlRefused, InvalidDeclaration

if TYPE_CHECKING:
    from airflow_aml_data.core.azureml.control_plane import ControlPlane

log = logging.getLogger(__name__)

JOBS = "2024-01-01-preview"
"""API version that jobs are read with."""
_CANCEL = "2023-04-01-preview"
_COMPUTES = "2023-08-01-preview"
_ENVIRONMENTS = "2023-04-01-preview"

_ACTIVE = (
    "NotStarted",
    "Queued",
    "Preparing",
    "Provisioning",
    "Starting",
    "Running",
    "Finalizing",
    "CancelRequested",
    "NotResponding",
    "Paused",
)
"""The last two may go on."""
MISSING = "Missing"
"""Not a status of the service's: it does not know the job."""
_SUCCEEDED, _ENDED = "Completed", ("Completed", "Failed", "Canceled", MISSING)
_NO_JOB_NAME = re.compile(r"[^A-Za-z0-9_-]")
_COMPUTE = re.compile(r"[A-Za-z0-9_-]{1,24}")
_ENVIRONMENT = re.compile(r"(?:azureml:)?([A-Za-z0-9][A-Za-z0-9_.-]{0,254})([:@])([A-Za-z0-9_.-]+)")
_LOG_FILE = "user_logs/std_log.txt"

_BASE_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
_PYTHON = "python=3.11"
_FOR_DATAFRAMES = ("pandas", "pyarrow")
"""What ``to_pandas_dataframe`` needs, in environments that are made of a list of packages."""
_SERVERLESS = "serverless"
_GIT_FOLDER = "GIT_DIR"
_FIRST_WAIT_SECONDS = 1.0
_CANCEL_POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """What a job reads: a folder or a file that the service brings to it.

    :param uri: ``azureml://datastores/NAME/paths/PATH``, or a public address.
    """

    uri: str
    is_file: bool
    mode: Literal["mount", "download"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutput:
    """A folder that a job writes, and the service stores."""

    uri: str
    mode: Literal["mount", "upload"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Where and with what a job runs; v1's ``RunConfiguration`` in the service's terms.

    :param compute: A cluster's name; ``"serverless"``: none of the workspace's.
    :param environment: A registered one, ``NAME:VERSION`` or ``NAME@latest``, or one of the service's; ``""``: one that is made of the
        next three.
    :param image: A Docker image.
    :param conda: A conda specification.
    :param requirements: Packages to install with pip.
    :param instance_type: Of serverless compute, such as ``Standard_DS3_v2``.
    :param identity: ``managed``, ``user``, ``aml_token``, or the client id of a managed identity; ``""``: the compute's.
    :param timeout_seconds: After which the service ends the job; None: never.
    :param shm_size: Shared memory, such as ``8g``.
    """

    compute: str
    environment: str = ""
    image: str = ""
    conda: Mapping[str, Any] | None = None
    requirements: Sequence[str] = ()
    instance_count: int = 1
    instance_type: str = ""
    identity: str = ""
    timeout_seconds: int | None = None
    shm_size: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to submit.

    :param experiment: The service's folder for it.
    :param command: For a shell, with the service's placeholders.
    """

    name: str
    title: str
    experiment: str
    command: str
    inputs: Mapping[str, JobInput]
    outputs: Mapping[str, JobOutput]
    environment_variables: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """How a job is doing.

    :param studio_url: Its page; ``""`` when the service gives none.
    """

    name: str
    status: str
    studio_url: str = ""

    @property
    def is_ended(self) -> bool:
        return self.status in _ENDED

    @property
    def has_succeeded(self) -> bool:
        return self.status == _SUCCEEDED


def job_name(run: StepRun) -> str:
    """The name of the job of a step run: the same whenever it is asked for, and of no other, also where case does not count."""
    name = _NO_JOB_NAME.sub("-", run.id).lower()
    return name if name[0].isalnum() else f"j{name}"


def experiment_name(dag_id: str) -> str:
    """The experiment of a DAG's jobs."""
    return _NO_JOB_NAME.sub("_", dag_id)[:255]


def check_settings(workspace: ControlPlane, settings: JobSettings) -> None:
    """Look whether compute and environment are there: the service tells only when the code is uploaded.

    :raises AzureMlNotFound: naming those that are.
    :raises InvalidDeclaration: for what can be the name of neither.
    """
    if not _COMPUTE.fullmatch(settings.compute):
        raise InvalidDeclaration(
            f"compute_target {settings.compute!r} can be no compute cluster: a name has 1 to 24 letters, digits, '-' and '_'. Allowed too: "
            "'local' and 'serverless'."
        )
    if settings.compute != _SERVERLESS:
        workspace.get(f"/computes/{settings.compute}", _COMPUTES)
    if settings.environment and not settings.environment.startswith("azureml://"):
        name, is_label, version = _environment(settings.environment)
        workspace.get(
            f"/environments/{name}" if is_label else f"/environments/{name}/versions/{version}", _ENVIRONMENTS
        )


def submit(workspace: ControlPlane, job: NewJob, settings: JobSettings, code: Path) -> JobState:
    """Upload the code and submit the job. The same code, and a job of the same name, are there once however often this is done.

    :param code: Its folder.
    :raises AzureMlRefused: for what no retry cures.
    """
    with _quiet():
        client = workspace.ml_client()
        from azure.ai.ml import Input, Output, command

    inputs = {
        name: Input(
            type="uri_file" if each.is_file else "uri_folder",
            path=each.uri,
            mode="download" if each.mode == "download" else "ro_mount",
        )
        for name, each in job.inputs.items()
    }
    outputs = {
        name: Output(type="uri_folder", path=each.uri, mode="upload" if each.mode == "upload" else "rw_mount")
        for name, each in job.outputs.items()
    }
    with _quiet(), _no_repository(), _named_errors(workspace, job.name):
        made = command(
            name=job.name,
            display_name=job.title,
            experiment_name=job.experiment,
            command=job.command,
            code=str(code),
            inputs=inputs,
            outputs=outputs,
            environment_variables=dict(job.environment_variables),
            environment=_sdk_environment(settings),
            compute=None if settings.compute == _SERVERLESS else settings.compute,
            instance_count=settings.instance_count,
            instance_type=settings.instance_type or None,
            identity=_sdk_identity(settings.identity),
            timeout=settings.timeout_seconds,
            shm_size=settings.shm_size or None,
            tags=dict(settings.tags),
        )
        return _state(job.name, client.jobs.create_or_update(made))


def find(workspace: ControlPlane, name: str) -> JobState | None:
    """The job of that name; None when there is none.

    :raises AzureMlError: for a status that this release does not know.
    """
    found = workspace.find(f"/jobs/{name}", JOBS)
    return read_state(name, found) if found else None


async def poll(workspace: ControlPlane, name: str) -> JobState:
    """How the job is doing, for triggers."""
    return read_state(name, await workspace.aget(f"/jobs/{name}", JOBS))


def read_state(name: str, found: Mapping[str, Any]) -> JobState:
    """What the service says of a job."""
    told = found["properties"]
    status = told["status"]
    if status not in _ENDED and status not in _ACTIVE:
        raise AzureMlError(f"Job {name!r} has status {status!r}. Known: {', '.join((*_ACTIVE, *_ENDED))}.")
    studio = ((told.get("services") or {}).get("Studio") or {}).get("endpoint") or ""
    return JobState(name=name, status=status, studio_url=studio)


def waits(longest_seconds: float) -> Iterator[float]:
    """How long to wait before each next look at a job: longer and longer."""
    wait = min(_FIRST_WAIT_SECONDS, longest_seconds)
    while True:
        yield wait
        wait = min(wait * 1.5, longest_seconds)


def cancel(workspace: ControlPlane, name: str, *, patience_seconds: float = 0.0) -> None:
    """Have a job cancelled; one that has ended, or that there is not, is fine.

    :param patience_seconds: How long to wait for its end.
    """
    state = find(workspace, name)
    if state is None or state.is_ended:
        return
    workspace.post(f"/jobs/{name}/cancel", _CANCEL)
    deadline = time.monotonic() + patience_seconds
    for wait in waits(_CANCEL_POLL_SECONDS):
        if time.monotonic() > deadline or (state := find(workspace, name)) is None or state.is_ended:
            return
        time.sleep(wait)


class JobLog:
    """What a job prints, read on from where the last look ended."""

    def __init__(self, workspace: ControlPlane, name: str) -> None:
        self._workspace, self._name = workspace, name
        self._read, self._rest = 0, b""
        self.error = ""

    def lines(self) -> Iterator[str]:
        """The lines that are new; of the last one, what has no end yet comes with the next look."""
        try:
            told = self._workspace.history("GET", f"/runs/{self._name}/details")
        except AzureMlNotFound:  # run history hears of a job a little later
            return
        self.error = str(((told.get("error") or {}).get("error") or {}).get("message") or "")
        address = next((url for path, url in (told.get("logFiles") or {}).items() if path.endswith(_LOG_FILE)), None)
        if not address:
            return
        new = self._workspace.read_signed(address, self._read)
        self._read += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        yield from (line.decode("utf-8", "backslashreplace").removesuffix("\r") for line in whole)

    def rest(self) -> Iterator[str]:
        """All that is new, at the end of the job."""
        yield from self.lines()
        if self._rest:
            yield self._rest.decode("utf-8", "backslashreplace")
            self._rest = b""


def _environment(text: str) -> tuple[str, bool, str]:
    """Name, whether a label follows, and version or label."""
    found = _ENVIRONMENT.fullmatch(text)
    if found is None:
        raise InvalidDeclaration(
            f"Environment {text!r} is none, or has no version. Allowed: 'NAME:VERSION', 'NAME@latest', or one of the service's, "
            "'azureml://registries/azureml/environments/NAME/versions/VERSION'."
        )
    name, separator, version = found.groups()
    return name, separator == "@", version


def _sdk_environment(settings: JobSettings) -> Any:
    if settings.environment.startswith("azureml://"):
        return settings.environment
    if settings.environment:
        return f"azureml:{settings.environment.removeprefix('azureml:')}"
    from azure.ai.ml.entities import Environment

    if settings.image and not settings.conda and not settings.requirements:
        return Environment(image=settings.image)
    return Environment(
        image=settings.image or _BASE_IMAGE, conda_file=dict(settings.conda or _conda(settings.requirements))
    )


def _conda(requirements: Sequence[str]) -> dict[str, Any]:
    """An environment with the packages, and those that DataFrames need."""
    named = {re.split(r"[^A-Za-z0-9._-]", each.strip(), maxsplit=1)[0].lower() for each in requirements}
    packages = [*requirements, *(each for each in _FOR_DATAFRAMES if each not in named)]
    return {"name": "airflow_aml_data", "dependencies": [_PYTHON, "pip", {"pip": packages}]}


def _sdk_identity(identity: str) -> Any:
    from azure.ai.ml import AmlTokenConfiguration, ManagedIdentityConfiguration, UserIdentityConfiguration

    match identity:
        case "":
            return None
        case "user":
            return UserIdentityConfiguration()
        case "aml_token":
            return AmlTokenConfiguration()
        case "managed":
            return ManagedIdentityConfiguration()
    return ManagedIdentityConfiguration(client_id=identity)


def _state(name: str, job: Any) -> JobState:
    studio = (job.services or {}).get("Studio")
    return JobState(name=name, status=str(job.status), studio_url=(studio.endpoint if studio else "") or "")


@contextmanager
def _named_errors(workspace: ControlPlane, name: str) -> Iterator[None]:
    """Turn the client's errors into this package's."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError, HttpResponseError

    try:
        yield
    except HttpResponseError as error:
        raise workspace.failure_of_client(f"/jobs/{name}", error) from None
    except AzureError as error:
        if isinstance(error, MlException):
            raise AzureMlRefused(f"Azure ML's client does not submit job {name!r}: {_one_line(error)}") from None
        raise AzureMlError(f"Azure ML does not answer when job {name!r} is submitted: {_one_line(error)}") from None


@contextmanager
def _no_repository() -> Iterator[None]:
    """Keep the client from telling of the git repository that the worker happens to be in: its address may hold a password."""
    before = os.environ.get(_GIT_FOLDER)
    os.environ[_GIT_FOLDER] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ[_GIT_FOLDER]
        else:
            os.environ[_GIT_FOLDER] = before


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:1000]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client from filling the task's log with its requests, warnings to those who develop it, and colours."""
    loggers = [logging.getLogger(each) for each in ("azure", "azure.ai.ml")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
