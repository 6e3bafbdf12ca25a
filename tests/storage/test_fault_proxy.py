"""The fault proxy does to requests and answers what it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobClient

from tests.azurite import Azurite
from tests.storage.fault_proxy import FAULTS, Fault, FaultProxy, Request, fault_proxy, random_faults

pytestmark = pytest.mark.slow

CONTENT = b"content" * 1000
REFUSED: set[Fault] = {"busy", "busy_for_a_while", "throttled", "reset_before"}


@pytest.fixture(scope="module")
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    azurite.create_container("proxied")
    with fault_proxy(azurite.url) as running:
        yield running


def client(url: str, azurite: Azurite, blob: str) -> BlobClient:
    connection = azurite.connection_string().replace(azurite.url, url)
    return BlobClient.from_connection_string(connection, "proxied", blob, retry_total=0)


def attempt(request: object) -> object:
    try:
        return request()
    except AzureError as error:
        return error


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_is_broken_as_told(fault: Fault, azurite: Azurite, proxy: FaultProxy) -> None:
    direct = client(azurite.url, azurite, fault)
    proxy.decide = lambda request: fault

    outcome = attempt(lambda: client(proxy.url, azurite, fault).upload_blob(CONTENT))

    fails = fault in REFUSED | {"reset_after", "half_request"}
    assert isinstance(outcome, AzureError) == fails
    assert direct.exists() == (fault not in REFUSED | {"half_request"})
    if direct.exists():
        assert (direct.download_blob().readall() == CONTENT) == (fault != "corrupt_request")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_read_is_broken_as_told(fault: Fault, azurite: Azurite, proxy: FaultProxy) -> None:
    direct = client(azurite.url, azurite, f"read-{fault}")
    direct.upload_blob(CONTENT)
    proxy.decide = lambda request: fault if not request.times else None

    response = attempt(lambda: client(proxy.url, azurite, f"read-{fault}").download_blob())
    outcome = response if isinstance(response, AzureError) else response.readall()

    seen = proxy.requests[-1] if fault != "half_response" else next(r for r in proxy.requests if r.fault == fault)
    assert seen.fault == (None if fault.endswith("_request") else fault)
    assert isinstance(outcome, AzureError) == (fault in REFUSED | {"reset_after"})
    if isinstance(outcome, bytes):
        assert (outcome == CONTENT) == (fault != "corrupt_response")


def test_the_same_requests_get_the_same_faults_in_any_order() -> None:
    requests = [Request("GET", f"/{number}", {}, 0.0, times) for number in range(200) for times in range(3)]
    decide, again = (
        random_faults(7, {"busy": 0.2, "reset_after": 0.1}),
        random_faults(7, {"busy": 0.2, "reset_after": 0.1}),
    )

    faults = [decide(each) for each in requests]

    assert faults == [again(each) for each in reversed(requests)][::-1]
    assert 80 < faults.count("busy") < 160
    assert 30 < faults.count("reset_after") < 90
    assert faults != [random_faults(8, {"busy": 0.2, "reset_after": 0.1})(each) for each in requests]
