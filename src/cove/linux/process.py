"""Attributes of the calling process that Python has no function for: prctl(2), close_range(2)."""

import contextlib
import ctypes
import os
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

# PyDLL keeps the interpreter lock: these calls never block, and most are made between fork and exec.
_libc = ctypes.PyDLL(None, use_errno=True)


def set_child_subreaper(enabled: bool) -> None:
    """Make orphans among the descendants children of this process; kept over execve(2), not over fork(2).

    Raises:
        OSError: the kernel refused.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, int(enabled))


def set_dumpable(enabled: bool) -> None:
    """Whether others of the same user may trace this process and open its /proc files."""
    _prctl(PR_SET_DUMPABLE, int(enabled))


def end_first_without_memory(score: int) -> None:
    """When memory is out, let the kernel end this process, and those it starts, before others with a lower `score`
    (0 to 1000) as long as their sizes do not outweigh it (proc_pid_oom_score_adj(5)). Nobody needs a privilege to raise
    it; where it cannot be, sizes alone decide."""
    with contextlib.suppress(OSError):
        handle = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(handle, b"%d" % score)
        finally:
            os.close(handle)


def set_parent_death_signal(signal_number: int) -> None:
    """Get `signal_number` when the parent thread ends; 0 clears. Cleared in children of fork(2)."""
    _prctl(PR_SET_PDEATHSIG, signal_number)


def descendants_of(pid: int) -> frozenset[int]:
    """Children of `pid`, their children, and so on, as far as they have not been given to another parent
    (proc_pid_stat(5), field 4)."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    parents[int(entry)] = int(file.read().rpartition(b") ")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
    found = frozenset[int]()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level} - found
        found |= level
    return found


def close_range(first: int, last: int = 2**32 - 1) -> None:
    """Close every descriptor from `first` to `last`, both included (close_range(2), Linux 5.9)."""
    if last < first:
        return
    function = getattr(_libc, "close_range", None)
    if function is not None and function(ctypes.c_uint(first), ctypes.c_uint(last), 0) == 0:
        return
    for name in [entry.name for entry in Path("/proc/self/fd").iterdir()]:
        if first <= int(name) <= last:
            _close(int(name))


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        return  # the descriptor of the listing itself


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"prctl {option}")
