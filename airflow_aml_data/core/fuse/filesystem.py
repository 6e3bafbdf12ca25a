"""The file system of a step: an answer to each request of the kernel."""

from __future__ import annotations

import errno
import logging
import os
import stat
import struct
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from airflow_aml_data.core.fuse import messages
from airflow_aml_data.core.fuse.messages import Op, Parts, Request
from airflow_aml_data.core.fuse.opened import UNKNOWN, Opened, plain_flags
from airflow_aml_data.core.fuse.outputs import Output
from airflow_aml_data.core.fuse.processes import is_killed, is_to_die, process_of, still_writes
from airflow_aml_data.core.fuse.reading import ReadAhead, Reader
from airflow_aml_data.core.fuse.specification import Specification
from airflow_aml_data.core.fuse.tree import File, Folder, Link, Node, place
from airflow_aml_data.core.storage.base import Storage
from airflow_aml_data.errors import AmlDataError

log = logging.getLogger(__name__)

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NO_REPLACE = 1
"""Flag of RENAME2."""


class FileSystem:
    """Inputs that cannot be changed, and outputs, side by side in the root folder.

    :param storages: Datastore name to storage.
    """

    def __init__(self, specification: Specification, storages: Mapping[str, Storage]) -> None:
        self.root = Folder("", None)
        self.ahead = ReadAhead()
        self._opened: dict[int, Opened] = {}
        self._listings: dict[int, list[tuple[str, Node]]] = {}
        self._handles = count(1)
        self._told: set[str] = set()
        self._waiting: dict[int, int] = {}
        """Request to the thread that waits for the answer."""
        for name, groups in specification.inputs.items():
            folder = self.root.folder(name)
            for store, placements in groups:
                for each in placements:
                    place(folder, each.target, storages[store], each.file)
        self.outputs: dict[str, Output] = {}
        for name, (store, path, backing, existing) in specification.outputs.items():
            output = self.outputs[name] = Output(name, storages[store], path, Path(backing))
            self.root.children[name] = Folder(name, self.root, output, 0o755)
            for stored in existing:
                if stored.path == path:  # the output was made a file
                    Path(backing).rmdir()
                    self.root.children[name] = File(name, self.root, output.storage, stored, output, 0o644)
                else:
                    place(self.root, f"{name}/{stored.path.removeprefix(f'{path}/')}", output.storage, stored)
        self._nodes: dict[int, Node] = {each.number: each for each in (self.root, *self.root.below())}
        self._handlers: dict[int, Callable[[Request], Parts]] = {
            Op.INIT: lambda request: [messages.initialised(request)],
            Op.LOOKUP: self._lookup,
            Op.GETATTR: lambda request: [messages.attributes(self._nodes[request.node].attributes)],
            Op.SETATTR: self._setattr,
            Op.READLINK: self._readlink,
            Op.SYMLINK: self._symlink,
            Op.MKNOD: self._mknod,
            Op.MKDIR: self._mkdir,
            Op.UNLINK: self._unlink,
            Op.RMDIR: self._rmdir,
            Op.RENAME: lambda request: self._rename(request, 8),
            Op.RENAME2: lambda request: self._rename(request, 16),
            Op.LINK: self._link,
            Op.OPEN: self._open,
            Op.READ: self._read,
            Op.WRITE: self._write,
            Op.STATFS: self._statfs,
            Op.RELEASE: self._release,
            Op.FLUSH: self._flush,
            Op.FSYNC: self._nothing,
            Op.FSYNCDIR: self._nothing,
            Op.DESTROY: self._nothing,
            Op.ACCESS: self._access,
            Op.CREATE: self._create,
            Op.OPENDIR: self._opendir,
            Op.READDIRPLUS: self._readdir,
            Op.RELEASEDIR: self._releasedir,
        }

    def answer(self, request: Request) -> Parts:
        """What to send back; errors of a store are told in the step's log too."""
        handler = self._handlers.get(request.operation)
        if handler is None:
            return messages.refusal(request, errno.ENOSYS)
        self._waiting[request.id] = request.process
        try:
            return messages.reply(request, handler(request))
        except AmlDataError as error:
            self._tell(f"{self._about(request)}: {error}")
            code = getattr(error, "errno", None)
            return messages.refusal(request, code if code in _NO_SPACE else errno.EIO)
        except OSError as error:
            return messages.refusal(request, error.errno)
        finally:
            self._waiting.pop(request.id, None)

    def interrupt(self, request: Request) -> Parts | None:
        """A thread that waits has got a signal: one that is to die gets its answer now, and must not wait for a store."""
        (waiting,) = request.fields("<Q")
        thread = self._waiting.get(waiting)
        if thread and is_to_die(thread):
            return messages.refusal(request._replace(id=waiting), errno.EINTR)
        return None

    def store_rest(self) -> None:
        """Store what the script, which has ended well, left unstored."""
        for name, output in self.outputs.items():
            if name in self.root.children:
                output.store_rest(self.root.children[name])

    def _tell(self, text: str) -> None:
        if text not in self._told:  # the kernel asks again for what it did not get
            self._told.add(text)
            log.error(text)

    def _about(self, request: Request) -> str:
        what = {Op.READ: "cannot be read", Op.FLUSH: "cannot be stored"}.get(request.operation, "cannot be changed")  # type: ignore[call-overload]
        return f"{self._nodes[request.node].path!r} of the step's mount {what}"

    # Names

    def _folder(self, number: int) -> Folder:
        node = self._nodes[number]
        if not isinstance(node, Folder):
            raise OSError(errno.ENOTDIR, "no folder")
        return node

    def _output_for(self, folder: Folder, name: str) -> Output:
        """The output to which a name in a folder belongs.

        :raises OSError: when nothing may change there.
        """
        output = self.outputs.get(name) if folder is self.root else folder.output
        if output is None:
            raise OSError(errno.EROFS, "an input")
        return output

    def _child(self, folder: Folder, name: str) -> Node:
        try:
            return folder.children[name]
        except KeyError:
            raise OSError(errno.ENOENT, "no such name") from None

    def _add(self, node: Node) -> Parts:
        if node.parent:
            node.parent.add(node)
        self._nodes[node.number] = node
        return [messages.entry(node.attributes)]

    def _lookup(self, request: Request) -> Parts:
        found = self._folder(request.node).children.get(request.name())
        return [messages.entry(found.attributes) if found else messages.absent()]

    def _readlink(self, request: Request) -> Parts:
        node = self._nodes[request.node]
        if not isinstance(node, Link):
            raise OSError(errno.EINVAL, "no link")
        return [node.target.encode("utf-8", "surrogateescape")]

    def _symlink(self, request: Request) -> Parts:
        name, target, *_ = request.names()
        folder = self._folder(request.node)
        output = self._output_for(folder, name)
        node = Link(name, folder, output, target)
        output.local(folder).mkdir(parents=True, exist_ok=True)
        output.local(node).symlink_to(target)
        return self._add(node)

    def _mkdir(self, request: Request) -> Parts:
        mode, _ = request.fields("<II")
        name, folder = request.name(8), self._folder(request.node)
        output = self._output_for(folder, name)
        node = Folder(name, folder, output, mode & 0o7777)
        output.local(node).mkdir(parents=True, exist_ok=True)
        return self._add(node)

    def _unlink(self, request: Request) -> Parts:
        name, folder = request.name(), self._folder(request.node)
        output, node = self._output_for(folder, name), self._child(folder, name)
        if isinstance(node, File):
            output.remove(node)
        else:
            output.local(node).unlink(missing_ok=True)
        node.detach()
        return []

    def _rmdir(self, request: Request) -> Parts:
        name, folder = request.name(), self._folder(request.node)
        output, node = self._output_for(folder, name), self._child(folder, name)
        if isinstance(node, Folder) and node.children:
            raise OSError(errno.ENOTEMPTY, "not empty")
        if output.local(node).is_dir():
            output.local(node).rmdir()
        node.detach()
        return []

    def _rename(self, request: Request, names_at: int) -> Parts:
        number, flags = (*request.fields("<Q"), 0) if names_at == 8 else request.fields("<QI")
        name, new_name, *_ = request.names(names_at)
        folder, new_folder = self._folder(request.node), self._folder(number)
        output, node = self._output_for(folder, name), self._child(folder, name)
        replaced = new_folder.children.get(new_name)
        if output is not self._output_for(new_folder, new_name):
            raise OSError(errno.EXDEV, "another output")
        if flags & ~_NO_REPLACE:
            raise OSError(errno.EINVAL, "no exchange")
        if replaced and flags & _NO_REPLACE:
            raise OSError(errno.EEXIST, "there already")
        if isinstance(replaced, Folder) and replaced.children:
            raise OSError(errno.ENOTEMPTY, "not empty")
        output.move(node, new_folder, new_name)
        return []

    def _link(self, request: Request) -> Parts:
        self._output_for(self._folder(request.node), request.name(8))
        raise OSError(errno.EPERM, "no hard links")

    # Attributes

    def _setattr(self, request: Request) -> Parts:
        which, _, handle, size, *_ = request.fields("<IIQQ")
        node = self._nodes[request.node]
        if node.output is None:
            raise OSError(errno.EROFS, "an input")
        if which & messages.SET_MODE:
            (mode,) = struct.unpack_from("<I", request.body, 68)
            node.mode = stat.S_IFMT(node.mode) | mode & 0o7777
        if which & messages.SET_SIZE and isinstance(node, File):
            self._truncate(
                node, node.output, size, self._opened[handle] if which & messages.SET_HANDLE else None, request
            )
        if which & messages.SET_MTIME:
            (seconds,), (nanoseconds,) = (
                struct.unpack_from("<Q", request.body, 40),
                struct.unpack_from("<I", request.body, 60),
            )
            node.modified = seconds + nanoseconds / 1e9
        return [messages.attributes(node.attributes)]

    def _truncate(self, file: File, output: Output, size: int, opened: Opened | None, request: Request) -> None:
        descriptor = output.open(file, os.O_RDWR if size else os.O_RDWR | os.O_TRUNC)
        try:
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)
        if opened:
            opened.change(request.process)
        else:  # nobody is going to close it
            file.changed = True
            output.store(file)

    def _access(self, request: Request) -> Parts:
        (wanted,) = request.fields("<I")
        if wanted & os.W_OK and self._nodes[request.node].output is None:
            raise OSError(errno.EROFS, "an input")
        return []

    def _statfs(self, request: Request) -> Parts:
        output = self._nodes[request.node].output or next(iter(self.outputs.values()), None)
        found = os.statvfs(output.local(self.root).parent if output else "/")
        return [messages.space(found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail)]

    # Content

    def _open(self, request: Request) -> Parts:
        flags, _ = request.fields("<II")
        file = self._nodes[request.node]
        if not isinstance(file, File):
            raise OSError(errno.EISDIR, "a folder")
        changes = flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC
        if changes and file.output is None:
            raise OSError(errno.EROFS, "an input")
        if file.output and (changes or file.stored is None):
            opened = Opened(file, None, file.output.open(file, plain_flags(flags)))
            if flags & os.O_TRUNC:
                opened.change(request.process)
        elif file.stored:
            opened = Opened(file, Reader(self.ahead, file.storage, file.stored, file.number), None)
        else:
            raise OSError(errno.EIO, "no content")
        return self._handle(opened)

    def _create(self, request: Request) -> Parts:
        flags, mode = request.fields("<II")
        return [b"".join(self._make(request, 16, mode, flags))]

    def _mknod(self, request: Request) -> Parts:
        (mode,) = request.fields("<I")
        if not stat.S_ISREG(mode):
            self._output_for(self._folder(request.node), request.name(16))
            raise OSError(errno.EPERM, "files only")
        entry, opened = self._make(request, 16, mode, os.O_WRONLY)
        (handle,) = struct.unpack_from("<Q", opened)
        file = self._opened[handle].file
        self._opened.pop(handle).close()
        if file.output:
            file.output.store(file)
        return [entry]

    def _make(self, request: Request, name_at: int, mode: int, flags: int) -> Parts:
        name, folder = request.name(name_at), self._folder(request.node)
        output = self._output_for(folder, name)
        file = File(name, folder, output.storage, None, output, mode & 0o7777)
        output.local(file).parent.mkdir(parents=True, exist_ok=True)
        opened = Opened(file, None, output.open(file, plain_flags(flags) | os.O_CREAT))
        opened.change(request.process)
        return [*self._add(file), *self._handle(opened)]

    def _handle(self, opened: Opened) -> Parts:
        handle = next(self._handles)
        self._opened[handle] = opened
        return [messages.opened(handle, is_read=opened.reader is not None)]

    def _read(self, request: Request) -> Parts:
        handle, offset, size = request.fields("<QQI")
        return self._opened[handle].read(offset, size)

    def _write(self, request: Request) -> Parts:
        handle, offset, size, flags = request.fields("<QQII")
        opened = self._opened[handle]
        done = opened.write(offset, request.body[40 : 40 + size])
        opened.change(UNKNOWN if flags & messages.WRITE_CACHE else request.process)
        return [messages.written(done)]

    def _flush(self, request: Request) -> Parts:
        """A descriptor is closed. The file is stored, unless

        * the process has not written to it: it has inherited the descriptor, and closes what it does not need,
        * a signal has killed the process,
        * the process has another descriptor to go on writing with.
        """
        opened = self._opened[request.fields("<Q")[0]]
        file = opened.file
        if file.changed and file.output and opened.writers:
            process = process_of(request.process)
            if opened.writers & {process, UNKNOWN}:
                if is_killed(process):
                    opened.writers.discard(process)
                elif not still_writes(process, file.number):
                    opened.store()
        return []

    def _release(self, request: Request) -> Parts:
        self._opened.pop(request.fields("<Q")[0]).close()
        return []

    # Folders

    def _opendir(self, request: Request) -> Parts:
        folder = self._folder(request.node)
        handle = next(self._handles)
        self._listings[handle] = [(".", folder), ("..", folder.parent or folder), *folder.children.items()]
        return [messages.opened(handle)]

    def _readdir(self, request: Request) -> Parts:
        handle, offset, size = request.fields("<QQI")
        parts: list[bytes] = []
        listing = self._listings[handle]
        for number in range(offset, len(listing)):
            name, node = listing[number]
            each = messages.listed(name, number + 1, node.attributes)
            size -= len(each)
            if size < 0:
                break
            parts.append(each)
        return [b"".join(parts)]

    def _releasedir(self, request: Request) -> Parts:
        self._listings.pop(request.fields("<Q")[0])
        return []

    def _nothing(self, request: Request) -> Parts:
        return []
