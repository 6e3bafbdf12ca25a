"""How fast :mod:`.blob_server` is: a client that sends all requests at once, and neither reads answers nor writes files."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

_CONNECTIONS = 4
_RANGE = 8 << 20
_HEAD = "Host: bench\r\nUser-Agent: limit\r\nx-ms-version: 2021-12-02\r\nAuthorization: SharedKey bench:0000\r\nAccept: */*\r\n"


def limits(url: str, sizes: Sequence[int]) -> dict[str, float]:
    """The seconds in which a server sends and takes files of these sizes; large ones in ranges and blocks of 8 MiB."""
    pieces = [min(_RANGE, size - start) for size in sizes for start in range(0, size, _RANGE)]
    content = bytes(min(max(sizes), _RANGE))
    _exchange(url, [("PUT", "?restype=container", "", b"")])
    found = {
        "up": _seconds(url, [("PUT", f"/{number}", "", content[:size]) for number, size in enumerate(pieces)]),
        "down": _seconds(
            url, [("GET", f"/{number}", f"Range: bytes=0-{size - 1}\r\n", b"") for number, size in enumerate(pieces)]
        ),
    }
    _exchange(url, [("DELETE", "?restype=container", "", b"")])
    return found


_Call = tuple[str, str, str, bytes]


def _seconds(url: str, calls: Sequence[_Call]) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        moved = sum(pool.map(lambda number: _exchange(url, calls[number::_CONNECTIONS]), range(_CONNECTIONS)))
    seconds = time.perf_counter() - start
    if moved < sum(len(body) or int(header.rpartition("-")[2]) for _, _, header, body in calls):
        raise RuntimeError("the blob server has not sent all it was asked for")
    return seconds


def _exchange(url: str, calls: Sequence[_Call]) -> int:
    """Make calls on a connection of their own; give how many bytes went to and fro."""
    address = urlsplit(url)
    buffer = bytearray(1 << 20)
    moved = 0
    with socket.create_connection((address.hostname, address.port)) as connection:
        for number, (method, place, header, body) in enumerate(calls, 1):
            close = "Connection: close\r\n" if number == len(calls) else ""
            head = f"{method} {address.path}/limit{place} HTTP/1.1\r\n{_HEAD}{header}{close}Content-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode())
            connection.sendall(body)
            moved += len(body)
        while size := connection.recv_into(buffer):
            moved += size
    return moved
