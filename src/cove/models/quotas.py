"""How much a tenant, or one of its keys, may use."""

from typing import Annotated

from pydantic import Field

from cove.models.base import Contract

Ceiling = Annotated[int | None, Field(default=None, ge=0, le=2**40)]


class Quota(Contract):
    """Ceilings; None is no ceiling.

    A sandbox counts with its limits for as long as it exists, also while it is paused or stopped: so it can always be
    resumed or started.

    Attributes:
        max_sandboxes: that exist at the same time.
        max_total_vcpu, max_total_memory_mb, max_total_disk_mb: limits of all of them together.
        max_vcpu, max_memory_mb, max_disk_mb, max_pids, max_open_files, max_inodes, max_cpu_share,
        max_execution_seconds, max_output_bytes, max_network_mbps: limits of any one of them; see `Limits`.
    """

    max_sandboxes: Ceiling = None
    max_total_vcpu: Ceiling = None
    max_total_memory_mb: Ceiling = None
    max_total_disk_mb: Ceiling = None
    max_vcpu: Ceiling = None
    max_memory_mb: Ceiling = None
    max_disk_mb: Ceiling = None
    max_pids: Ceiling = None
    max_open_files: Ceiling = None
    max_inodes: Ceiling = None
    max_cpu_share: Ceiling = None
    max_execution_seconds: Ceiling = None
    max_output_bytes: Ceiling = None
    max_network_mbps: Ceiling = None

    @property
    def is_open(self) -> bool:
        """Whether it has no ceiling at all."""
        return self == UNLIMITED

    def over(self, defaults: "Quota") -> "Quota":
        """These ceilings, and the defaults' where these are silent."""
        return defaults.model_copy(update=self.model_dump(exclude_none=True))

    def within(self, other: "Quota") -> "Quota":
        """Of each ceiling the lower one."""
        mine, others = self.model_dump(exclude_none=True), other.model_dump(exclude_none=True)
        return Quota(**{name: min(mine.get(name, value), value) for name, value in (mine | others).items()})


UNLIMITED = Quota()
PER_SANDBOX = {
    "max_vcpu": "vcpu",
    "max_memory_mb": "memory_mb",
    "max_disk_mb": "disk_mb",
    "max_pids": "pids",
    "max_open_files": "open_files",
    "max_inodes": "inodes",
    "max_cpu_share": "cpu_share",
    "max_execution_seconds": "max_execution_seconds",
    "max_output_bytes": "max_output_bytes",
    "max_network_mbps": "network_mbps",
}
"""Ceiling of any one sandbox -> name of its limit."""
