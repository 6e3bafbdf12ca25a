"""Where the data of a URI lies, and how a job's compute brings it and takes it away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.azure_ml.job import JobFailed
from tests.azure_ml.names import parts_of, short_uri

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

    from tests.azure_ml.state import State

_DATASTORE = re.compile(r"azureml://datastores/([^/]+)/paths/(.*)")
_OUTPUT = re.compile(r"azureml://jobs/([^/]+)/outputs/([^/]+)(?:/paths/(.*))?")
_ASSET = re.compile(r"azureml:(?!//)([^:]+):([^:]+)")
_BLOB = re.compile(r"https://([a-z0-9]+)\.(?:blob|dfs)\.core\.windows\.net(?::443)?/([^/?]+)/?([^?]*)")


@dataclass(frozen=True, kw_only=True)
class Location:
    """A place in a container.

    :param path: Of a blob or of a folder; empty: the whole container.
    """

    account: str
    container: str
    path: str


def asset_uri(state: State, uri: str) -> str:
    """Where the data of an asset is, or of a job's output; any other URI as it is.

    :raises JobFailed: when there is no such asset or output.
    """
    short = short_uri(uri)
    named = _ASSET.fullmatch(uri)
    match parts_of(uri) or (["data", named[1], "versions", named[2]] if named else []):
        case ["data", name, "versions", version]:
            if version not in state.data.get(name, {}):
                raise JobFailed(f"The data asset '{name}:{version}' does not exist.")
            return str(state.data[name][version]["dataUri"])
    if output := _OUTPUT.fullmatch(short):
        job, name, path = output.groups()
        if job not in state.jobs or name not in state.jobs[job].properties["outputs"]:
            raise JobFailed(f"Job '{job}' does not exist, or has no output '{name}'.")
        found = str(state.jobs[job].properties["outputs"][name]["uri"])
        return f"{found.rstrip('/')}/{path}" if path else found
    return uri


def locate(state: State, uri: str) -> Location:
    """The place of a URI, in any of the forms that jobs take.

    :raises JobFailed: when it leads nowhere.
    """
    found = short_uri(asset_uri(state, uri))
    if blob := _BLOB.fullmatch(found.partition("?")[0]):
        account, container, path = blob[1], blob[2], unquote(blob[3])
    elif stored := _DATASTORE.fullmatch(found):
        if stored[1] not in state.datastores:
            raise JobFailed(f"The datastore '{stored[1]}' of {uri} does not exist.")
        store = state.datastores[stored[1]]
        account, container, path = store["accountName"], store.get("containerName") or store["filesystem"], stored[2]
    else:
        raise JobFailed(f"{uri} is no URI of data.")
    if account not in state.azurite.keys:
        raise JobFailed(f"The storage account '{account}' of {uri} cannot be reached.")
    return Location(account=account, container=container, path=path.strip("/"))


def bring_folder(state: State, location: Location, folder: Path) -> None:
    """Download everything below a location.

    :raises JobFailed: when there is nothing.
    """
    prefix = f"{location.path}/" if location.path else ""
    folder.mkdir(parents=True, exist_ok=True)
    found = False
    with _container(state, location) as container:
        for blob in container.list_blobs(name_starts_with=prefix, include=["metadata"]):
            target = folder / blob.name.removeprefix(prefix)
            if (blob.metadata or {}).get("hdi_isfolder") == "true":
                target.mkdir(parents=True, exist_ok=True)
                continue
            found = True
            _download(container, blob.name, target)
    if not found:
        raise JobFailed(f"There is no data in {location.container}/{prefix} of account '{location.account}'.")


def bring_file(state: State, location: Location, file: Path) -> None:
    """Download one blob.

    :raises JobFailed: when it does not exist.
    """
    with _container(state, location) as container:
        _download(container, location.path, file)


def send(state: State, source: Path, location: Location) -> None:
    """Upload a file, or everything in a folder; what is there already is replaced."""
    with _container(state, location) as container:
        files = [source] if source.is_file() else sorted(each for each in source.rglob("*") if each.is_file())
        for file in files:
            below = "" if file == source else file.relative_to(source).as_posix()
            with file.open("rb") as content:
                container.upload_blob("/".join(filter(None, [location.path, below])), content, overwrite=True)


def _download(container: ContainerClient, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        container.download_blob(name).readinto(file)


@contextmanager
def _container(state: State, location: Location) -> Iterator[ContainerClient]:
    """A container, whose failures are the job's."""
    from azure.core.exceptions import AzureError

    try:
        with state.storage.container(location.account, location.container) as client:
            yield client
    except AzureError as error:
        where = f"{location.container}/{location.path} of account '{location.account}'"
        raise JobFailed(f"{where} cannot be read or written: {error}") from error
