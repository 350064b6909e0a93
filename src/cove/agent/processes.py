"""The processes of the sandbox, read from proc(5)."""

import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cove.models.agent import ProcessEntry

MAX_PROCESSES = 4096
MAX_COMMAND_BYTES = 4096
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "disk-sleep",
    "Z": "zombie",
    "T": "stopped",
    "t": "tracing-stop",
    "X": "dead",
    "I": "idle",
}


class ProcessStat(NamedTuple):
    """What is used of `/proc/<pid>/stat`. Times are in seconds; `started` counts from the boot of the machine."""

    pid: int
    name: str
    state: str
    parent: int
    own_seconds: float
    reaped_seconds: float
    started: float
    resident_bytes: int


class ProcessTable:
    """Reads /proc of this pid namespace."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = root
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")

    def stats(self) -> Iterator[ProcessStat]:
        """Every process, at most `MAX_PROCESSES`; those that end meanwhile are left out."""
        with os.scandir(self._root) as scan:
            pids = [int(found.name) for found in scan if found.name.isdecimal()]
        for pid in sorted(pids)[:MAX_PROCESSES]:
            stat = self._stat(pid)
            if stat is not None:
                yield stat

    def entries(self) -> tuple[ProcessEntry, ...]:
        """Every process as the API shows it."""
        users: dict[int, str] = {}
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        return tuple(self._entry(stat, now, users) for stat in self.stats())

    def _entry(self, stat: ProcessStat, now: float, users: dict[int, str]) -> ProcessEntry:
        age = max(now - stat.started, 1 / self._ticks)
        return ProcessEntry(
            pid=stat.pid,
            ppid=stat.parent,
            name=stat.name,
            command=self._command(stat.pid) or f"[{stat.name}]",
            user=self._user(stat.pid, users),
            status=_STATES.get(stat.state, stat.state),
            cpu_percent=round(100 * stat.own_seconds / age, 1),
            memory_mb=round(stat.resident_bytes / 1048576, 2),
        )

    def _stat(self, pid: int) -> ProcessStat | None:
        text = read_bounded(f"{self._root}/{pid}/stat", 4096)
        # proc_pid_stat(5): the name is in parentheses and may hold any character, even parentheses.
        opening, closing = text.find(b"("), text.rfind(b")")
        fields = text[closing + 2 :].split()
        if opening < 0 or closing < opening or len(fields) < 22:
            return None
        return ProcessStat(
            pid=pid,
            name=text[opening + 1 : closing].decode("utf-8", "replace"),
            state=fields[0].decode("ascii", "replace"),
            parent=int(fields[1]),
            own_seconds=(int(fields[11]) + int(fields[12])) / self._ticks,
            reaped_seconds=(int(fields[13]) + int(fields[14])) / self._ticks,
            started=int(fields[19]) / self._ticks,
            resident_bytes=int(fields[21]) * self._page,
        )

    def _command(self, pid: int) -> str:
        text = read_bounded(f"{self._root}/{pid}/cmdline", MAX_COMMAND_BYTES)
        return text.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")

    def _user(self, pid: int, users: dict[int, str]) -> str:
        try:
            uid = Path(f"{self._root}/{pid}").stat().st_uid
        except OSError:
            return ""
        if uid not in users:
            users[uid] = _user_name(uid)
        return users[uid]


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def read_bounded(path: str, limit: int) -> bytes:
    """The first bytes of a file of /proc or /sys; none when it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, limit)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
