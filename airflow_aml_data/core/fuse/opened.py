"""An open file of a mount, and who writes to it."""

from __future__ import annotations

import errno
import os
import time

from airflow_aml_data.core.fuse.messages import Parts
from airflow_aml_data.core.fuse.processes import process_of
from airflow_aml_data.core.fuse.reading import Reader
from airflow_aml_data.core.fuse.tree import File

UNKNOWN = 0
"""The process that changed the pages of a mapped file."""


class Opened:
    """An open file.

    :param reader: Of a file that is only stored.
    :param descriptor: Of the content on this machine.
    """

    __slots__ = ("_processes", "descriptor", "file", "reader", "writers")

    def __init__(self, file: File, reader: Reader | None, descriptor: int | None) -> None:
        self.file, self.reader, self.descriptor = file, reader, descriptor
        self.writers: set[int] = set()
        """The processes that changed the file through this, and have not closed it."""
        self._processes: dict[int, int] = {}

    def read(self, offset: int, size: int) -> Parts:
        if self.reader and self.file.stored:
            return self.reader.read(offset, size)
        return [os.pread(self._content(), size, offset)]

    def write(self, offset: int, content: memoryview) -> int:
        return os.pwrite(self._content(), content, offset)

    def change(self, thread: int) -> None:
        """Note that a thread changes the file."""
        process = self._processes.get(thread)
        if process is None:
            process = self._processes[thread] = process_of(thread) if thread else UNKNOWN
        self.writers.add(process)
        self.file.changed = True
        self.file.modified = time.time()

    def store(self) -> None:
        """Store the file, which one of its writers closes."""
        if self.file.output:
            writers, self.writers = self.writers, set()  # there may be more meanwhile
            try:
                self.file.output.store(self.file)
            except BaseException:
                self.writers |= writers
                raise

    def _content(self) -> int:
        if self.descriptor is None:  # it was only stored when it was opened
            if self.file.output is None:
                raise OSError(errno.EIO, "no content")
            self.descriptor = self.file.output.open(self.file, os.O_RDONLY)
        return self.descriptor

    def close(self) -> None:
        if self.reader:
            self.reader.close()
        if self.descriptor is not None:
            os.close(self.descriptor)


def plain_flags(flags: int) -> int:
    """How the content on this machine is opened: always so that it can be read too, as the kernel may have to."""
    access = os.O_RDONLY if flags & os.O_ACCMODE == os.O_RDONLY else os.O_RDWR
    return access | flags & os.O_TRUNC
