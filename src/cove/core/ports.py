"""The seams that `core` sees: it knows these Protocols and no implementation."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

from cove.models.hosts import HostCapacity, HostChanges, HostUsage, SandboxRecord, SandboxSpec
from cove.models.isolation import DriverReport
from cove.models.network import EgressPolicy, EgressTotals, NetworkReport
from cove.models.previews import PreviewTerms
from cove.models.sandboxes import SandboxStatus
from cove.models.secrets import EgressSecret
from cove.models.templates import BuildProgress, TemplateDerivation, TemplateManifest


class Host(Protocol):
    """One machine that runs sandboxes: in this process, or behind the host daemon's socket.

    Every method may raise `CoveError`; HOST_UNAVAILABLE when the daemon does not answer.
    """

    async def capacity(self) -> HostCapacity:
        """What the machine has, what is taken, and which drivers work."""
        ...

    async def check(self) -> tuple[DriverReport, ...]:
        """Boot-probe every driver; verdicts are cached by the host."""
        ...

    async def create(self, spec: SandboxSpec) -> SandboxRecord:
        """Start a sandbox; returns when its agent accepts connections.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND, TEMPLATE_NOT_BUILT, ISOLATION_UNAVAILABLE, CONFLICT (id is taken),
                and what `RuntimeDriver.create` raises.
        """
        ...

    async def destroy(self, sandbox_id: str) -> None:
        """End and remove a sandbox. Idempotent: an unknown id is fine."""
        ...

    async def claim(self, sandbox_id: str, deadline: float | None) -> SandboxRecord:
        """Turn a pooled member into an ordinary sandbox with a deadline (unix seconds; None means never).

        Raises:
            CoveError: SANDBOX_NOT_FOUND when the member died meanwhile.
        """
        ...

    async def set_deadline(self, sandbox_id: str, deadline: float | None) -> None:
        """Change when the host kills it on its own (unix seconds; None means never)."""
        ...

    async def set_network(self, sandbox_id: str, policy: EgressPolicy | None) -> None:
        """Put a policy in force for a sandbox, at once; None takes its network away. A stopped one has it at its start.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; UNSUPPORTED: its driver has no networks, or this machine cannot.
        """
        ...

    async def set_secrets(self, sandbox_id: str, changed: tuple[EgressSecret, ...], removed: tuple[str, ...]) -> None:
        """Give it secrets, in place of those of the same names, and take those away that are named in `removed`; in
        force at once, also for what is connected, and kept while it is stopped.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; INVALID_REQUEST when it would have too many; HOST_UNAVAILABLE or DISK_FULL:
                then it may be called again.
        """
        ...

    async def network(self, sandbox_id: str, after: int) -> NetworkReport:
        """What it did on the network: totals, and entries with a sequence number above `after`."""
        ...

    async def pause(self, sandbox_id: str) -> None:
        """Freeze all its processes. Idempotent."""
        ...

    async def resume(self, sandbox_id: str) -> None:
        """Thaw it. Idempotent."""
        ...

    async def stop(self, sandbox_id: str, env_vars: Mapping[str, str]) -> None:
        """End all its processes and keep its disk. Idempotent.

        Args:
            env_vars: what the next start puts in force.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; UNSUPPORTED (then nothing was touched).
        """
        ...

    async def start(self, sandbox_id: str) -> SandboxRecord:
        """Let a stopped sandbox run again, on its disk; returns when its agent accepts connections. Idempotent.

        Raises:
            CoveError: SANDBOX_NOT_FOUND, TEMPLATE_NOT_BUILT (not in the version that it stands on), and what
                `RuntimeDriver.start` raises; it stays stopped then.
        """
        ...

    async def list(self) -> tuple[SandboxRecord, ...]:
        """Every sandbox that exists here, pooled and stopped ones included."""
        ...

    async def changes(self, cursor: str, seconds: float) -> HostChanges:
        """What ended by itself since `cursor` (empty: from now on); waits up to so many seconds for something."""
        ...

    async def usage(self, sandbox_id: str) -> HostUsage:
        """Current resource use."""
        ...

    async def network_totals(self) -> EgressTotals:
        """What all sandboxes did on the network, ended ones included, since it is counted; it may begin anew."""
        ...

    async def templates(self) -> tuple[TemplateManifest, ...]:
        """Templates that are built here."""
        ...

    async def warm(self, template: str) -> None:
        """Start the template's warm process, so that later creates are fast. Idempotent."""
        ...

    async def derive_template(self, derivation: TemplateDerivation) -> TemplateManifest:
        """Make a template of another one and of what a build left; one of the same name is replaced.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND, TEMPLATE_NOT_BUILT (the base), TEMPLATE_BUILD_FAILED, DISK_FULL.
        """
        ...

    async def remove_template(self, name: str) -> None:
        """Remove a derived template; sandboxes that stand on it go on. Idempotent."""
        ...

    def build_template(self, name: str) -> AsyncIterator[BuildProgress]:
        """Build a template from its recipe, unless it is built already.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND, TEMPLATE_BUILD_FAILED, DISK_FULL.
        """
        ...


class AgentDirectory(Protocol):
    """Where the agents of running sandboxes are; asked by the gateway for each connection."""

    def socket_of(self, sandbox_id: str) -> Path | None:
        """Unix socket of the sandbox's agent, or None when no such sandbox runs: then `state_of` says why."""
        ...

    def state_of(self, sandbox_id: str) -> SandboxStatus | None:
        """The state of a sandbox, or None when there is no such sandbox (any more)."""
        ...

    def previews_of(self, sandbox_id: str) -> PreviewTerms | None:
        """What holds for the previews of a sandbox, or None when there is no such sandbox (any more)."""
        ...


class SandboxEnds(Protocol):
    """Which sandboxes have ended, and what ended them; asked by the gateway when one breaks off an answer."""

    async def wait_ended(self, sandbox_id: str, seconds: float) -> None:
        """Return when there is no such sandbox (any more), `seconds` from now at the latest."""
        ...

    def limit_that_ended(self, sandbox_id: str) -> str:
        """The limit that ended a sandbox lately, in words ("memory 512 MiB"); empty where it was nothing like that."""
        ...
