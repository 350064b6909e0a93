"""Finding and ending process trees through proc(5).

A program's root process is a child subreaper (prctl(2)), so while it lives, everything it started is below it in
the tree of parents, whatever sessions or double forks it uses.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass

FREEZE_SECONDS = 0.25
DEATH_SECONDS = 0.25
_PAUSE_SECONDS = 0.002
_READ_BYTES = 64 * 1024
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_HALTED = frozenset("TtDZXx")
_DEAD = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One line of the process table.

    Attributes:
        state: letter of proc_pid_stat(5); Z is a zombie.
        started: clock ticks after boot; with the pid it names one process for good.
    """

    pid: int
    parent: int
    state: str
    started: int


@dataclass(frozen=True, slots=True)
class Spared:
    """What a tree's end leaves alone: processes that were there before the call.

    Attributes:
        pids: direct children of the root when the call started.
        since: clock ticks after boot at that moment.
    """

    pids: frozenset[int] = frozenset()
    since: int = 0

    def covers(self, record: ProcessRecord) -> bool:
        """Whether `record` and all below it stay."""
        return record.started < self.since or (record.pid in self.pids and record.started <= self.since)


def spare_existing(root: int) -> Spared:
    """A mark to tell the later descendants of `root` from those it has now."""
    return Spared(frozenset(children_of(root)), _ticks_since_boot())


def children_of(pid: int) -> list[int]:
    """Direct children of the main thread of `pid`, from /proc/PID/task/PID/children; empty when unknown."""
    try:
        return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]
    except (OSError, ValueError):
        return []


def read_process(pid: int) -> ProcessRecord | None:
    """The record of `pid`, None when there is no such process."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself.
    fields = text[text.rfind(b")") + 2 :].split()
    return ProcessRecord(pid, int(fields[1]), fields[0].decode("ascii", "replace"), int(fields[19]))


def read_processes() -> dict[int, ProcessRecord]:
    """All processes that are visible here, by pid."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    return {record.pid: record for record in map(read_process, pids) if record is not None}


def descendants(root: int, *, spared: Spared | None = None) -> list[ProcessRecord]:
    """Living processes below `root`, parents before children."""
    children: dict[int, list[ProcessRecord]] = {}
    for record in read_processes().values():
        children.setdefault(record.parent, []).append(record)
    found: list[ProcessRecord] = []
    waiting = [root]
    while waiting:
        for record in children.get(waiting.pop(0), ()):
            if spared is not None and spared.covers(record):
                continue
            waiting.append(record.pid)
            if record.state not in _DEAD:
                found.append(record)
    return found


def send_signal(record: ProcessRecord, number: int) -> None:
    """Signal exactly the recorded process; does nothing when it is gone, even if its pid is in use again."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    except OSError:  # a kernel without pidfd_open(2)
        _signal_by_pid(record, number)
        return
    try:
        if _is_same(record):
            signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(descriptor)


def signal_all(records: Iterable[ProcessRecord], number: int) -> None:
    """`send_signal` to each."""
    for record in records:
        send_signal(record, number)


async def end_tree(root: int, *, spared: Spared | None = None, keep_root: bool = False) -> None:
    """Kill everything below `root`, then `root` itself; returns within `FREEZE_SECONDS` + `DEATH_SECONDS`.

    All are stopped first, so that nothing escapes by forking while the others are being killed.

    Args:
        spared: processes to leave alone.
        keep_root: leave `root` itself alive (and running).
    """
    await _freeze(root, spared=spared, keep_root=keep_root)
    deadline = time.monotonic() + DEATH_SECONDS
    while True:
        members = _members(root, spared=spared, keep_root=keep_root)
        signal_all(reversed(members), signal.SIGKILL)
        if not members or time.monotonic() > deadline:
            return
        await asyncio.sleep(_PAUSE_SECONDS)


async def _freeze(root: int, *, spared: Spared | None, keep_root: bool) -> None:
    deadline = time.monotonic() + FREEZE_SECONDS
    while time.monotonic() < deadline:
        running = [
            record for record in _members(root, spared=spared, keep_root=keep_root) if record.state not in _HALTED
        ]
        if not running:
            return
        signal_all(running, signal.SIGSTOP)
        await asyncio.sleep(0)


def _members(root: int, *, spared: Spared | None, keep_root: bool) -> list[ProcessRecord]:
    below = descendants(root, spared=spared)
    top = None if keep_root else read_process(root)
    return below if top is None or top.state in _DEAD else [top, *below]


def _signal_by_pid(record: ProcessRecord, number: int) -> None:
    try:
        if _is_same(record):
            os.kill(record.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _read(path: str) -> bytes:
    # Not pathlib: a fresh kernel pays for every page of memory that it touches.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)


def _is_same(record: ProcessRecord) -> bool:
    current = read_process(record.pid)
    return current is not None and current.started == record.started


def _ticks_since_boot() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_PER_SECOND)
