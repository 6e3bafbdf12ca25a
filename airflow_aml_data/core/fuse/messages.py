"""The messages between Linux and a file system in user space, as the kernel's ``linux/fuse.h`` defines them (protocol 7.31)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

LARGEST = 1024 * 1024
"""Bytes that one read or write moves at most."""

BUFFER = LARGEST + 4096
"""What a buffer for a request has to hold."""

ROOT = 1
"""The number of the root folder."""

_FOREVER = 1 << 30
"""Seconds for which the kernel may trust what it was told: nobody but itself changes a step's mount."""

_HEADER = struct.Struct("<IIQQIIIHxx")  # length, operation, id, node, user, group, process, extensions
_REPLY = struct.Struct("<IiQ")  # length, minus errno, id
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")
_ATTRIBUTES_VALID = struct.Struct("<QII")
_OPENED = struct.Struct("<QIi")
_INIT_OUT = struct.Struct("<IIIIHHIIHHIIH22x")
_STATFS = struct.Struct("<QQQQQIIII24x")
_DIRENT = struct.Struct("<QQII")


class Op(IntEnum):
    """What the kernel asks for; what is missing here is answered with ENOSYS, and it finds another way."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44
    RENAME2 = 45


UNANSWERED = frozenset({Op.FORGET, Op.BATCH_FORGET})

# Flags of INIT.
_ASYNC_READ, _ATOMIC_O_TRUNC, _BIG_WRITES, _READDIRPLUS = 1 << 0, 1 << 3, 1 << 5, 1 << 13
_PARALLEL_DIROPS, _MAX_PAGES, _CACHE_SYMLINKS = 1 << 18, 1 << 22, 1 << 23
_WANTED = _ASYNC_READ | _ATOMIC_O_TRUNC | _BIG_WRITES | _READDIRPLUS | _PARALLEL_DIROPS | _MAX_PAGES | _CACHE_SYMLINKS

# Flags of OPEN and OPENDIR.
_KEEP_CACHE, _CACHE_DIR, _NO_FLUSH = 1 << 1, 1 << 3, 1 << 5

# What SETATTR sets.
SET_MODE, SET_SIZE, SET_MTIME, SET_MTIME_NOW, SET_HANDLE = 1 << 0, 1 << 3, 1 << 5, 1 << 8, 1 << 6

WRITE_CACHE = 1
"""Flag of WRITE: pages of a mapped file, and nobody knows who changed them."""


class Request(NamedTuple):
    """One request.

    :param node: The file or folder it is about; for a name, the folder that holds it.
    :param process: The thread that asks; 0 for the kernel.
    :param body: What the operation is given; it is overwritten by the next request of this thread.
    """

    operation: int
    id: int
    node: int
    process: int
    body: memoryview

    @classmethod
    def parse(cls, message: memoryview) -> Request:
        _, operation, identity, node, _, _, process, _ = _HEADER.unpack_from(message)
        return cls(operation, identity, node, process, message[_HEADER.size :])

    def name(self, skip: int = 0) -> str:
        """The name after the first ``skip`` bytes."""
        return self.names(skip)[0]

    def names(self, skip: int = 0) -> list[str]:
        """The names after the first ``skip`` bytes."""
        return [each.decode("utf-8", "surrogateescape") for each in bytes(self.body[skip:]).split(b"\0")]

    def fields(self, layout: str) -> tuple[int, ...]:
        return struct.unpack_from(layout, self.body)


class Attributes(NamedTuple):
    """What ``stat`` shows."""

    number: int
    mode: int
    size_bytes: int
    links: int
    modified: float


Parts = Sequence[bytes | bytearray | memoryview]
"""What is sent, one after the other."""


def reply(request: Request, parts: Parts) -> Parts:
    return [_REPLY.pack(_REPLY.size + sum(map(len, parts)), 0, request.id), *parts]


def refusal(request: Request, code: int | None) -> Parts:
    return [_REPLY.pack(_REPLY.size, -(code or errno.EIO), request.id)]


def initialised(request: Request) -> bytes:
    """The answer to INIT: of what the kernel offers, what this file system makes use of."""
    _, _, _, offered = request.fields("<IIII")
    background, congested = 64, 48
    pages = LARGEST // 4096
    return _INIT_OUT.pack(7, 31, LARGEST, offered & _WANTED, background, congested, LARGEST, 1, pages, 0, 0, 0, 0)


def attributes(found: Attributes) -> bytes:
    return _ATTRIBUTES_VALID.pack(_FOREVER, 0, 0) + _attributes(found)


def entry(found: Attributes) -> bytes:
    """A name that was looked up or made."""
    return _ENTRY.pack(found.number, 0, _FOREVER, _FOREVER, 0, 0) + _attributes(found)


def absent() -> bytes:
    """No such name, which the kernel remembers."""
    return _ENTRY.pack(0, 0, _FOREVER, 0, 0, 0) + bytes(_ATTRIBUTES.size)


def opened(handle: int, *, is_read: bool = False) -> bytes:
    """An open file or folder.

    :param is_read: Nothing has to be done when it is closed.
    """
    return _OPENED.pack(handle, _KEEP_CACHE | _CACHE_DIR | (_NO_FLUSH if is_read else 0), 0)


def written(size_bytes: int) -> bytes:
    return struct.pack("<II", size_bytes, 0)


def listed(name: str, offset: int, found: Attributes) -> bytes:
    """One name of a folder. The kernel asks for more from the offset of the last one on."""
    raw = name.encode("utf-8", "surrogateescape")
    dirent = _DIRENT.pack(found.number, offset, len(raw), found.mode >> 12) + raw
    return entry(found) + dirent + bytes(-len(dirent) % 8)


def space(block_bytes: int, blocks: int, free: int, available: int) -> bytes:
    """The answer to STATFS."""
    return _STATFS.pack(blocks, free, available, 1 << 30, 1 << 29, block_bytes, 255, block_bytes, 0)


def _attributes(found: Attributes) -> bytes:
    seconds, nanoseconds = divmod(int(found.modified * 1e9), 10**9)
    size = found.size_bytes
    return _ATTRIBUTES.pack(
        *(found.number, size, -(-size // 512), seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds),
        *(found.mode, found.links, os.getuid(), os.getgid(), 0, 4096, 0),
    )
