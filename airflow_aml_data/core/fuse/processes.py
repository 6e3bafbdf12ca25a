"""What the kernel says of a process that uses the mount, as it stands while the process waits for an answer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

_PF_EXITING = 0x4
_FLAGS, _EXIT_CODE = 6, -1
"""Of the fields of ``/proc/PID/stat`` after the name."""
_SIGNAL = 0x7F
_MOUNT = " - fuse azureml "
"""What a line of ``mountinfo`` says of the mounts the launcher makes."""


def process_of(thread: int) -> int:
    """The process a thread belongs to; 0 when it is gone, or the kernel's own."""
    return int(_status(thread).get("Tgid", "0"))


def is_killed(process: int) -> bool:
    """Whether a process is at its end because of a signal; one that ends by itself kills its threads, and is not meant."""
    fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
    return bool(fields) and bool(int(fields[_FLAGS]) & _PF_EXITING) and bool(int(fields[_EXIT_CODE]) & _SIGNAL)


def is_to_die(thread: int) -> bool:
    """Whether a thread is only kept from its end by what it waits for."""
    pending = int(_status(thread).get("SigPnd", "0"), 16)
    return bool(pending & 1 << signal.SIGKILL - 1)


def still_writes(process: int, file: int) -> bool:
    """Whether a process, which is closing a file, has it open for writing once more, as a shell has that redirects output.

    :param file: The file's number on the mount.
    """
    mounts: set[str] | None = None
    for each in _names(f"/proc/{process}/fdinfo"):
        fields = _fields(_read(f"/proc/{process}/fdinfo/{each}"))
        if fields.get("ino") == str(file) and int(fields["flags"], 8) & os.O_ACCMODE != os.O_RDONLY:
            if mounts is None:
                lines = _read(f"/proc/{process}/mountinfo").splitlines()
                mounts = {line.split()[0] for line in lines if _MOUNT in line}
            if fields["mnt_id"] in mounts:
                return True
    return False


def _status(thread: int) -> dict[str, str]:
    return _fields(_read(f"/proc/{thread}/status"))


def _fields(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names, and for every file that is closed
    except (FileNotFoundError, ProcessLookupError):
        return []
