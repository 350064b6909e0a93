"""What the sandbox uses of its limits, measured from inside."""

import os
import time
from collections.abc import Callable
from typing import Any

from cove.agent.processes import ProcessStat, ProcessTable, read_bounded
from cove.models.limits import MIB, Limits

_MIN_SAMPLE_SECONDS = 0.05
_MAX_DETAILED_PROCESSES = 32
_CGROUP_MEMORY_FILES = (
    ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.max"),
    ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class ResourceUsage:
    """Processor, memory, disk and process figures of this sandbox.

    Nothing runs in the background: processor load is the mean since the previous question.
    """

    def __init__(
        self,
        limits: Limits,
        workspace: str,
        *,
        processes: ProcessTable | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._workspace = workspace
        self._processes = processes or ProcessTable()
        self._clock = clock
        self._sampled_at = clock()
        self._sampled_seconds = 0.0
        self._load = 0.0

    def snapshot(self) -> dict[str, Any]:
        """`{"system": {cpu, memory, disk}, "process": {count}}` as `/metrics/snapshot` shows it."""
        stats = tuple(self._processes.stats())
        return {
            "system": {"cpu": self._cpu(stats), "memory": self._memory(stats), "disk": self._disk()},
            "process": {"count": len(stats), "limit": self._limits.pids},
        }

    def _cpu(self, stats: tuple[ProcessStat, ...]) -> dict[str, Any]:
        now = self._clock()
        elapsed = now - self._sampled_at
        if elapsed >= _MIN_SAMPLE_SECONDS:
            # What a process used moves to its parent when it is reaped, so the sum only grows.
            seconds = sum(stat.own_seconds + stat.reaped_seconds for stat in stats)
            used = max(0.0, seconds - self._sampled_seconds)
            self._load = min(100.0, 100 * used / elapsed / self._limits.vcpu)
            self._sampled_at, self._sampled_seconds = now, seconds
        return {"usage_percent": round(self._load, 2), "cores": self._limits.vcpu}

    def _memory(self, stats: tuple[ProcessStat, ...]) -> dict[str, Any]:
        total = self._limits.memory_mb * MIB
        used = _cgroup_memory(total)
        if used is None:
            used = _process_memory(stats)
        return _share(total, used)

    def _disk(self) -> dict[str, Any]:
        try:
            status = os.statvfs(self._workspace)
        except OSError:
            return _share(self._limits.disk_mb * MIB, 0)
        size = status.f_blocks * status.f_frsize
        free = status.f_bavail * status.f_frsize
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        return _share(min(size, self._limits.disk_mb * MIB), used, available=free)


def _share(total: int, used: int, *, available: int | None = None) -> dict[str, Any]:
    left = max(0, total - used)
    return {
        "total_mb": round(total / MIB, 2),
        "used_mb": round(used / MIB, 2),
        "available_mb": round((left if available is None else min(available, total)) / MIB, 2),
        "usage_percent": round(min(100.0, 100 * used / total), 2) if total else 0.0,
    }


def _cgroup_memory(limit: int) -> int | None:
    """What the cgroup of the sandbox uses, where it is visible and really that of the sandbox."""
    for usage_path, limit_path in _CGROUP_MEMORY_FILES:
        usage = read_bounded(usage_path, 64).strip()
        bound = read_bounded(limit_path, 64).strip()
        if usage.isdigit() and bound.isdigit() and int(bound) <= limit:
            return int(usage)
    return None


def _process_memory(stats: tuple[ProcessStat, ...]) -> int:
    """Proportional set sizes: processes here share most of their pages with each other and with the template."""
    total = 0
    for number, stat in enumerate(stats):
        detailed = _proportional_bytes(stat.pid) if number < _MAX_DETAILED_PROCESSES else None
        total += stat.resident_bytes if detailed is None else detailed
    return total


def _proportional_bytes(pid: int) -> int | None:
    for line in read_bounded(f"/proc/{pid}/smaps_rollup", 4096).splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None
