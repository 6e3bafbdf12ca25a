"""A reverse proxy in front of a store over plain HTTP that breaks what passes through it, as told, and notes it down."""

from __future__ import annotations

import asyncio
import base64
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal, get_args
from urllib.parse import urlsplit

Fault = Literal[
    "busy",  # 503 ServerBusy, which says nothing about when to come back
    "busy_for_a_while",  # 503 ServerBusy with Retry-After
    "throttled",  # 429 with Retry-After
    "reset_before",  # the connection is reset, the server knows nothing of the request
    "reset_after",  # the server has done what was asked, the client never hears of it
    "half_response",
    "half_request",  # the server gets half of the body, then the connection ends
    "slow_response",
    "slow_request",
    "corrupt_response",  # one byte of the body is another
    "corrupt_request",
    "wrong_md5",  # in the headers of the response, where there is one
]
FAULTS: tuple[Fault, ...] = get_args(Fault)

_MD5_HEADERS = {"content-md5", "x-ms-blob-content-md5"}
_SIGNATURE = re.compile(r"[?&](sig|se|st)=[^&]*")  # another each time
_ERROR = '<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>Injected.</Message></Error>'


@dataclass(slots=True)
class Request:
    """A request as it arrived.

    :param at: When, in seconds of the monotonic clock.
    :param times: How often this very request came before.
    :param fault: What was done to it; None: nothing, or its body was empty and the fault one of bodies.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    at: float = field(repr=False)
    times: int
    fault: Fault | None = None


Decide = Callable[[Request], Fault | None]
"""What to do to a request."""


def no_fault(request: Request) -> None:
    """Let everything pass."""


def random_faults(seed: int, rates: Mapping[Fault, float]) -> Decide:
    """Faults at random: the same for the same requests, in whatever order parallel ones arrive.

    :param rates: Share of the requests that gets each.
    """

    def decide(request: Request) -> Fault | None:
        target = _SIGNATURE.sub("", request.target)
        key = (seed, request.method, target, request.headers.get("range"), request.times)
        chosen = random.Random(repr(key)).choices([None, *rates], [1 - sum(rates.values()), *rates.values()])
        return chosen[0]

    return decide


@dataclass
class FaultProxy:
    """A running proxy.

    :param target: Address of the server, ``http://HOST:PORT``.
    :param decide: May be changed at any time.
    :param retry_after: Seconds, as the header says them.
    :param slow: Bytes at a time, and seconds between them.
    :param requests: Every request so far, oldest first.
    """

    target: str
    decide: Decide = no_fault
    retry_after: str = "0"
    slow: tuple[int, float] = (16 * 1024, 0.01)
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    _seen: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)

    @property
    def injected(self) -> Counter[str]:
        """How often each fault was."""
        return Counter(each.fault for each in self.requests if each.fault)

    async def serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        """Handle the requests of one connection."""
        upstream = _Upstream(self.target)
        try:
            while await self._one(client, answer, upstream):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either side has gone, or the proxy ends
        finally:
            upstream.close()
            answer.close()

    async def _one(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter, upstream: _Upstream) -> bool:
        """Handle one request; False when the connection is to end."""
        start, headers = await _read_head(client)
        request = self._note(start, headers)
        fault = self.decide(request)
        slow = self.slow if fault == "slow_request" else None
        if fault == "reset_before":
            request.fault = fault
            return _reset(answer)
        body = await _read_body(client, headers, slow)
        if fault in ("busy", "busy_for_a_while", "throttled"):
            request.fault = fault
            await self._refuse(answer, fault, request.method)
            return True
        if body and fault in ("half_request", "slow_request", "corrupt_request"):
            request.fault = fault
        if request.fault == "half_request":
            await upstream.send(start, headers, body, len(body) // 2)
            upstream.close()
            return _reset(answer)
        if request.fault == "corrupt_request":
            body = _corrupt(body, request)
        await upstream.send(start, headers, body)
        status, answered, content = await upstream.receive(request.method)
        if fault == "reset_after":
            request.fault = fault
            return _reset(answer)
        return await self._answer(answer, request, fault, status, answered, content)

    async def _answer(
        self,
        answer: asyncio.StreamWriter,
        request: Request,
        fault: Fault | None,
        status: str,
        headers: dict[str, str],
        content: bytes,
    ) -> bool:
        if (content and fault in ("half_response", "slow_response", "corrupt_response")) or (
            fault == "wrong_md5" and _MD5_HEADERS & headers.keys()
        ):
            request.fault = fault
        if request.fault == "corrupt_response":
            content = _corrupt(content, request)
        if request.fault == "wrong_md5":
            headers |= dict.fromkeys(_MD5_HEADERS & headers.keys(), base64.b64encode(bytes(16)).decode())
        answer.write(_head(status, headers))
        if request.fault == "half_response":
            answer.write(content[: len(content) // 2])
            await answer.drain()
            return False
        piece, pause = self.slow if request.fault == "slow_response" else (len(content) or 1, 0)
        for at in range(0, len(content), piece):
            answer.write(content[at : at + piece])
            await answer.drain()
            await asyncio.sleep(pause)
        return True

    def _note(self, start: str, headers: Mapping[str, str]) -> Request:
        method, target, _ = start.split(" ")
        same = (method, target, headers.get("range"))
        request = Request(method, target, headers, monotonic(), self._seen[same])
        self._seen[same] += 1
        self.requests.append(request)
        return request

    async def _refuse(self, answer: asyncio.StreamWriter, fault: Fault, method: str) -> None:
        status, code = (
            ("429 Too Many Requests", "TooManyRequests") if fault == "throttled" else ("503 Busy", "ServerBusy")
        )
        content = _ERROR.format(code=code).encode()
        headers = {"content-type": "application/xml", "content-length": str(len(content)), "x-ms-error-code": code}
        if fault != "busy":
            headers["retry-after"] = self.retry_after
        answer.write(_head(f"HTTP/1.1 {status}", headers) + (b"" if method == "HEAD" else content))
        await answer.drain()


class _Upstream:
    """A connection to the server, made when it is needed."""

    def __init__(self, target: str) -> None:
        self._address = urlsplit(target)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, start: str, headers: Mapping[str, str], body: bytes, length: int | None = None) -> None:
        if not self._streams:
            self._streams = await asyncio.open_connection(self._address.hostname, self._address.port)
        self._streams[1].write(_head(start, headers) + body[:length])
        await self._streams[1].drain()

    async def receive(self, method: str) -> tuple[str, dict[str, str], bytes]:
        """Status line, headers and whole body; a body in chunks is made one of a known length."""
        assert self._streams
        status, headers = await _read_head(self._streams[0])
        bodiless = method == "HEAD" or status.split(" ")[1] in ("204", "304")
        content = b"" if bodiless else await _read_body(self._streams[0], headers)
        if headers.pop("transfer-encoding", None):
            headers["content-length"] = str(len(content))
        if headers.get("connection") == "close":
            self.close()
        return status, headers, content

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
        self._streams = None


def _head(start: str, headers: Mapping[str, str]) -> bytes:
    return "\r\n".join([start, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode("latin-1")


async def _read_head(stream: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    start, *lines = (await stream.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
    return start, {name.lower(): value for name, value in (each.split(": ", 1) for each in lines if ": " in each)}


async def _read_body(
    stream: asyncio.StreamReader, headers: Mapping[str, str], slow: tuple[int, float] | None = None
) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return b"".join([each async for each in _chunks(stream)])
    left = int(headers.get("content-length", 0))
    piece, pause = slow or (left, 0)
    content = bytearray()
    while left:
        content += await stream.readexactly(min(piece, left))
        left = int(headers["content-length"]) - len(content)
        await asyncio.sleep(pause)
    return bytes(content)


async def _chunks(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await stream.readline()).partition(b";")[0], 16):
        yield await stream.readexactly(size)
        await stream.readline()
    await stream.readline()


def _corrupt(content: bytes, request: Request) -> bytes:
    chance = random.Random(repr((request.method, request.target, request.times)))
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def _reset(stream: asyncio.StreamWriter) -> bool:
    linger = struct.pack("ii", 1, 0)
    stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    stream.transport.abort()
    return False


@contextmanager
def fault_proxy(target: str, decide: Decide = no_fault) -> Iterator[FaultProxy]:
    """A proxy on a free port, in a thread of its own."""
    proxy = FaultProxy(target, decide)
    started: Future[Callable[[], object]] = Future()

    async def main() -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 20)
        proxy.url = "http://{}:{}".format(*server.sockets[0].getsockname())
        started.set_result(lambda: loop.call_soon_threadsafe(stopped.set))
        await stopped.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="fault-proxy", daemon=True)
    thread.start()
    stop = started.result()
    try:
        yield proxy
    finally:
        stop()
        thread.join()
