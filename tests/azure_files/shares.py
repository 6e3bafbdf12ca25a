"""The shares of the double: directories, files, and the rules for both."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

_REFUSED = re.compile(r'[\x00-\x1f\\:|<>*?"]|^$|^.{256}')


class Failure(Exception):
    """An answer with an error."""

    def __init__(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, code)
        self.status, self.code, self.headers = status, code, headers or {}


@dataclass
class Entry:
    """A directory (no content) or a file.

    :param pending: How often to say that the copy has not ended.
    """

    path: str
    content: bytearray | None = None
    md5: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    etag: str = ""
    modified: datetime = datetime.min
    copied: bool = False
    pending: int = 0

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class Shares:
    """What all accounts hold; every call is one step for the others. Names are equal whatever their case."""

    def __init__(self) -> None:
        self._shares: dict[tuple[str, str], dict[str, Entry]] = {}
        self._versions = itertools.count(1)
        self.lock = threading.RLock()
        self.failures: list[tuple[str, str, Failure]] = []
        self.slow_copies = 0
        self.refuse_copies = False

    def create_share(self, account: str, share: str) -> None:
        if (account, share) in self._shares:
            raise Failure(409, "ShareAlreadyExists")
        self._shares[account, share] = {"": Entry("")}

    def share(self, account: str, share: str) -> dict[str, Entry]:
        if (account, share) not in self._shares:
            raise Failure(404, "ShareNotFound")
        return self._shares[account, share]

    def find(self, account: str, share: str, path: str, *, directory: bool = False) -> Entry:
        entries = self.share(account, share)
        entry = entries.get(path.lower())
        if entry is None:
            parent = path.rpartition("/")[0].lower()
            raise Failure(404, "ResourceNotFound" if parent in entries else "ParentNotFound")
        if (entry.content is None) != directory:
            raise Failure(409, "ResourceTypeMismatch")
        return entry

    def put(self, account: str, share: str, entry: Entry, *, replaces: bool) -> Entry:
        """Create a directory or file, whose parent must be there."""
        entries = self.share(account, share)
        for segment in entry.path.split("/"):
            if _REFUSED.search(segment):
                raise Failure(400, "InvalidResourceName")
        parent = entries.get(entry.path.rpartition("/")[0].lower())
        if parent is None or parent.content is not None:
            raise Failure(404, "ParentNotFound")
        old = entries.get(entry.path.lower())
        if old is not None and ((old.content is None) != (entry.content is None)):
            raise Failure(409, "ResourceTypeMismatch")
        if old is not None and not replaces:
            raise Failure(409, "ResourceAlreadyExists")
        entries[entry.path.lower()] = entry
        return self.touch(entry)

    def touch(self, entry: Entry) -> Entry:
        entry.etag, entry.modified = f'"0x8D{next(self._versions):012X}"', datetime.now(UTC)
        return entry

    def write(self, entry: Entry, start: int, content: bytes) -> None:
        if entry.content is None or start + len(content) > len(entry.content):
            raise Failure(416, "InvalidRange")
        entry.content[start : start + len(content)] = content
        self.touch(entry)

    def delete(self, account: str, share: str, path: str, *, directory: bool) -> None:
        entry = self.find(account, share, path, directory=directory)
        if directory and next(self.children(account, share, path), None):
            raise Failure(409, "DirectoryNotEmpty")
        del self.share(account, share)[entry.path.lower()]

    def children(self, account: str, share: str, path: str) -> Iterator[Entry]:
        for key, entry in sorted(self.share(account, share).items()):
            if key and key.rpartition("/")[0] == path.lower():
                yield entry

    def copy(self, account: str, share: str, path: str, source: Entry, metadata: dict[str, str]) -> Entry:
        target = replace(
            source,
            path=path,
            content=bytearray(source.content or b""),
            metadata=metadata or dict(source.metadata),
            copied=True,
            pending=self.slow_copies,
        )
        return self.put(account, share, target, replaces=True)

    def rename(self, account: str, share: str, source: Entry, path: str, *, replaces: bool) -> Entry:
        old = source.path.lower()
        renamed = self.put(account, share, replace(source, path=path, copied=False), replaces=replaces)
        del self.share(account, share)[old]
        return renamed
