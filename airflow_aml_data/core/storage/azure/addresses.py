"""Addresses of Azure storage: one canonical location and path, whichever scheme, host or spelling names them.

Nothing here opens a store or asks the network.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from airflow_aml_data.core.storage.azure.account import azure_account
from airflow_aml_data.core.storage.base import DatastoreConfig
from airflow_aml_data.errors import InvalidDeclaration

_HADOOP = re.compile(r"(?:wasb|abfs)s?://([^/]*)(.*)", re.IGNORECASE | re.DOTALL)
_WEB = re.compile(r"https?://", re.IGNORECASE)
_SERVICE_OF_HOST = re.compile(r"(.+?)\.(blob|dfs|file)\.(.+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CONTAINER_OPTIONS = {
    "azure_blob": "container_name",
    "azure_data_lake_gen2": "filesystem",
    "azure_file": "file_share_name",
}


class StorageAddress(NamedTuple):
    """A place in Azure storage.

    :param location: Of its container or share, as :func:`azure_location` gives that of a datastore.
    :param path: Decoded, relative to the container's root, as it was written: not normalised yet.
    """

    location: str
    path: str


def read_address(address: str) -> StorageAddress | None:
    """The place that an address names; None for one that can be no file in Azure storage.

    The ``dfs`` and the ``blob`` host of an account are one place, as are http and https, any case of account and host, and a default
    port named or not. An emulator's address has the account as first folder.

    :raises InvalidDeclaration: for an address of Azure storage that cannot be read, or that holds a SAS token.
    """
    if _WEB.match(address):
        return _web_address(address)
    found = _HADOOP.fullmatch(address)
    if found is None:
        return None
    authority, path = found.groups()
    container, _, host = authority.rpartition("@")
    if any(name.lower() == "sig" for name, _ in parse_qsl(path.partition("?")[2], keep_blank_values=True)):
        raise InvalidDeclaration(
            f"{address.partition('?')[0]!r} is followed by a SAS token, which would lie readable in every dataset made of it. "
            "Put the token into an Airflow connection and declare a datastore with its conn_id."
        )
    if not container or not host:
        raise InvalidDeclaration(
            f"{address!r} is no address of Azure storage. Written as: wasbs://CONTAINER@ACCOUNT.blob.core.windows.net/PATH or "
            "abfss://FILESYSTEM@ACCOUNT.dfs.core.windows.net/PATH."
        )
    service = _canonical_service(f"https://{host}")
    try:
        return StorageAddress(f"{service}/{quote(unquote(container), safe='$')}", _decoded(path))
    except UnicodeDecodeError:
        raise InvalidDeclaration(f"{address!r} is not UTF-8 when its percent signs are decoded.") from None


def azure_location(config: DatastoreConfig) -> str | None:
    """The canonical location of an Azure datastore, from its options and connection; None for datastores of other kinds.

    :raises InvalidConfiguration: when they name no account.
    """
    option = _CONTAINER_OPTIONS.get(config.kind)
    if option is None:
        return None
    account = azure_account(config, "file" if config.kind == "azure_file" else "blob")
    return f"{_canonical_service(account.url)}/{quote(str(config.options.get(option, '')), safe='$')}"


def _web_address(address: str) -> StorageAddress | None:
    parts = urlsplit(address)
    is_host = bool(_SERVICE_OF_HOST.fullmatch((parts.hostname or "").lower()))
    if parts.query or not (is_host or parts.port):
        return None  # a snapshot or a version, say; or a host that is no emulator, which has a port of its own
    account, path = ("", parts.path) if is_host else _first_name(parts.path)
    container, path = _first_name(path)
    if not container or not (is_host or account):
        return None
    service = _canonical_service(f"{parts.scheme}://{parts.netloc}/{account}")
    try:
        return StorageAddress(f"{service}/{quote(unquote(container), safe='$')}", _decoded(path))
    except UnicodeDecodeError:
        return None


def _first_name(path: str) -> tuple[str, str]:
    name, _, rest = path.removeprefix("/").partition("/")
    return name, f"/{rest}"


def _canonical_service(url: str) -> str:
    """The address of an account's service, the same for every spelling."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise InvalidDeclaration(f"{url!r} is not an address of Azure storage: {error}.") from error
    if found := _SERVICE_OF_HOST.fullmatch(host):
        account, service, endpoint = found.groups()
        host = f"{account}.{'file' if service == 'file' else 'blob'}.{endpoint}"
    named = f":{port}" if port and port != _DEFAULT_PORTS.get(parts.scheme) else ""
    return f"https://{host}{named}{parts.path.rstrip('/').lower()}"


def _decoded(path: str) -> str:
    return unquote(path, errors="strict").removeprefix("/")
