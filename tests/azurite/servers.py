"""Servers over TLS on this machine, and the answers of Azure's control plane that are refusals."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.azurite.certificates import Certificates

CLOUDS = {
    "management.azure.com": ("login.microsoftonline.com", "https://management.azure.com/.default"),
    "management.usgovcloudapi.net": (
        "login.microsoftonline.us",
        "https://management.core.usgovcloudapi.net/.default",
    ),
    "management.chinacloudapi.cn": ("login.chinacloudapi.cn", "https://management.chinacloudapi.cn/.default"),
}
"""Host of a control plane to the service that issues its tokens, and the scope they are asked for."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request.

    :param url: Path and query.
    :param token: The bearer token; empty without one.
    """

    host: str
    method: str
    url: str
    token: str = field(repr=False)
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is answered; no content: an empty body."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An answer that is none, in the form that all of Azure's control plane has for them."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(status, code, message)
        self.answer = Answer({"error": {"code": code, "message": message, **more}}, status, headers or {})


@contextmanager
def running_json_server(certificates: Certificates, answer: Callable[[Asked], Answer]) -> Iterator[str]:
    """The address of a server, on a free port of this machine, that gives these answers."""

    class Handler(_JsonHandler):
        """Of this server alone."""

    Handler.answer = staticmethod(answer)
    with running_server(certificates, Handler) as url:
        yield url


@contextmanager
def running_server(certificates: Certificates, handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server, on a free port of this machine, whose requests these handlers take."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert_file, certificates.key_file)
    with _Server(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _JsonHandler(BaseHTTPRequestHandler):
    answer: Callable[[Asked], Answer]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        asked = Asked(
            host=self.headers["Host"].removesuffix(":443"),
            method=self.command,
            url=self.path,
            token=token if kind == "Bearer" else "",
            body=body,
        )
        try:
            answer = type(self).answer(asked)
        except Refusal as refusal:
            answer = refusal.answer
        content = b"" if answer.content is None else json.dumps(answer.content).encode()
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **answer.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_any  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""
