"""A blob server for benches on this machine: one process with uvloop, blobs in memory, http or https, with latency if asked.

A client reaches it at ``http://127.0.0.1:PORT/bench/CONTAINER/BLOB``, with whatever credentials. Azurite answers some 700
requests a second, so that every client looks alike on it; what this one could do is printed beside what clients got from it.
"""

import argparse
import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import uvloop

from dev.bench.blob_calls import Account, Buffer, Request
from dev.bench.retention_data import FILE_BYTES, stored_outputs

ACCOUNT = "bench"
_HEAD_BYTES = 64 * 1024
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(64 << 20)}
"""Settings of the C library: what a deleted blob leaves is used again, for memory fresh from the system takes 4 s a GiB."""


class Server(NamedTuple):
    """A running server.

    :param url: The address of its account.
    """

    url: str
    process_id: int


class Stored(NamedTuple):
    """Outputs that a server has in each of some containers; see :func:`.stored_outputs`."""

    containers: Sequence[str]
    outputs: int
    files: int
    etag: str

    def blobs(self) -> Iterator[tuple[str, Buffer]]:
        content = b"x" * FILE_BYTES
        for each in stored_outputs(self.outputs, self.files, self.etag):
            yield from ((path, content) for path in each.files)
            yield each.manifest_path, each.manifest


class Connection(asyncio.BufferedProtocol):
    """Reads requests, one after the other, bodies straight into the memory they stay in.

    :param latency_seconds: How long after its request an answer is sent.
    """

    def __init__(self, account: Account, latency_seconds: float) -> None:
        self._account, self._latency_seconds = account, latency_seconds
        self._heads = bytearray(_HEAD_BYTES)
        self._filled = 0
        self._request: Request | None = None
        self._body = bytearray()
        self._missing = memoryview(b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._missing if self._request else memoryview(self._heads)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._request:
            self._missing = self._missing[nbytes:]
            if not self._missing:
                self._answer(self._request, self._body)
            return
        self._filled += nbytes
        taken = 0
        while not self._request and (end := self._heads.find(b"\r\n\r\n", taken, self._filled)) >= 0:
            request = Request.parse(self._heads[taken:end].decode("latin-1"))
            taken = self._begin(request, end + 4)
        self._heads[: self._filled - taken] = self._heads[taken : self._filled]
        self._filled -= taken

    def _begin(self, request: Request, start: int) -> int:
        """Take what has come of a request's body; give where that ends."""
        length = int(request.headers.get("content-length") or 0)
        end = min(start + length, self._filled)
        if end - start == length:
            self._answer(request, bytes(self._heads[start:end]))
            return end
        self._body = bytearray(length)
        self._body[: end - start] = self._heads[start:end]
        self._missing = memoryview(self._body)[end - start :]
        self._request = request
        if "expect" in request.headers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return end

    def _answer(self, request: Request, body: Buffer) -> None:
        self._request = None
        answer = self._account.answer(request, body)
        pieces: list[Buffer] = [answer.head(), *(() if request.method == "HEAD" else answer.body)]
        if self._latency_seconds:
            asyncio.get_running_loop().call_later(self._latency_seconds, self._send, pieces, request)
        else:
            self._send(pieces, request)

    def _send(self, pieces: Sequence[Buffer], request: Request) -> None:
        self._transport.writelines(pieces)
        if request.headers.get("connection") == "close":
            self._transport.close()


@contextmanager
def running_server(
    latency_ms: float = 0, certificate: Path | None = None, memory_bytes: int = 0, stored: Stored | None = None
) -> Iterator[Server]:
    """A server of its own on a free port.

    :param certificate: A PEM file with its key and certificate; None: plain http.
    :param stored: What is in it from the beginning.
    :param memory_bytes: How much memory it takes from the system before it answers, so that no client has to wait for that.
    """
    command = [sys.executable, "-m", "dev.bench.blob_server", "--latency-ms", str(latency_ms)]
    command += ["--memory-bytes", str(memory_bytes)]
    command += ["--certificate", str(certificate)] if certificate else []
    if stored:
        numbers = ["--outputs", str(stored.outputs), "--files", str(stored.files)]
        command += [*numbers, "--etag", stored.etag, "--fill", *stored.containers]
    process = subprocess.Popen(command, env=os.environ | _KEEP_MEMORY, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"The blob server ended with exit code {process.wait()}.")
        yield Server(f"{'https' if certificate else 'http'}://127.0.0.1:{port}/{ACCOUNT}", process.pid)
    finally:
        process.kill()
        process.wait()


def take_memory(size_bytes: int) -> None:
    """Touch each page, and leave it to those who ask for memory next."""
    block = b"x" * (1 << 20)
    for taken in [bytearray(block) for _ in range(size_bytes >> 20)]:
        taken.clear()


async def serve(latency_ms: float, certificate: str | None, stored: Stored) -> None:
    """Serve until killed; print the port first."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if certificate else None
    if context and certificate:
        context.load_cert_chain(certificate)
    account = Account()
    for each in stored.containers:
        account.fill(each, stored.blobs(), stored.etag)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(account, latency_ms / 1000), "127.0.0.1", 0, ssl=context, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--certificate")
    parser.add_argument("--memory-bytes", type=int, default=0)
    parser.add_argument("--fill", nargs="*", default=[])
    parser.add_argument("--outputs", type=int, default=0)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--etag", default="0x1")
    options = parser.parse_args()
    stored = Stored(options.fill, options.outputs, options.files, options.etag)
    take_memory(options.memory_bytes)
    uvloop.run(serve(options.latency_ms, options.certificate, stored))


if __name__ == "__main__":
    main()
