"""Finding and ending process trees through proc(5).

A program's root process is a child subreaper (prctl(2)), so while it lives, everything it started is below it in
the tree of parents, whatever sessions or double forks it uses.
"""

import asyncio
import contextlib
import math
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

FREEZE_SECONDS = 0.25
DEATH_SECONDS = 0.25
LISTING_SECONDS = 1.0
"""In a sandbox that is out of memory each read may be slow."""
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
        session: its session id (credentials(7)): the pid of the program's root, unless it has left.
    """

    pid: int
    parent: int
    state: str
    started: int
    session: int


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
    state = fields[0].decode("ascii", "replace")
    return ProcessRecord(pid, int(fields[1]), state, started=int(fields[19]), session=int(fields[3]))


def read_processes(*, seconds: float = math.inf) -> dict[int, ProcessRecord]:
    """All processes that are visible here, by pid.

    Raises:
        TimeoutError: it took longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    found: dict[int, ProcessRecord] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        record = read_process(int(name)) if name.isdigit() else None
        if record is not None:
            found[record.pid] = record
        if time.monotonic() > deadline:
            raise TimeoutError
    return found


def descendants(*roots: int, spared: Spared | None = None, seconds: float = math.inf) -> list[ProcessRecord]:
    """Living processes below `roots`, each once, parents before children.

    Raises:
        TimeoutError: looking for them took longer than `seconds`.
    """
    return below(read_processes(seconds=seconds), roots, spared=spared)


def below(
    table: Mapping[int, ProcessRecord], roots: Iterable[int], *, spared: Spared | None = None
) -> list[ProcessRecord]:
    """The same among the processes in `table`."""
    children: dict[int, list[ProcessRecord]] = {}
    for record in table.values():
        children.setdefault(record.parent, []).append(record)
    found: list[ProcessRecord] = []
    waiting = deque(roots)
    while waiting:
        for record in children.pop(waiting.popleft(), ()):
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


def listing_seconds() -> float:
    """For one look at all processes while a tree is ended: only a process that has another way gives up."""
    return LISTING_SECONDS if os.getpid() == 1 else math.inf


def end_all_others() -> bool:
    """SIGKILL to every process of this pid namespace but this one, in one system call (kill(2), pid -1): nothing has to
    be listed for it, and nothing escapes by forking. Only as its first process: elsewhere it does nothing, and says so.
    """
    if os.getpid() != 1:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    return True


async def end_tree(*roots: int, spared: Spared | None = None, keep_root: bool = False) -> bool:
    """Kill everything below `roots`, then these themselves; returns within `FREEZE_SECONDS` + `DEATH_SECONDS`, or not
    much later.

    All are stopped first, so that nothing escapes by forking while the others are being killed. Where they are too many
    to be looked at in time, everything in the sandbox is ended.

    Args:
        spared: processes to leave alone.
        keep_root: leave the roots themselves alive (and running).

    Returns:
        Whether all that was asked for, and nothing else, is being ended.
    """
    tree = _Tree(roots, spared, keep_root)
    try:
        await _freeze(tree)
        deadline = time.monotonic() + DEATH_SECONDS
        while True:
            members = tree.members()
            signal_all(reversed(members), signal.SIGKILL)
            if not members or time.monotonic() > deadline:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        # Killed processes may be long in dying; new ones say that killing is slower than forking.
        return not members or not _new_among(tree.members(), members) or not end_all_others()
    except TimeoutError:
        return not end_all_others()


@dataclass(frozen=True, slots=True)
class _Tree:
    """What is to be ended."""

    roots: tuple[int, ...]
    spared: Spared | None
    keep_root: bool

    def members(self) -> list[ProcessRecord]:
        """Those that live; raises TimeoutError."""
        found = descendants(*self.roots, spared=self.spared, seconds=listing_seconds())
        if self.keep_root:
            return found
        seen = {record.pid for record in found}
        tops = [read_process(root) for root in self.roots if root not in seen]
        return [*(top for top in tops if top is not None and top.state not in _DEAD), *found]


async def _freeze(tree: _Tree) -> None:
    deadline = time.monotonic() + FREEZE_SECONDS
    while time.monotonic() < deadline:
        running = [record for record in tree.members() if record.state not in _HALTED]
        if not running:
            return
        signal_all(running, signal.SIGSTOP)
        await asyncio.sleep(0)


def _new_among(now: list[ProcessRecord], before: list[ProcessRecord]) -> bool:
    known = {(record.pid, record.started) for record in before}
    return any((record.pid, record.started) not in known for record in now)


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
