"""The driver seam: what a back end must do to isolate sandboxes.

A driver is used by the host daemon only. Infrastructure failures are `CoveError`s with cause and remedy; what a
driver cannot do is data (`Capabilities`) and is refused before anything is touched.
"""

from typing import Protocol

from cove.models.hosts import HostUsage, SandboxRecord, SandboxSpec
from cove.models.isolation import DriverReport, Isolation
from cove.models.templates import TemplateManifest


class RuntimeDriver(Protocol):
    """One isolation back end on one machine."""

    @property
    def isolation(self) -> Isolation:
        """The level that this driver gives."""
        ...

    async def check(self) -> DriverReport:
        """Start a tiny sandbox, bounded in time, and say what was learnt. Never raises; the verdict is cached."""
        ...

    async def create(self, spec: SandboxSpec, template: TemplateManifest) -> SandboxRecord:
        """Start a sandbox; return when its agent accepts connections on `socket_path`.

        Raises:
            CoveError: SANDBOX_START_FAILED, LIMIT_NOT_ENFORCEABLE, DISK_FULL, CAPACITY_EXHAUSTED. Nothing is
                left behind then.
        """
        ...

    async def destroy(self, record: SandboxRecord) -> None:
        """End every process of the sandbox and free all it held. Idempotent; bounded in time."""
        ...

    async def pause(self, record: SandboxRecord) -> None:
        """Stop all processes where they are; memory stays. Idempotent."""
        ...

    async def resume(self, record: SandboxRecord) -> None:
        """Let a paused sandbox go on. Idempotent."""
        ...

    async def adopt(self, record: SandboxRecord) -> bool:
        """Take over a sandbox that an earlier daemon started. False when it is dead (its remains are cleaned)."""
        ...

    async def wait(self, record: SandboxRecord) -> None:
        """Return when the sandbox's first process has ended."""
        ...

    async def usage(self, record: SandboxRecord) -> HostUsage:
        """Current resource use.

        Raises:
            CoveError: SANDBOX_NOT_FOUND when it is gone.
        """
        ...

    async def warm(self, template: TemplateManifest) -> None:
        """Get ready to start sandboxes of `template` fast. Idempotent."""
        ...

    async def sweep(self, known: frozenset[str]) -> None:
        """Remove what belongs to sandboxes that are not in `known` (ids): remains of a crash."""
        ...

    async def close(self) -> None:
        """Release what the driver itself holds. Sandboxes that still run go on running."""
        ...
