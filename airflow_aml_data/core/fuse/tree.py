"""The files and folders of a mount."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

from airflow_aml_data.core.fuse.messages import ROOT, Attributes
from airflow_aml_data.core.storage.base import Storage, StoredFile

if TYPE_CHECKING:
    from airflow_aml_data.core.fuse.outputs import Output

_READ_ONLY = 0o444
_FOLDER = 0o555
_numbers = count(ROOT)


class Node:
    """Something with a name.

    :param output: The output it belongs to; None where nothing may change.
    """

    __slots__ = ("mode", "modified", "name", "number", "output", "parent")

    def __init__(self, name: str, parent: Folder | None, mode: int, output: Output | None = None) -> None:
        self.number = next(_numbers)
        self.name, self.parent, self.mode, self.output = name, parent, mode, output
        self.modified = time.time()

    @property
    def path(self) -> str:
        """Its path below the root of the mount."""
        above = self.parent.path if self.parent else ""
        return f"{above}/{self.name}" if above else self.name

    def detach(self) -> None:
        """Take it out of its folder."""
        if self.parent:
            del self.parent.children[self.name]
            self.parent.modified = time.time()

    @property
    def size_bytes(self) -> int:
        return 0

    @property
    def links(self) -> int:
        return 1

    @property
    def attributes(self) -> Attributes:
        return Attributes(self.number, self.mode, self.size_bytes, self.links, self.modified)


class Folder(Node):
    """A folder."""

    __slots__ = ("children",)

    def __init__(
        self, name: str, parent: Folder | None, output: Output | None = None, permissions: int = _FOLDER
    ) -> None:
        super().__init__(name, parent, stat.S_IFDIR | permissions, output)
        self.children: dict[str, Node] = {}

    @property
    def links(self) -> int:
        return 2 + sum(isinstance(each, Folder) for each in self.children.values())

    def folder(self, name: str) -> Folder:
        """The folder of that name, made when it is missing."""
        found = self.children.get(name)
        if not isinstance(found, Folder):
            permissions = self.mode & 0o7777
            found = self.children[name] = Folder(name, self, self.output, permissions)
        return found

    def add(self, node: Node) -> None:
        """Put something into it, under its own name."""
        self.children[node.name] = node
        self.modified = time.time()

    def below(self) -> Iterator[Node]:
        """Everything in it, at any depth."""
        for each in [*self.children.values()]:
            yield each
            if isinstance(each, Folder):
                yield from each.below()


class Link(Node):
    """A symbolic link."""

    __slots__ = ("target",)

    def __init__(self, name: str, parent: Folder, output: Output, target: str) -> None:
        super().__init__(name, parent, stat.S_IFLNK | 0o777, output)
        self.target = target

    @property
    def size_bytes(self) -> int:
        return len(self.target.encode("utf-8", "surrogateescape"))


class File(Node):
    """A file.

    :param storage: Where it is stored, or will be.
    :param stored: What is read when somebody reads it; None: it is read from this machine.
    """

    __slots__ = ("changed", "gone", "in_store", "lock", "storage", "stored")

    def __init__(
        self,
        name: str,
        parent: Folder,
        storage: Storage,
        stored: StoredFile | None,
        output: Output | None = None,
        permissions: int = _READ_ONLY,
    ) -> None:
        super().__init__(name, parent, stat.S_IFREG | permissions, output)
        self.storage, self.stored = storage, stored
        if stored and stored.modified is not None:
            self.modified = stored.modified
        self.in_store = stored is not None
        """Whether the store has a file of this path, if only an older one."""
        self.changed = self.gone = False
        """Changed: since it was stored last. Gone: it has no name any more, and is stored no more."""
        self.lock = threading.Lock()
        """Held while the stored file is written, moved or removed."""

    @property
    def size_bytes(self) -> int:
        if self.stored:
            return self.stored.size_bytes
        return self.output.local_size(self) if self.output else 0


def place(root: Folder, target: str, storage: Storage, stored: StoredFile) -> None:
    """Put a stored file into the tree."""
    *folders, name = target.split("/")
    folder = root
    for each in folders:
        folder = folder.folder(each)
    permissions = 0o644 if folder.output else _READ_ONLY
    folder.children[name] = File(name, folder, storage, stored, folder.output, permissions)
