"""What the core's tests read from besides a workspace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.web_server import WebServer, web_server


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server on this machine, with nothing on it."""
    with web_server() as server:
        yield server
