"""The process that serves the mount of one step. It ends with the step's command, whatever ends that.

Its only argument is the descriptor of a socket. Over it the launcher, once it has mounted, sends the descriptor of the
mount, and at the end the exit code of the command; when the socket closes, nobody uses the mount any more.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading
import traceback

from airflow_aml_data.core.fuse.filesystem import FileSystem
from airflow_aml_data.core.fuse.messages import BUFFER, UNANSWERED, Op, Request
from airflow_aml_data.core.fuse.specification import Specification
from airflow_aml_data.core.fuse.tree import File
from airflow_aml_data.core.storage.base import open_storage
from airflow_aml_data.core.transfer import readable_bytes
from airflow_aml_data.errors import AmlDataError

log = logging.getLogger(__name__)

_THREADS = 16
_SWITCH_SECONDS = 0.001
"""How long a thread may keep others from their work; an answer takes less."""
_MOUNT_IS_GONE = (errno.ENODEV, errno.ECONNABORTED)
"""What the kernel answers who reads or writes then: the latter when requests were under way."""


def main(control: int) -> None:
    """Serve what standard input specifies."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    for chatty in ("azure", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    threading.excepthook = _end
    sys.setswitchinterval(_SWITCH_SECONDS)
    specification = Specification.from_bytes(sys.stdin.buffer.read())
    try:
        files = FileSystem(specification, {name: open_storage(each) for name, each in specification.datastores.items()})
    except AmlDataError as error:
        log.error("The step's mount cannot be served: %s", error)
        raise SystemExit(1) from None
    with socket.socket(fileno=control) as launcher:
        _, descriptors, _, _ = socket.recv_fds(launcher, 1, 1)
        for descriptor in descriptors:
            for _ in range(_THREADS):
                threading.Thread(target=_serve, args=(descriptor, files), daemon=True).start()
        ended_well = launcher.recv(16) == b"0"
    failed = False
    if ended_well:
        try:
            files.store_rest()
        except AmlDataError as error:
            log.error("What the script left in an output in mount mode cannot be stored: %s", error)
            failed = True
    if specification.inputs:
        log.info(_summary(files))
    sys.stderr.flush()
    os._exit(failed)  # threads may still be fetching what nobody waits for


def _serve(descriptor: int, files: FileSystem) -> None:
    """Answer requests until the mount is gone."""
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    while True:
        try:
            size = os.readv(descriptor, [buffer])
        except OSError as error:
            if error.errno in _MOUNT_IS_GONE:
                return
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):  # the request was taken back
                continue
            raise
        request = Request.parse(view[:size])
        if request.operation in UNANSWERED:
            continue
        answer = files.interrupt(request) if request.operation == Op.INTERRUPT else files.answer(request)
        if answer:
            try:
                os.writev(descriptor, answer)
            except OSError as error:
                if error.errno not in (errno.ENOENT, *_MOUNT_IS_GONE):  # nobody waits for the answer
                    raise


def _summary(files: FileSystem) -> str:
    every = [each for each in files.root.below() if isinstance(each, File) and each.output is None]
    size = sum(each.size_bytes for each in every)
    return (
        f"Mounted inputs: {len(files.ahead.files):,} of {len(every):,} files were read, "
        f"{readable_bytes(files.ahead.fetched_bytes)} of {readable_bytes(size)} were fetched"
    )


def _end(failure: threading.ExceptHookArgs) -> None:
    """An error that nobody foresaw: without its server the mount fails, which the script sees; it must not wait forever."""
    traceback.print_exception(failure.exc_type, failure.exc_value, failure.exc_traceback)
    sys.stderr.flush()
    os._exit(1)
