"""Where the configuration of a workspace comes from.

Airflow keeps it in connections, which this side of the package may not read. The package's
``__init__`` therefore puts the reader here, and :mod:`.connect` calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DEFAULT_CONN_ID = "azureml_default"

Source = Callable[[str], Mapping[str, Any] | None]
"""Connection id to the workspace's configuration, or None when there is no such connection."""


def _nowhere(conn_id: str) -> Mapping[str, Any] | None:
    return None


source: Source = _nowhere
