"""Which limit of the sandbox a program that failed has run into, where that is known for certain.

The kernel counts what it refused a sandbox for its limits (cgroups(7): `memory.events` and `pids.events`, in version 1
`memory.oom_control`); the host hands those files to the agent, opened for reading. Without them (an ordinary user's
host, gVisor) nothing is said of memory and processes: a program that was killed is no proof of anything.
"""

import os
import re
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cove.agent.execution.ending import end_session
from cove.agent.execution.outcomes import Outcome, Recording, limit_note
from cove.models.limits import MIB, Limits

MEMORY: Final = "memory"
PIDS: Final = "pids"
_KEYS: Final = {MEMORY: "oom_kill", PIDS: "max"}
"""File -> the line in it that counts."""

_READ_BYTES: Final = 4096
_KILLED: Final = 128 + signal.SIGKILL
_FULL_BYTES: Final = 4 * MIB
_FULL_SHARE: Final = 0.02
"""A filesystem with less than that is full. What writes had set aside is free again a moment after they are refused."""

_SHARED_MEMORY: Final = "/dev/shm"
_NO_SPACE: Final = re.compile(rb"no space left on device|database or disk is full|\bENOSPC\b", re.IGNORECASE)
_NO_DESCRIPTOR: Final = re.compile(rb"too many open files(?! in system)|\bEMFILE\b", re.IGNORECASE)
"""strerror(3) of ENOSPC and EMFILE, as nearly every program prints it, and the names that Node.js prints."""


class LimitCounters:
    """The kernel's counts of what it refused this sandbox."""

    def __init__(self, descriptors: Mapping[str, int] | None = None) -> None:
        """`descriptors` are of `MEMORY` and `PIDS`, as far as there are any."""
        self._descriptors = dict(descriptors or {})

    def read(self) -> dict[str, bytes]:
        """The files as they are now: cheap enough for every program, unlike taking them apart."""
        return {name: _read(descriptor) for name, descriptor in self._descriptors.items()}


class LimitEvents:
    """Watches programs, and says which limit ended those that failed."""

    def __init__(self, limits: Limits, workspace: str, counters: LimitCounters) -> None:
        self._limits = limits
        self._workspace = workspace
        self._counters = counters
        self._running: set[Watch] = set()
        self._explained = 0

    @contextmanager
    def watched(self) -> Generator["Watch"]:
        """The time of one program."""
        watch = Watch(self, self._counters.read(), self._explained)
        self._running.add(watch)
        if len(self._running) > 1:
            for other in self._running:
                other.alone = False
        try:
            yield watch
        finally:
            self._running.discard(watch)

    def reached(self, outcome: Outcome, recording: Recording, watch: "Watch") -> str | None:
        """The limit that this program ran into, in words."""
        now = self._counters.read()
        said = recording.stderr.ending() + b"\n" + recording.stdout.ending()
        return (
            self._memory(outcome, watch, now) or self._pids(watch, now) or self._space(said) or self._open_files(said)
        )

    def _memory(self, outcome: Outcome, watch: "Watch", now: Mapping[str, bytes]) -> str | None:
        """Killed by the kernel itself, or the only program that can have had the child that was. Each kill explains
        one program's end."""
        killed = _growth(MEMORY, watch.before, now) - (self._explained - watch.explained)
        if killed <= 0 or not (watch.alone or outcome.exit_code == _KILLED):
            return None
        self._explained += 1
        return f"memory {self._limits.memory_mb} MiB"

    def _pids(self, watch: "Watch", now: Mapping[str, bytes]) -> str | None:
        refused = watch.alone and _growth(PIDS, watch.before, now) > 0
        return f"pids {self._limits.pids}" if refused else None

    def _space(self, said: bytes) -> str | None:
        """Errors alone tell of any filesystem or table that is full; only together with a full disk they are it."""
        if not _NO_SPACE.search(said):
            return None
        disk = _room(self._workspace)
        if disk and disk.full:
            return f"disk {self._limits.disk_mb} MiB"
        if disk and disk.inodes and not disk.inodes_left:
            return f"inodes {self._limits.inodes or disk.inodes}"
        shared = _room(_SHARED_MEMORY)
        if shared and shared.device != (disk and disk.device) and shared.full:
            return f"shared memory {shared.size // MIB} MiB"
        return None

    def _open_files(self, said: bytes) -> str | None:
        return f"open files {self._limits.open_files}" if _NO_DESCRIPTOR.search(said) else None


class Watch:
    """What was known when a program started.

    Attributes:
        before: the counters.
        explained: ends of programs that kills had explained.
        alone: no other program has run at the same time.
    """

    def __init__(self, events: LimitEvents, before: Mapping[str, bytes], explained: int) -> None:
        self._events = events
        self.before = before
        self.explained = explained
        self.alone = True

    async def judged(self, outcome: Outcome, recording: Recording, *, seconds: float) -> Outcome:
        """The outcome with the limit that the program ran into, if it failed because of one.

        Where the kernel has ended the program for memory, what it has started is ended too: it holds the rest of it.

        Args:
            recording: what it printed.
            seconds: the time that it had.
        """
        if outcome.exit_code == 0:
            return outcome
        limit = self._events.reached(outcome, recording, self)
        if limit is not None:
            if outcome.exit_code == _KILLED and outcome.pid:
                await end_session(outcome.pid)
            return replace(outcome, limit=limit, notes=(*outcome.notes, limit_note(limit)))
        return replace(outcome, limit=f"time {seconds:g} s") if outcome.timed_out else outcome


@dataclass(frozen=True, slots=True)
class _Room:
    """A filesystem: statvfs(3)."""

    device: int
    size: int
    bytes_left: int
    inodes: int
    inodes_left: int

    @property
    def full(self) -> bool:
        """Whether nothing of any size can be written."""
        return self.bytes_left < max(_FULL_BYTES, _FULL_SHARE * self.size)


def _room(path: str) -> _Room | None:
    try:
        status, device = os.statvfs(path), Path(path).stat().st_dev
    except OSError:
        return None
    unit = status.f_frsize
    return _Room(device, status.f_blocks * unit, status.f_bavail * unit, status.f_files, status.f_favail)


def _read(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, _READ_BYTES, 0)
    except OSError:
        return b""


def _growth(name: str, before: Mapping[str, bytes], now: Mapping[str, bytes]) -> int:
    old, new = before.get(name, b""), now.get(name, b"")
    return 0 if old == new else _count(new, _KEYS[name]) - _count(old, _KEYS[name])


def _count(text: bytes, key: str) -> int:
    for line in text.decode("ascii", "replace").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdecimal():
            return int(value)
    return 0
