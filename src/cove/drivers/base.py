"""The driver seam: what a back end must do to isolate sandboxes.

A driver is used by the host daemon only. Infrastructure failures are `CoveError`s with cause and remedy; what a
driver cannot do is data (`Capabilities`) and is refused before anything is touched.
"""

import socket
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from cove.models.errors import CoveError, error
from cove.models.hosts import HostUsage, SandboxRecord, SandboxSpec
from cove.models.isolation import Capabilities, DriverReport, Isolation
from cove.models.templates import TemplateManifest


def cannot_stop(isolation: Isolation) -> CoveError:
    """For drivers without `stop_start`, before anything is touched."""
    return error(
        "UNSUPPORTED",
        f"Sandboxes with {isolation} isolation cannot be stopped and started on this host: their disk is memory.",
        remedy="Pause and resume keep processes and memory. For stop and start run Cove as root.",
    )


async def or_doubt(driver: "RuntimeDriver", start: Awaitable[SandboxRecord]) -> SandboxRecord:
    """A start by `driver`; when it fails, what an earlier probe has found is not believed any more."""
    try:
        return await start
    except CoveError as problem:
        if problem.code == "SANDBOX_START_FAILED":
            driver.doubt()
        raise


class RuntimeDriver(Protocol):
    """One isolation back end on one machine."""

    @property
    def isolation(self) -> Isolation:
        """The level that this driver gives."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do on this host, known without a probe."""
        ...

    async def check(self, *, fresh: bool = False) -> DriverReport:
        """Start a tiny sandbox, bounded in time, and say what was learnt. Never raises; the verdict is remembered
        (`BootProbe`), unless `fresh`."""
        ...

    def doubt(self) -> None:
        """A start has failed, so the machine may not be any more as it was when it was probed."""
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

    async def stop(self, record: SandboxRecord) -> SandboxRecord:
        """End all processes and free everything but the disk, and what belongs to it (its user ids). What was
        written is on the host's disk afterwards. Idempotent; goes on where an earlier call was cut off.

        Returns:
            The record of the stopped sandbox.

        Raises:
            CoveError: UNSUPPORTED, then nothing was touched; INTERNAL_ERROR, then it may be called again.
        """
        ...

    async def start(
        self, record: SandboxRecord, template: TemplateManifest, env_vars: Mapping[str, str]
    ) -> SandboxRecord:
        """Let a stopped sandbox run again: same id, disk, limits and user ids; the template must be the very same.

        Raises:
            CoveError: what `create` raises; SANDBOX_NOT_FOUND when the disk is gone; CONFLICT when another sandbox
                has its user ids. It stays stopped then.
        """
        ...

    async def adopt(self, record: SandboxRecord) -> bool:
        """Take over a sandbox that an earlier daemon started. False when it is dead (its remains are cleaned).

        One that is stopped, or was being stopped or started, is stopped afterwards; dead when its disk is gone.
        """
        ...

    async def wait(self, record: SandboxRecord) -> None:
        """Return when the sandbox's first process has ended."""
        ...

    async def limit_at_end(self, record: SandboxRecord) -> str:
        """Of a sandbox that has ended by itself, before it is destroyed: the limit that it ran into, in the words of
        results of programs ("memory 512 MiB"); empty when it was none, or that cannot be known. Never raises."""
        ...

    async def capture(self, record: SandboxRecord) -> Sequence[socket.socket]:
        """The sockets to which everything goes that a running sandbox sends (`cove.linux.redirection`), closed; they
        are the caller's. Only where `capabilities.internet`.

        Raises:
            CoveError: UNSUPPORTED; SANDBOX_NOT_FOUND when it does not run.
        """
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
