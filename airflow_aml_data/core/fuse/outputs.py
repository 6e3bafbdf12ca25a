"""Outputs that are written through a mount: a folder on this machine holds what is written, each file is stored when it is closed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from airflow_aml_data.core.fuse.tree import File, Folder, Link, Node
from airflow_aml_data.core.storage.base import Placement, Storage
from airflow_aml_data.core.storage.files import make_folder


class Output:
    """One output of the step.

    :param name: Its folder's name in the mount, or its own when the script makes it a file.
    :param path: Its path on the datastore.
    :param backing: Its place on this machine.
    """

    def __init__(self, name: str, storage: Storage, path: str, backing: Path) -> None:
        self.name, self.storage, self._path, self._backing = name, storage, path, backing

    def local(self, node: Node) -> Path:
        """Where on this machine a node is, if its content is there."""
        return Path(f"{self._backing}{node.path.removeprefix(self.name)}")

    def local_size(self, file: File) -> int:
        return self.local(file).stat().st_size

    def stored_path(self, node: Node) -> str:
        return self._path + node.path.removeprefix(self.name)

    def open(self, file: File, flags: int) -> int:
        """Open the content of a file on this machine. What is only stored is fetched first, unless it will not be needed."""
        with file.lock:
            place = self.local(file)
            if file.stored:
                make_folder(place.parent)
                if flags & os.O_TRUNC:
                    place.touch()
                else:
                    self._fetch(file, place)
                file.stored = None
            return os.open(place, flags & (os.O_ACCMODE | os.O_TRUNC | os.O_CREAT), 0o644)

    def _fetch(self, file: File, place: Path) -> None:
        if file.stored:
            placement = Placement(file.stored, place.relative_to(self._backing.parent).as_posix())
            self.storage.download([placement], self._backing.parent, _quiet)

    def store(self, file: File) -> None:
        """Store a file if it was changed; when that fails, it counts as changed."""
        with file.lock:
            if not file.changed or file.gone:
                return
            file.changed = False  # it may be changed meanwhile
            try:
                self.storage.upload([(self.local(file), self.stored_path(file))], overwrite=True, progress=_quiet)
            except BaseException:
                file.changed = True
                raise
            file.in_store = True

    def remove(self, file: File) -> None:
        with file.lock:
            if file.in_store:
                self.storage.delete_files([self.stored_path(file)])
            self.local(file).unlink(missing_ok=True)
            file.gone = True

    def move(self, node: Node, folder: Folder, name: str) -> None:
        """Give a file or folder another name, on this machine and in the store; a file that has it makes way."""
        replaced = folder.children.get(name)
        files = [each for each in _with_all_below(node) if isinstance(each, File)]
        if isinstance(replaced, File):
            files.append(replaced)
        with _locked(files):
            before = {each: self.stored_path(each) for each in files if each.in_store and each is not replaced}
            old_place, old_path = self.local(node), self.stored_path(node)
            new_path = f"{self.stored_path(folder)}/{name}"
            moved = [(path, new_path + path.removeprefix(old_path)) for path in before.values()]
            self._copy(moved, old_path)
            if os.path.lexists(old_place):
                new_place = self.local(folder) / name
                make_folder(new_place.parent)
                old_place.rename(new_place)
            if isinstance(replaced, File):
                replaced.gone = True
                self._remove_replaced(replaced, {path for _, path in moved})
            node.detach()
            node.name, node.parent = name, folder
            folder.add(node)
            self.storage.delete_files(before.values())
            self._look_again(before, new_path)

    def _copy(self, moved: Sequence[tuple[str, str]], below: str) -> None:
        if moved:
            stored = {each.path: each for each in self.storage.list_files(below)}
            self.storage.copy([(stored[old], new) for old, new in moved], self.storage, progress=_quiet)

    def _remove_replaced(self, replaced: File, written: set[str]) -> None:
        path = self.stored_path(replaced)
        if replaced.in_store and path not in written:
            self.storage.delete_files([path])

    def _look_again(self, files: Mapping[File, str], below: str) -> None:
        """Files that are only stored have other etags now."""
        if any(each.stored for each in files):
            stored = {each.path: each for each in self.storage.list_files(below)}
            for each in files:
                if each.stored:
                    each.stored = stored[self.stored_path(each)]

    def store_rest(self, top: Node) -> None:
        """The script has ended well: store what was changed after it was closed, and the content of links."""
        for each in _with_all_below(top):
            if isinstance(each, File):
                self.store(each)
            elif isinstance(each, Link):
                content = Path(os.path.realpath(self.local(each)))
                if content.is_file() and content.is_relative_to(os.path.realpath(self._backing)):
                    self.storage.upload([(content, self.stored_path(each))], overwrite=True, progress=_quiet)


def _with_all_below(node: Node) -> list[Node]:
    return [node, *node.below()] if isinstance(node, Folder) else [node]


@contextmanager
def _locked(files: Sequence[File]) -> Iterator[None]:
    with ExitStack() as locks:
        for each in sorted(files, key=lambda file: file.number):
            locks.enter_context(each.lock)
        yield


def _quiet(files: int, size_bytes: int) -> None:
    """The script waits, and sees for itself."""
