"""From an Airflow connection to a storage account: its address and how to sign in.

Takes what the hooks of the microsoft-azure provider take, and reads all three kinds of connection by one set of rules,
so that any of them serves any kind of datastore.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.storage.azure.clouds import CONN_TYPE, workspace_identity
from airflow_aml_data.core.storage.azure.sas import ObstoreSas, RenewedSas
from airflow_aml_data.core.storage.azure.tokens import Access, ObstoreTokens, client_secret, default_credential
from airflow_aml_data.core.storage.base import DatastoreConfig
from airflow_aml_data.errors import InvalidConfiguration, StorageRefused

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

Service = Literal["blob", "file"]

ACCOUNT_OPTIONS: Mapping[str, type] = {"conn_id": str, "account_name": str, "endpoint": str, "protocol": str}
"""What a datastore may say of its account; each may be left out."""

_CONN_TYPES = ("wasb", "adls", "azure_fileshare", CONN_TYPE)
_SERVICES = ("blob", "dfs", "file")
_ACCOUNT_NAME = re.compile(r"[a-z0-9]{3,24}")
_EMULATOR = "devstoreaccount1"  # the one account of an emulator that was told of none; its key is public
_EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_SIGNATURE = re.compile(r"\bsig=[^&\s\"']+")


class _HideSignatures(logging.Filter):
    """Takes SAS signatures out of the request lines that the HTTP libraries log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _SIGNATURE.sub("sig=***", record.getMessage()), ()
        return True


for _library in ("httpx", "urllib3.connectionpool"):  # ours, and those of the SDKs
    logging.getLogger(_library).addFilter(_HideSignatures())


@dataclass(frozen=True, kw_only=True)
class AzureAccount:
    """A storage account, and how to sign in to it: by key, by SAS token, by an identity, or not at all.

    :param url: Address of its service, without a slash at the end: ``https://ACCOUNT.blob.core.windows.net``, or
        ``http://127.0.0.1:10000/ACCOUNT`` of an emulator.
    :param conn_id: The Airflow connection it comes from; empty for identity-based access without one.
    :param sas_token: Without a question mark.
    :param renewed_sas: Instead of ``sas_token``: one that is asked for again before it ends.
    :param make_credential: Makes the azure-identity credential.
    """

    name: str
    url: str
    conn_id: str = ""
    account_key: str = field(default="", repr=False)
    sas_token: str = field(default="", repr=False)
    renewed_sas: RenewedSas | None = field(default=None, repr=False, compare=False)
    make_credential: Callable[[], TokenCredential] | None = field(default=None, repr=False, compare=False)

    def sas(self) -> str:
        """The SAS token to use now; empty without one."""
        return self.renewed_sas() if self.renewed_sas else self.sas_token

    def token_credential(self) -> Access | None:
        """What gives tokens, for accounts with neither key nor SAS token, made at the first call; None for anonymous access too.

        It holds on to its token until shortly before that ends.
        """
        return self._access

    @property
    def sign_in(self) -> int:
        """Where tokens come from now, see :class:`.Access`; 0 without."""
        source = self.renewed_sas or self._access
        return source.sign_in if source else 0

    def renew(self, sign_in: int) -> bool:
        """Whether a request that was refused may be repeated with a new token, see :meth:`.Access.renew`."""
        source = self.renewed_sas or self._access
        return source is not None and source.renew(sign_in)

    def not_trusted(self, what: object, server: str = "") -> StorageRefused:
        """The error about a server whose certificate nobody has signed who is known here.

        :param what: The container or share that was asked for.
        :param server: Empty: the account's own.
        """
        return StorageRefused(
            f"The certificate of {server or self.url} is not trusted, so {what} was not asked: somebody stands in between, or the "
            "authority that signed it is not known here. Set the worker's environment variable SSL_CERT_FILE to a file of the "
            "certificates to trust, as PEM."
        )

    @cached_property
    def _access(self) -> Access | None:
        who = f"Account {self.name!r}" + (f", connection {self.conn_id!r}" if self.conn_id else "")
        return Access(self.make_credential, who) if self.make_credential else None


class _Address(NamedTuple):
    """What a text says of an account: its name, perhaps its address, perhaps a SAS token."""

    name: str = ""
    url: str = ""
    sas_token: str = ""


def azure_account(config: DatastoreConfig, service: Service) -> AzureAccount:
    """The account of a datastore. Nothing is asked of the network, and no secret is in its repr.

    How a connection says it, first found first taken, as in the provider's hooks: ``connection_string``; else a service
    principal (``tenant_id``, login, password), ``shared_access_key``, ``sas_token``, password as key, ``account_key``,
    and else ``DefaultAzureCredential``. The account is in ``account_url``, host or login, by name or by address of any
    of its services, or in the datastore's option ``account_name``.

    :param service: Which of the account's services to address.
    :raises InvalidConfiguration: for a connection of another type, without an account, or with another than the
        datastore's ``account_name``.
    """
    options = config.options
    named = str(options.get("account_name", "")).lower()
    connection = config.connection
    if connection is None:
        address = _Address()
        access: dict[str, Any] = {"make_credential": partial(default_credential, "", "")}
    else:
        _check_type(config, connection)
        address, access = _read(connection, service)
        if isinstance(config.sas, RenewedSas):
            access = {"renewed_sas": config.sas}
    name = address.name or named
    if named and name != named:
        raise _wrong(config, f"is for account {name!r}, the datastore's 'account_name' is {named!r}. Keep one of them")
    if not name:
        raise _wrong(
            config,
            "names no storage account. Put its name or address into the connection's host (wasb, adls) or login (wasb, "
            "azure_fileshare), or its name into the datastore's 'account_name'",
        )
    if not address.url and not _ACCOUNT_NAME.fullmatch(name):
        raise _wrong(
            config,
            f"gives {name!r} as the storage account. Allowed: its name, 3 to 24 lower-case letters and digits, or its address",
        )
    protocol, endpoint = options.get("protocol", "https"), options.get("endpoint", "core.windows.net")
    url = address.url or f"{protocol}://{name}.{service}.{endpoint}"
    if "make_credential" in access and not url.startswith("https://"):
        raise _wrong(config, f"has an identity to sign in with at {url}. Tokens are sent over https only")
    return AzureAccount(name=name, url=url, conn_id=connection.conn_id if connection else "", **access)


def obstore_options(account: AzureAccount, container: str) -> dict[str, Any]:
    """The arguments for ``obstore.store.AzureStore``; none is left to what the environment says of other accounts.

    An error of the identity reaches the caller as obstore's ``UnauthenticatedError``; what it was is in ``error`` of
    the ``credential_provider``.
    """
    options: dict[str, Any] = {
        "container_name": container,
        "account_name": account.name,
        "endpoint": account.url,
        "use_emulator": False,
        "skip_signature": False,
        "client_options": {"allow_http": account.url.startswith("http://")},
    }
    if account.account_key:
        return options | {"credential_type": "access_key", "account_key": account.account_key}
    if account.renewed_sas:
        return options | {"credential_provider": ObstoreSas(account.renewed_sas)}
    if account.sas_token:
        return options | {"credential_type": "sas_token", "sas_key": account.sas_token}
    if access := account.token_credential():
        return options | {"credential_provider": ObstoreTokens(access)}
    return options | {"skip_signature": True}


def _check_type(config: DatastoreConfig, connection: ConnectionFields) -> None:
    if connection.conn_type not in _CONN_TYPES:
        raise _wrong(config, f"is of type {connection.conn_type!r}. Allowed: {', '.join(_CONN_TYPES)}")


def _wrong(config: DatastoreConfig, what: str) -> InvalidConfiguration:
    source = f"connection {config.connection.conn_id!r}" if config.connection else "which has no 'conn_id',"
    return InvalidConfiguration(f"Datastore {config.name!r}: {source} {what}.")


def _read(connection: ConnectionFields, service: Service) -> tuple[_Address, dict[str, Any]]:
    """What a connection says: the address, and the fields of :class:`AzureAccount` for signing in."""
    if connection.conn_type == CONN_TYPE:  # its extra is the workspace's, and names no account
        return _Address(), {"make_credential": workspace_identity(connection)}
    if text := _extra(connection, "connection_string"):
        return _read_connection_string(connection, text, service)
    address = next((_address(text, service) for text in _account_texts(connection) if text), _Address())
    if tenant := _extra(connection, "tenant_id"):
        return address, {"make_credential": _service_principal(connection, tenant)}
    if text := _extra(connection, "shared_access_key"):
        return address, _key_or_sas(connection, "shared_access_key", text)
    if text := _extra(connection, "sas_token"):
        return address, _sas(connection, text)
    for name, text in (("password", connection.password), ("account_key", _extra(connection, "account_key"))):
        if text:
            return address, _key_or_sas(connection, name, text)
    if address.sas_token:
        return address, {"sas_token": address.sas_token}
    identity, tenant = (
        _extra(connection, key) for key in ("managed_identity_client_id", "workload_identity_tenant_id")
    )
    if not (identity and tenant):  # as in the provider's hooks, they count only together
        identity = tenant = ""
    return address, {"make_credential": partial(default_credential, identity, tenant)}


def _extra(connection: ConnectionFields, name: str) -> str:
    """A text of the connection's extra, also under the long name that older forms gave it."""
    extra = connection.extra
    value = extra[name] if name in extra else extra.get(f"extra__{connection.conn_type}__{name}")
    if not isinstance(value, str | None):
        raise InvalidConfiguration(
            f"Connection {connection.conn_id!r}: {name!r} must be text, found {type(value).__name__}."
        )
    return (value or "").strip()


def _account_texts(connection: ConnectionFields) -> list[str]:
    """Where the account may stand, best first. A service principal's login is its client id, never an account."""
    host, login = connection.host.strip(), connection.login.strip()
    principal = bool(_extra(connection, "tenant_id"))
    if connection.conn_type == "adls":
        return [_extra(connection, "account_url"), host]
    if principal:
        return [host]
    sas = "" if _extra(connection, "shared_access_key") else _extra(connection, "sas_token")
    names = [host, login] if connection.conn_type == "wasb" and "." in host else [login, host]
    return [sas if "://" in sas else "", *names]


def _address(text: str, service: Service) -> _Address:
    """Read an account's name, or the address of any of its services, which is made that of ``service``."""
    if not re.search(r"[.:/]", text):
        return _Address(text.lower())
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # no address, then
        return _Address(text.partition("?")[0])
    sas = parts.query if "sig" in parse_qs(parts.query) else ""
    labels = (parts.hostname or "").split(".")
    for position, label in enumerate(labels[1:], 1):
        if label in _SERVICES:
            host = ".".join([*labels[:position], service, *labels[position + 1 :]])
            return _Address(labels[0], f"{parts.scheme}://{host}{port}", sas)
    name = parts.path.strip("/").partition("/")[0].lower()  # an emulator's address: the account is a folder
    return _Address(name, f"{parts.scheme}://{'.'.join(labels)}{port}/{name}".rstrip("/"), sas)


def _read_connection_string(
    connection: ConnectionFields, text: str, service: Service
) -> tuple[_Address, dict[str, Any]]:
    pairs = [each.partition("=") for each in text.split(";") if each]
    said = {key.strip().lower(): value.strip() for key, _, value in pairs}
    if said.get("usedevelopmentstorage") == "true":
        if service != "blob":
            raise _not_whole(connection, "UseDevelopmentStorage: the emulator has no Azure Files")
        return _Address(_EMULATOR, f"http://127.0.0.1:10000/{_EMULATOR}"), {"account_key": _EMULATOR_KEY}
    name = said.get("accountname", "").lower()
    address = next(_endpoints(said, service), _Address())
    if not name and not address.url:
        raise _not_whole(connection, f"no AccountName and no {service.title()}Endpoint")
    if not address.url:
        protocol = said.get("defaultendpointsprotocol", "https")
        address = _Address(name, f"{protocol}://{name}.{service}.{said.get('endpointsuffix', 'core.windows.net')}")
    access: dict[str, Any] = {}
    if key := said.get("accountkey"):
        access = _key_or_sas(connection, "AccountKey", key)
    elif sas := said.get("sharedaccesssignature") or address.sas_token:
        access = _sas(connection, sas)
    return address._replace(name=name or address.name), access


def _endpoints(said: Mapping[str, str], service: Service) -> Iterator[_Address]:
    """Addresses that a connection string gives for a service: its own, or that of a sister whose host differs in one word."""
    for each in dict.fromkeys((service, *_SERVICES)):
        if text := said.get(f"{each}endpoint"):
            address = _address(text, service)
            if each == service or f".{service}." in address.url:
                yield address


def _not_whole(connection: ConnectionFields, what: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"Connection {connection.conn_id!r}: 'connection_string' has {what}. Copy the whole string from the storage account's "
        "page 'Access keys': DefaultEndpointsProtocol=https;AccountName=...;AccountKey=...;EndpointSuffix=core.windows.net."
    )


def _key_or_sas(connection: ConnectionFields, name: str, text: str) -> dict[str, Any]:
    if "sig" in parse_qs(text.partition("?")[2] or text):  # the SDK takes a SAS token in place of a key
        return _sas(connection, text)
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidConfiguration(
            f"Connection {connection.conn_id!r}: {name!r} is neither an account key (base64) nor a SAS token. For the "
            "secret of a service principal, give 'tenant_id' too."
        ) from None
    return {"account_key": text}


def _sas(connection: ConnectionFields, text: str) -> dict[str, Any]:
    token = text.partition("?")[2] if "?" in text else text
    if "sig" not in parse_qs(token):
        raise InvalidConfiguration(
            f"Connection {connection.conn_id!r}: 'sas_token' holds no signature (sig=...). Allowed: a SAS token, with or "
            "without '?', or an address that ends with one."
        )
    return {"sas_token": token}


def _service_principal(connection: ConnectionFields, tenant: str) -> Callable[[], TokenCredential]:
    for name, value in (("login", connection.login), ("password", connection.password)):
        if not value:
            raise InvalidConfiguration(
                f"Connection {connection.conn_id!r} has 'tenant_id' and no {name}. A service principal has its client id as "
                "login and its client secret as password."
            )
    extra = connection.extra
    more = dict(extra.get("client_secret_auth_config") or {})
    if extra.get("proxies"):
        more.setdefault("proxies", extra["proxies"])
    return partial(client_secret, tenant, connection.login, connection.password, more)
