"""What the core's tests read from besides a workspace."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.connect import ConnectedWorkspace
from tests.core.steps import Steps
from tests.core.web_server import WebServer, web_server


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server on this machine, with nothing on it."""
    with web_server() as server:
        yield server


class Calendar:
    """The catalog's clock, days after now."""

    def __init__(self) -> None:
        self.days = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=self.days)


@pytest.fixture
def calendar(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> Calendar:
    calendar = Calendar()
    catalog = Catalog(steps.connected.config.catalog_connection_string, now=calendar)
    monkeypatch.setattr(ConnectedWorkspace, "catalog", property(lambda _: catalog))
    return calendar
