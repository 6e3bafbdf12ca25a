"""Where the configuration of a workspace and the credentials of its datastores come from.

Airflow keeps them in connections, which this side of the package may not read. The package's
``__init__`` therefore puts the readers here, and :mod:`.connect` calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_aml_data.errors import InvalidConfiguration

DEFAULT_CONN_ID = "azureml_default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFields:
    """What an Airflow connection holds; its repr has nothing that may hold a credential, as an address with a SAS token does.

    :param extra: The connection's extra, as JSON says it.
    """

    conn_id: str
    conn_type: str
    host: str = field(default="", repr=False)
    login: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


Source = Callable[[str], Mapping[str, Any] | None]
"""Connection id to the workspace's configuration, or None when there is no such connection."""

Reader = Callable[[str], ConnectionFields]
"""Connection id to the connection.

:raises InvalidConfiguration: when there is none.
"""


def _nowhere(conn_id: str) -> Mapping[str, Any] | None:
    return None


def unreadable(conn_id: str) -> ConnectionFields:
    """The reader where Airflow is not."""
    raise InvalidConfiguration(
        f"Airflow connection {conn_id!r} cannot be read here: only the worker reads connections. Name it in 'datastores' of the "
        "workspace's connection, so that steps are started with it."
    )


source: Source = _nowhere
reader: Reader = unreadable
