"""Runs one command so that nothing of it outlives the task. Started by :mod:`.local`, as a process of its own.

Usage: ``launcher.py LIFELINE STATUS OPTIONS COMMAND...``

* LIFELINE: file descriptor of a pipe whose other end the task holds. When it closes, because the task ends
  the step or is killed with signal 9, the command's processes are ended.
* STATUS: file descriptor that gets the exit code, as text; negative for a signal.
* OPTIONS: JSON: ``read_only`` and ``writable`` folders, ``grace_seconds`` between SIGTERM and SIGKILL, and ``mount``: None, or
  the folder for the mount, whether it is read-only, and the descriptor of the socket to its server.

Standard library only; started with ``-I -S``, which takes about 15 ms.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

# From the kernel's headers.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 1, 2, 4, 32, 4096, 16384, 1 << 19
_MS_RELATIME = 1 << 21
_ST_RELATIME = 4096
_KEPT = 2 | 4 | 8 | 1024 | 2048
"""nosuid, nodev, noexec, noatime, nodiratime: what a mount has of these, an ordinary user must keep."""


def main(lifeline: int, status: int, options: dict[str, object], command: list[str]) -> None:
    """Run the command, end all its processes, and report its exit code."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # processes the command leaves behind become ours
    os.set_inheritable(status, False)
    server = options["mount"] and options["mount"][2]  # type: ignore[index]

    def prepare() -> None:
        if libc:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            try:
                _arrange(libc, options)
            except OSError as error:
                os.write(
                    2,
                    f"The step's inputs and outputs cannot be mounted, read-only where they must be: {error}\n".encode(
                        errors="backslashreplace"
                    ),
                )
                os._exit(126)

    try:
        child = subprocess.Popen(  # noqa: S603 - the command is the step's
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=prepare
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os.write(status, b"127")
        return
    exited = os.pidfd_open(child.pid) if hasattr(os, "pidfd_open") else None
    if not _wait(lifeline, exited, child):
        _signal_group(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + float(options["grace_seconds"])  # type: ignore[arg-type]
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if server:
            os.close(server)  # the mount fails from now on: a process that waits for it could not be killed
            server = None
    _signal_group(child.pid, signal.SIGKILL)
    code = child.wait()
    _end_orphans()
    if server:
        _tell(server, code)
    os.write(status, str(code).encode())


def _wait(lifeline: int, exited: "int | None", child: "subprocess.Popen[bytes]") -> bool:
    """Wait for the command's end (True) or for the end of the lifeline (False)."""
    waiting = select.poll()  # select() takes no descriptor above 1023
    waiting.register(lifeline, select.POLLIN)
    if exited is not None:
        waiting.register(exited, select.POLLIN)
        return any(ready == exited for ready, _ in waiting.poll())
    while child.poll() is None:
        if waiting.poll(50):
            return False
    return True


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _end_orphans() -> None:
    """Kill processes that left the command's group; as a subreaper we are their parent now."""
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return  # none is left
        if ended:
            continue
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123 - no pathlib: start-up time
            for child in file.read().split():  # the kernel may leave some out while others exit: hence the loop
                os.kill(int(child), signal.SIGKILL)
        time.sleep(0.002)


def _tell(server: int, code: int) -> None:
    try:
        os.write(server, str(code).encode())
    except BrokenPipeError:  # it has ended, and says why itself
        return


def _arrange(libc: ctypes.CDLL, options: dict[str, object]) -> None:
    """Give the command its own view of the file system, if it needs one.

    :raises OSError: where the machine does not allow it.
    """
    if options["mount"] or options["read_only"]:
        _own_mounts(libc)
        if options["mount"]:
            _mount_files(libc, *options["mount"])  # type: ignore[misc]
        _make_read_only(libc, options["read_only"], options["writable"])  # type: ignore[arg-type]


def _own_mounts(libc: ctypes.CDLL) -> None:
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNS | (0 if user == 0 else _CLONE_NEWUSER)) != 0:
        raise OSError(ctypes.get_errno(), "no mounts of its own")
    if user != 0:
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
                file.write(content)
    if libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None) != 0:
        raise OSError(ctypes.get_errno(), "the root stays shared")


def _mount_files(libc: ctypes.CDLL, folder: str, is_read_only: bool, server: int) -> None:
    """Mount a file system at a folder, and hand it to the process that serves it.

    The device is opened here: the kernel wants that in the user namespace of the mount.
    """
    import socket

    device = os.open("/dev/fuse", os.O_RDWR)
    data = f"fd={device},rootmode=40555,user_id={os.getuid()},group_id={os.getgid()},allow_other,max_read={1 << 20}"
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if is_read_only else 0)
    if libc.mount(b"azureml", os.fsencode(os.path.realpath(folder)), b"fuse", flags, data.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    with socket.socket(fileno=server) as connection:
        socket.send_fds(connection, [b"f"], [device])
    os.close(device)
    _read_ahead()


def _read_ahead() -> None:
    """Let the kernel ask for 1 MiB of a file at once that is read from front to back, where we may: it asks for 128 KiB."""
    with open("/proc/self/mountinfo") as file:  # noqa: PTH123
        device = file.read().rpartition(" - fuse azureml ")[0].rpartition("\n")[2].split()[2]
    try:
        with open(f"/sys/class/bdi/{device}/read_ahead_kb", "w") as setting:  # noqa: PTH123
            setting.write("1024")
    except OSError:  # an ordinary user, or a container: it works without
        return


def _make_read_only(libc: ctypes.CDLL, read_only: list[str], writable: list[str]) -> None:
    """Mounted inputs cannot be written: v1's ``EROFS``."""
    for folder in writable:  # first: an input may contain them
        if os.path.isdir(folder):  # noqa: PTH112 - no pathlib: start-up time
            _mount(libc, folder, _MS_BIND)
    for folder in read_only:
        _mount(libc, folder, _MS_BIND | _MS_REC)
        has = os.statvfs(folder).f_flag
        kept = has & _KEPT | (_MS_RELATIME if has & _ST_RELATIME else 0)
        _mount(libc, folder, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)


def _mount(libc: ctypes.CDLL, folder: str, flags: int) -> None:
    path = os.fsencode(os.path.realpath(folder))
    if libc.mount(path, path, None, flags, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)


def _check(what: str, folder: str) -> None:
    """Try it out; an exception ends this process with another exit code than 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    _own_mounts(libc)
    if what == "mount":
        import socket

        ours, theirs = socket.socketpair()
        _mount_files(libc, folder, False, theirs.detach())
        ours.close()
    else:
        _make_read_only(libc, [folder], [])


if __name__ == "__main__" and sys.argv[1] == "check":
    _check(*sys.argv[2:])
elif __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:])
