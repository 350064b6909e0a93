"""Processes of a data directory, their memory and their end, as /proc shows them (proc(5))."""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_END_SECONDS: Final = 10.0


class Process(NamedTuple):
    """A process that cannot be mistaken for a later one with the same id: `started` is field 22 of its stat."""

    pid: int
    started: int


def recorded(data_dir: Path) -> dict[str, Process]:
    """The first process of each sandbox that the host daemon has written down, by sandbox."""
    found: dict[str, Process] = {}
    for path in (data_dir / "run" / "sandboxes").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = json.loads(path.read_bytes())
            found[path.stem] = Process(int(record["pid"]), int(record["pid_started"]))
    return found


def charged_bytes(data_dir: Path) -> dict[str, int]:
    """What the kernel charges each recorded sandbox for (cgroups(7)), by sandbox: all processes that serve it, also
    those that are no descendants of its first one, and memory that they share among themselves once."""
    found: dict[str, int] = {}
    for path in (data_dir / "run" / "sandboxes").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, StopIteration):
            groups = json.loads(path.read_bytes())["driver_state"]["groups"].split("\n")
            files = [Path(group, name) for group in groups for name in ("memory.usage_in_bytes", "memory.current")]
            found[path.stem] = int(next(file for file in files if file.exists()).read_text(encoding="ascii"))
    return found


def trees(roots: Iterable[int]) -> dict[int, set[Process]]:
    """Each of `roots` with all of its descendants, from one reading of /proc."""
    parents = dict(_all())
    children: dict[int, list[Process]] = {}
    for process, parent in parents.items():
        children.setdefault(parent, []).append(process)
    alive = {process.pid: process for process in parents}
    return {root: _descent(alive[root], children) if root in alive else set() for root in roots}


def proportional_bytes(process: Process) -> int:
    """Its proportional set size: private memory, and of each shared page its part; 0 once it is gone.

    Raises:
        PermissionError: it belongs to somebody else.
    """
    try:
        with open(f"/proc/{process.pid}/smaps_rollup", "rb") as lines:
            return next((1024 * int(line.split()[1]) for line in lines if line.startswith(b"Pss:")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def processes_of(data_dir: Path) -> set[Process]:
    """Processes that name `data_dir` in their command line, those of its sandboxes, and all their descendants."""
    name = str(data_dir).encode()
    roots = {process.pid for process, _ in _all() if process.pid != os.getpid() and name in _command_line(process.pid)}
    roots |= {process.pid for process in recorded(data_dir).values() if _stat(process.pid, process.started)}
    return {process for tree in trees(roots).values() for process in tree}


def end_all(processes: Iterable[Process]) -> None:
    """SIGKILL for those that still run, and wait a bounded time for their end."""
    with Watch(processes) as watch:
        watch.kill()
        watch.wait(_END_SECONDS)


class Watch:
    """Tells when all of a set of processes have ended, by pidfds (pidfd_open(2)): no polling, no recycled ids."""

    def __init__(self, processes: Iterable[Process]) -> None:
        self._descriptors: set[int] = set()
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(process.pid)
                if _stat(process.pid, process.started):
                    self._descriptors.add(descriptor)
                else:
                    os.close(descriptor)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __len__(self) -> int:
        return len(self._descriptors)

    def kill(self) -> None:
        """SIGKILL to all of them."""
        for descriptor in self._descriptors:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Whether all of them have ended within `seconds`."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        waited = set(self._descriptors)
        for descriptor in waited:
            poll.register(descriptor, select.POLLIN)
        while waited:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for descriptor, _ in poll.poll(1000 * left):
                poll.unregister(descriptor)
                waited.discard(descriptor)
        return True


def _descent(root: Process, children: dict[int, list[Process]]) -> set[Process]:
    found, fresh = {root}, [root]
    while fresh:
        for child in children.get(fresh.pop().pid, []):
            if child not in found:
                found.add(child)
                fresh.append(child)
    return found


def _all() -> list[tuple[Process, int]]:
    """Every process with its parent's id."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [found for pid in pids if (found := _stat(pid))]


def _stat(pid: int, started: int | None = None) -> tuple[Process, int] | None:
    """The process and its parent's id, unless it has ended or is another one than the one that began at `started`."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    process = Process(pid, int(fields[19]))
    if fields[0] == b"Z" or (started is not None and process.started != started):
        return None
    return process, int(fields[1])


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
