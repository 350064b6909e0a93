# Generated from src/cove/sdk/_async/condition.py by tools/generate_sync_sdk.py. Do not edit.

"""What a sandbox says of itself, and waiting for it to change."""

import builtins
import time
from typing import TYPE_CHECKING, Any

from cove.models.agent import AgentInfo, ProcessEntry, ProcessList
from cove.models.errors import CoveError, error
from cove.models.sandboxes import SandboxInfo, SandboxStatus, SandboxUsage
from cove.sdk import _requests as requests
from cove.sdk._failures import objects_in, parse, parse_object
from cove.sdk._sync.agent import AgentLink
from cove.sdk._sync.control import ControlPlane
from cove.sdk._sync.primitives import wait

if TYPE_CHECKING:
    from cove.sdk._expiry import ExpiryInfo

_HEALTH_SECONDS = 10.0
_FIRST_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 2.0
_GONE = ("SANDBOX_NOT_FOUND", "SANDBOX_EXPIRED", "SANDBOX_DIED")


class Condition:
    """The methods of a sandbox that look at it.

    Attributes:
        info: what the server said last; `get_info` asks again.
    """

    info: SandboxInfo
    _link: AgentLink
    _control: ControlPlane

    @property
    def agent_url(self) -> str:
        """Where the agent's HTTP API is; requests there need `get_token()`."""
        return self.info.public_host.rstrip("/")

    def get_info(self) -> SandboxInfo:
        """What the server knows of it now; `info` is updated too."""
        self.info = self._control.get(self.info.id)
        return self.info

    def get_usage(self) -> SandboxUsage:
        """What it uses now, each with its limit. The host counts this; it works on a paused one too."""
        return self._control.usage(self.info.id)

    def get_time_to_expiry(self) -> int | None:
        """Seconds until the deadline, negative once it is over; None without one."""
        return (self.get_expiry_info()).time_to_expiry

    def is_expiring_soon(self, threshold_seconds: int = 300) -> bool:
        """Whether the deadline is no further off than that; false without one."""
        return (self.get_expiry_info(threshold_seconds)).is_expiring_soon

    def get_expiry_info(self, expiring_soon_threshold: int = 300) -> "ExpiryInfo":
        """The deadline, asked of the server, by this machine's clock."""
        from cove.sdk._expiry import ExpiryInfo

        return ExpiryInfo.of(self.get_info(), threshold_seconds=expiring_soon_threshold)

    def is_healthy(self) -> bool:
        """Whether it can run code now."""
        try:
            self.ensure_healthy()
        except CoveError:
            return False
        return True

    def ensure_healthy(self) -> None:
        """Return when it can run code now.

        Raises:
            CoveError: it cannot, and why: it is gone, does not run, or its agent does not answer.
        """
        try:
            health = parse_object(self._link.send(requests.get("/health", timeout=_HEALTH_SECONDS)))
        except CoveError:
            _require_running(self.get_info())
            raise
        if health.get("status") != "healthy":
            raise error("AGENT_UNREACHABLE", f"The agent says {str(health.get('status'))[:100]!r}, not healthy.")

    def wait_until(self, status: SandboxStatus | str, *, timeout: float = 60) -> SandboxInfo:
        """Wait until it is `running`, `paused`, `stopped`, or `deleted`: gone, for whatever reason.

        Args:
            timeout: seconds.

        Raises:
            NotFound: it is gone, and that was not waited for.
            PlatformFailure: TIMEOUT.
        """
        wanted = _status(status)
        deadline = time.monotonic() + requests.check_seconds("timeout", timeout)
        pause = _FIRST_POLL_SECONDS
        while True:
            info = self._look(wanted)
            if info.status is wanted:
                return info
            left = deadline - time.monotonic()
            if left <= 0:
                raise error("TIMEOUT", f"Sandbox {info.id} is {info.status}, not {wanted}, after {timeout:g} s.")
            wait(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    def wait(self, timeout: float = 3600) -> None:
        """Wait until it is gone: killed, expired or crashed.

        Args:
            timeout: seconds.

        Raises:
            PlatformFailure: TIMEOUT: it is still there.
        """
        self.wait_until(SandboxStatus.DELETED, timeout=timeout)

    def get_agent_info(self) -> AgentInfo:
        """What the agent says of itself."""
        return parse(AgentInfo, self._link.send(requests.get("/info")))

    def get_agent_metrics(self) -> dict[str, Any]:
        """As `get_metrics_snapshot`."""
        return self.get_metrics_snapshot()

    def get_metrics_snapshot(self) -> dict[str, Any]:
        """Counters of the agent and the sandbox's use of processor, memory and disk."""
        return parse_object(self._link.send(requests.get("/metrics/snapshot")))

    def get_jupyter_sessions(self) -> builtins.list[dict[str, Any]]:
        """Python interpreters that run inside, and what they do."""
        return objects_in(self._link.send(requests.get("/jupyter/sessions")), "sessions")

    def list_system_processes(self) -> builtins.list[ProcessEntry]:
        """Processes inside."""
        return [*parse(ProcessList, self._link.send(requests.get("/processes"))).processes]

    def _look(self, wanted: SandboxStatus) -> SandboxInfo:
        try:
            return self.get_info()
        except CoveError as failure:
            if failure.code not in _GONE or wanted is not SandboxStatus.DELETED:
                raise
        self.info = self.info.model_copy(update={"status": SandboxStatus.DELETED})
        return self.info


def _status(status: SandboxStatus | str) -> SandboxStatus:
    try:
        return SandboxStatus(status)
    except ValueError:
        known = ", ".join(SandboxStatus)
        raise error("INVALID_REQUEST", f"{str(status)[:40]!r} is no status; there are {known}.") from None


def _require_running(info: SandboxInfo) -> None:
    if info.status is not SandboxStatus.RUNNING:
        raise error("INVALID_STATE", f"Sandbox {info.id} is {info.status}, not running.")
