"""clone3(2): fork into new namespaces, with a pidfd."""

import ctypes
import os
import signal
import struct
from typing import Final

from cove.linux.calls import syscall

CLONE_NEWTIME: Final = 0x00000080
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
_CLONE_PIDFD: Final = 0x00001000
_CLONE_ARGS: Final = struct.Struct("=11Q")


def fork_into(flags: int) -> tuple[int, int]:
    """Fork this single-threaded process with `flags` (CLONE_NEW*).

    Returns:
        In the parent the child's pid (as this process sees it) and a pidfd; in the child (0, -1).

    Raises:
        OSError: the kernel refused, for example EPERM where user namespaces are switched off, ENOSPC at
            their limit, EAGAIN at a process limit.
    """
    pidfd = ctypes.c_int(-1)
    arguments = ctypes.create_string_buffer(
        _CLONE_ARGS.pack(flags | _CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0),
        _CLONE_ARGS.size,
    )
    # The hooks that os.fork() runs around its fork: locks, at-fork callbacks (random reseeds itself there).
    ctypes.pythonapi.PyOS_BeforeFork()
    try:
        pid = syscall("clone3", arguments, _CLONE_ARGS.size)
    except OSError:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        raise
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    return pid, pidfd.value


def unshare(flags: int) -> None:
    """unshare(2): move this process into new namespaces."""
    syscall("unshare", flags)


def pid_of_pidfd(pidfd: int) -> int:
    """The process id behind `pidfd` as *this* process sees it; -1 when it has ended (pidfd_open(2), fdinfo)."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as info:
        for line in info:
            if line.startswith(b"Pid:"):
                return int(line[4:])
    return -1


def start_time_of(pid: int) -> int:
    """When `pid` started, in clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)).

    Raises:
        OSError: no such process.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b") ")[2].split()[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that had `pid` and start time `started` still runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return False
    return int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def signal_process(pidfd: int, number: int) -> None:
    """Send a signal through a pidfd; a process that has ended already is fine."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return


def open_process(pid: int, started: int) -> int | None:
    """A pidfd of the process with that pid and start time, or None when it is no more."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    # The pid may have been recycled before the descriptor was opened; afterwards it cannot.
    if is_alive(pid, started):
        return pidfd
    os.close(pidfd)
    return None
