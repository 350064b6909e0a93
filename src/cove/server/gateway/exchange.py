"""What a client connection works with: the gateway's shared state, and the one exchange in progress."""

import asyncio
import sys
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Final, Protocol

from cove.core.ports import AgentDirectory, SandboxEnds
from cove.core.states import not_running
from cove.server.gateway.audited import Audit
from cove.server.gateway.counters import GatewayCounters
from cove.server.gateway.dialling import PortDialer
from cove.server.gateway.refusals import Plane, Refuse, refuse, refuse_error
from cove.server.gateway.relay import RequestRelay, ResponseRelay
from cove.server.gateway.routing import CARRYING_CODE, UPLOADS, ToAgent, ToControlPlane, ToPort
from cove.server.gateway.settings import GatewaySettings
from cove.server.gateway.upstreams import Upstream
from cove.server.gateway.visitors import TokenVerifier

END_NEWS_SECONDS: Final = 1.0
"""The host tells of the end of a sandbox some milliseconds after its agent breaks off."""


class Drainable(Protocol):
    """A connection, as the gateway sees it when it closes."""

    def drain(self) -> None:
        """End after the present exchange."""
        ...

    def abort(self) -> None:
        """End at once."""
        ...


@dataclass(slots=True)
class Surroundings:
    """What all connections of a gateway share.

    Attributes:
        upstreams: connections to upstreams that are open.
        draining: the gateway is closing; each connection ends after its present exchange.
        emptied: set whenever the last connection of either kind has ended.
        ends: knows why sandboxes have ended.
    """

    control_plane: Path
    directory: AgentDirectory
    tokens: TokenVerifier
    settings: GatewaySettings
    dialer: PortDialer
    audit: Audit
    counters: GatewayCounters = field(default_factory=GatewayCounters)
    connections: set[Drainable] = field(default_factory=set[Drainable])
    upstreams: int = 0
    draining: bool = False
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
    ends: SandboxEnds | None = None

    def forget(self, connection: Drainable) -> None:
        """Takes note of the end of a connection."""
        self.connections.discard(connection)
        self.counters.connections_open -= 1
        self._note_emptied()

    def forget_upstream(self) -> None:
        """Takes note of the end of a connection to an upstream."""
        self.upstreams -= 1
        self._note_emptied()

    @property
    def empty(self) -> bool:
        """Whether no connection of either kind is open."""
        return not self.connections and not self.upstreams

    def _note_emptied(self) -> None:
        if self.empty:
            self.emptied.set()


class Phase(Enum):
    """Where a connection is."""

    HEAD = auto()
    CONNECTING = auto()
    EXCHANGE = auto()
    DRAIN = auto()
    SPLICE = auto()
    LINGER = auto()
    CLOSED = auto()


@dataclass(slots=True)
class Exchange:
    """One request and its response.

    Attributes:
        closing: the client was told that its connection is closed afterwards.
        ended: in a splice: one side has said that it sends no more.
    """

    route: ToControlPlane | ToAgent | ToPort
    request: RequestRelay
    response: ResponseRelay
    request_id: bytes
    upstream: Upstream | None = None
    closing: bool = False
    ended: bool = False

    @property
    def plane(self) -> Plane:
        """Whose error form fits."""
        return plane_of(self.route)

    @property
    def may_be_slow(self) -> bool:
        """Whether the request's body may take any time. One for the control plane is small: it has its time as a
        whole, so that nobody drips it."""
        route = self.route
        return self.request.done or not isinstance(route, ToControlPlane) or route.target.startswith(UPLOADS)


def plane_of(route: ToControlPlane | ToAgent | ToPort) -> Plane:
    """Whose error form fits."""
    match route:
        case ToControlPlane():
            return route.plane
        case ToAgent():
            return Plane.AGENT
        case ToPort():
            return Plane.PREVIEW


def body_limit(route: ToControlPlane | ToAgent | ToPort, settings: GatewaySettings) -> int:
    """Bytes that a request's body may have."""
    match route:
        case ToControlPlane():
            if route.target.startswith(UPLOADS):
                return settings.max_upload_body_bytes
            carries_code = route.target.partition(b"?")[0] in CARRYING_CODE
            return settings.max_code_body_bytes if carries_code else settings.max_control_body_bytes
        case ToAgent():
            return settings.max_agent_body_bytes
        case ToPort():
            return sys.maxsize  # it is streamed, and the program knows what it takes


def patience(
    phase: Phase, exchange: Exchange | None, settings: GatewaySettings, *, full: bool, upstream_full: bool
) -> float:
    """Seconds that a phase may go without a byte. `full` and `upstream_full` say who reads too slowly."""
    if phase is Phase.SPLICE and exchange is not None and exchange.ended:
        return settings.linger_seconds
    if full:
        return settings.stall_seconds
    if phase is Phase.SPLICE:
        return settings.splice_idle_seconds
    if exchange is not None and not exchange.request.done and not upstream_full:
        return settings.body_seconds
    return settings.response_seconds


def may_have_ended(exchange: Exchange, shared: Surroundings) -> bool:
    """Whether the agent broke off because its sandbox ends, of which the host's word is still to come."""
    upstream, route = exchange.upstream, exchange.route
    broken = upstream is None or not upstream.usable
    return (
        isinstance(route, ToAgent)
        and shared.ends is not None
        and broken
        and exchange.request.done
        and not exchange.response.started
        and shared.directory.socket_of(route.sandbox_id) is not None
    )


async def failure_with_news(exchange: Exchange, shared: Surroundings, reason: str) -> Refuse:
    """As `failure`, when the sandbox is known to have ended, or after `END_NEWS_SECONDS`."""
    if shared.ends is not None and isinstance(exchange.route, ToAgent):
        await shared.ends.wait_ended(exchange.route.sandbox_id, END_NEWS_SECONDS)
    return failure(exchange, shared, reason)


def failure(exchange: Exchange, shared: Surroundings, reason: str) -> Refuse:
    """What to answer when an upstream could not be reached, or broke off."""
    route, directory = exchange.route, shared.directory
    if isinstance(route, ToControlPlane):
        return refuse("HOST_UNAVAILABLE", f"The control plane failed: {reason}.", Plane.CONTROL)
    plane, sandbox_id = plane_of(route), route.sandbox_id
    # Clients repeat a request after a 502: of a sandbox that has ended meanwhile there is nothing to repeat.
    if (state := directory.state_of(sandbox_id)) is None:
        limit = "" if shared.ends is None else shared.ends.limit_that_ended(sandbox_id)
        if limit:
            message = f"Sandbox {sandbox_id} ended while the request was in progress, stopped by the limit: {limit}."
            return refuse("SANDBOX_DIED", message, plane, reason=limit)
        message = f"Sandbox {sandbox_id} was not found any more: it ended while the request was in progress."
        return refuse("SANDBOX_NOT_FOUND", message, plane)
    if directory.socket_of(sandbox_id) is None:
        return refuse_error(not_running(sandbox_id, state), plane)
    if isinstance(route, ToPort) and exchange.upstream is not None:
        return refuse("BAD_RESPONSE", f"The program at port {route.port} of the sandbox failed: {reason}.", plane)
    return refuse("AGENT_UNREACHABLE", f"The agent of sandbox {sandbox_id} failed: {reason}.", plane)
