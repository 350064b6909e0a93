"""What a sandbox may use."""

from pydantic import Field

from cove.models.base import Contract

MIB = 1024 * 1024
NORMAL_CPU_SHARE = 100
MAX_CPU_SHARE = 10_000
INODES_PER_MB = 64
"""That a disk brings, unless others are asked for."""
MUST_HOLD = frozenset({"vcpu", "memory_mb", "disk_mb", "pids", "open_files"})
"""Names of the `Limits` that bound a sandbox also where nobody asked for anything: a server that cannot enforce one of
them starts no sandboxes, unless its operator says that it may be missing."""
ENFORCED_BY_AGENT = frozenset({"max_execution_seconds", "max_output_bytes"})
"""Those that need nothing of the host. They bound what is asked of the agent, not what a program does."""
ENFORCED_BY_EGRESS = frozenset({"network_mbps"})
"""Those that hold wherever a sandbox has a network at all: it has no other way out."""
MAX_NETWORK_MBPS = 1_000_000


class Limits(Contract):
    """Upper bounds for one sandbox; they are ceilings, not reservations.

    Attributes:
        vcpu: processors that it may keep busy.
        memory_mb: memory in MiB, swap excluded.
        disk_mb: bytes that it may write to its root filesystem, in MiB.
        pids: processes and threads.
        open_files: descriptors of each process.
        inodes: files and directories that it may have on its disk; None means as many as a disk of its size brings.
        cpu_share: its weight among all sandboxes of the host when there are not enough processors; 100 is normal.
        max_execution_seconds: the longest that one execution in it may take; None means the agent's own maximum.
        max_output_bytes: the most that the agent keeps of one execution's output; None means the agent's own maximum.
        network_mbps: what its connections to the outside may carry each way, all together, in million bits a second;
            None means as much as there is. Not what comes in by preview URLs and the API.
    """

    vcpu: int = Field(default=2, ge=1, le=256)
    memory_mb: int = Field(default=1024, ge=64, le=1024 * 1024)
    disk_mb: int = Field(default=2048, ge=64, le=1024 * 1024)
    pids: int = Field(default=512, ge=16, le=65536)
    open_files: int = Field(default=4096, ge=64, le=1048576)
    inodes: int | None = Field(default=None, ge=256, le=2**31)
    cpu_share: int = Field(default=NORMAL_CPU_SHARE, ge=1, le=MAX_CPU_SHARE)
    max_execution_seconds: int | None = Field(default=None, ge=1, le=30 * 24 * 3600)
    max_output_bytes: int | None = Field(default=None, ge=1024, le=2**40)
    network_mbps: int | None = Field(default=None, ge=1, le=MAX_NETWORK_MBPS)
