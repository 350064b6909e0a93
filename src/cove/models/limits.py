"""What a sandbox may use."""

from pydantic import Field

from cove.models.base import Contract

MIB = 1024 * 1024


class Limits(Contract):
    """Upper bounds for one sandbox; they are ceilings, not reservations.

    Attributes:
        vcpu: processors that it may keep busy.
        memory_mb: memory in MiB, swap excluded.
        disk_mb: bytes that it may write to its root filesystem, in MiB.
        pids: processes and threads.
        open_files: descriptors of each process.
    """

    vcpu: int = Field(default=2, ge=1, le=256)
    memory_mb: int = Field(default=1024, ge=64, le=1024 * 1024)
    disk_mb: int = Field(default=2048, ge=64, le=1024 * 1024)
    pids: int = Field(default=512, ge=16, le=65536)
    open_files: int = Field(default=4096, ge=64, le=1048576)
