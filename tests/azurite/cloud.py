"""Azure, as far as the tests need it, under its real host names: storage, the service that issues tokens, and the way to both.

Nothing of ours or of Azure's needs to know: a proxy leads every connection to a server on this machine, and refuses others.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.azurite import Azurite, running_azurite
from tests.azurite.certificates import Certificates
from tests.azurite.login import Login, running_login


@dataclass(frozen=True)
class Cloud:
    """The servers that run.

    :param azurite: Speaks https, and takes tokens.
    :param refused: Addresses that somebody wanted to reach and that are not part of it.
    """

    azurite: Azurite
    login: Login
    certificates: Certificates
    proxy_url: str
    refused: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be in it."""
        return self.certificates.environment | {"HTTPS_PROXY": self.proxy_url, "NO_PROXY": "127.0.0.1,localhost"}


@contextmanager
def running_cloud(folder: Path) -> Iterator[Cloud]:
    """A cloud of its own.

    :param folder: For its certificates.
    """
    certificates = Certificates.make(folder)
    refused: list[str] = []
    with running_azurite(certificates) as azurite, running_login(certificates) as login:
        routes = {
            f"{account}.{each}.core.windows.net:443": azurite.url
            for account in azurite.keys
            for each in ("blob", "dfs")
        }
        with running_proxy(routes | {"login.microsoftonline.com:443": login.url}, refused) as proxy_url:
            yield Cloud(azurite, login, certificates, proxy_url, refused)


@contextmanager
def running_proxy(routes: Mapping[str, str], refused: list[str]) -> Iterator[str]:
    """The way to servers of this machine under other names.

    :param routes: Host and port to a server's address.
    :param refused: Gets every request for another host.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            method, target, *_ = self.rfile.readline().decode("latin-1").split() or ("", "")
            while self.rfile.readline().strip():
                pass
            if method != "CONNECT" or target not in routes:
                refused.append(f"{method} {target}")
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            to = urlsplit(routes[target])
            with socket.create_connection((str(to.hostname), int(to.port or 443))) as upstream:
                for each in (self.connection, upstream):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(upstream, self.connection), daemon=True)
                back.start()
                _pump(self.connection, upstream)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either end may hang up
        while content := source.recv(65536):
            target.sendall(content)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
