"""What scripts do with mounted files: ``mount_reading.py FOLDER WORK``; prints when it ended, and the seconds it took.

``mount_reading.py FOLDER WORK RCLONE REMOTE`` has rclone mount the folder first, in the mount namespace it is started in, and
counts from there. rclone has a program of another package mount; where that is not installed, this file is what it finds
in its ``PATH`` as ``fusermount3``, and does what that does.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_NO_SUID_NO_DEVICES = 6
_DETACH = 2


def read(folder: Path, work: str) -> None:
    """Do what ``work`` says."""
    if work == "list":
        for inner, _, names in os.walk(folder):
            for name in names:
                os.stat(f"{inner}/{name}")  # noqa: PTH116 - as ls does
        return
    files = sorted(folder.glob("part_*/*"))
    buffer = bytearray(1 << 20)
    for file in files[:: len(files) // 10] if work == "ten" else files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


@contextmanager
def mounted_by_rclone(rclone: str, remote: str, folder: Path) -> Iterator[None]:
    with TemporaryDirectory() as programs:
        helper = Path(programs, "fusermount3")
        helper.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
        helper.chmod(0o755)
        options = ["--config", "/dev/null", "--read-only", "--azureblob-no-check-container"]
        environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
        process = subprocess.Popen([rclone, "mount", remote, folder, *options], env=environment)
        try:
            while not folder.is_mount():
                if process.poll() is not None:
                    raise RuntimeError("rclone cannot mount here")
                time.sleep(0.002)
            yield
        finally:
            ctypes.CDLL(None).umount2(bytes(folder), _DETACH)
            process.kill()
            process.wait()


def fusermount(arguments: list[str]) -> int:
    """Mount as ``fusermount3 -o OPTIONS -- FOLDER`` does, and hand over the descriptor by the socket."""
    libc, folder = ctypes.CDLL(None, use_errno=True), arguments[-1].encode()
    if "-u" in arguments:
        return int(libc.umount2(folder, _DETACH) != 0)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"rclone", folder, b"fuse.rclone", _NO_SUID_NO_DEVICES, options):
        print(os.strerror(ctypes.get_errno()), file=sys.stderr)
        return 1
    with socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])) as waiting:
        socket.send_fds(waiting, [b"\0"], [device])
    return 0


def main() -> None:
    if sys.argv[1].startswith("-"):
        sys.exit(fusermount(sys.argv[1:]))
    folder, work, *rclone = sys.argv[1:]
    begun = start = time.monotonic()
    if rclone:
        with mounted_by_rclone(rclone[0], rclone[1], Path(folder)):
            start = time.monotonic()
            read(Path(folder), work)
            ended = time.monotonic()
    else:
        read(Path(folder), work)
        ended = time.monotonic()
    print(json.dumps({"begun": begun, "ended": ended, "seconds": ended - start}))


if __name__ == "__main__":
    main()
