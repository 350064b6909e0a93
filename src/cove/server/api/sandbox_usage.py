"""What a sandbox uses, beside what it may use."""

from cove.models.hosts import HostUsage
from cove.models.limits import MIB
from cove.models.sandboxes import SandboxUsage, UsageFigure
from cove.models.stored import StoredSandbox


def usage_of(row: StoredSandbox, used: HostUsage, request_id: str) -> SandboxUsage:
    """The answer for one sandbox."""
    limits = row.limits
    disk = None if used.disk_bytes is None else UsageFigure(used=used.disk_bytes, limit=limits.disk_mb * MIB)
    inodes = None if used.inodes is None else UsageFigure(used=used.inodes, limit=used.inodes_limit)
    return SandboxUsage(
        id=row.id,
        status=row.status,
        memory_bytes=UsageFigure(
            used=used.memory_bytes, limit=limits.memory_mb * MIB, peak=max(used.memory_peak_bytes, used.memory_bytes)
        ),
        cpu_seconds=UsageFigure(used=used.cpu_seconds, limit=limits.vcpu),
        pids=UsageFigure(used=used.pids, limit=limits.pids),
        disk_bytes=disk,
        inodes=inodes,
        oom_kills=used.oom_kills,
        network=used.network,
        limits=limits,
        limits_not_enforced=row.unenforced,
        request_id=request_id,
    )
