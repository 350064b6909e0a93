"""What a client connection works with: the gateway's shared state, and the one exchange in progress."""

import asyncio
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

from cove.core.ports import AgentDirectory
from cove.server.gateway.counters import GatewayCounters
from cove.server.gateway.refusals import Plane
from cove.server.gateway.relay import RequestRelay, ResponseRelay
from cove.server.gateway.routing import ToAgent, ToControlPlane, TokenVerifier
from cove.server.gateway.settings import GatewaySettings
from cove.server.gateway.upstreams import Upstream


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
    """

    control_plane: Path
    directory: AgentDirectory
    tokens: TokenVerifier
    settings: GatewaySettings
    counters: GatewayCounters = field(default_factory=GatewayCounters)
    connections: set[Drainable] = field(default_factory=set[Drainable])
    upstreams: int = 0
    draining: bool = False
    emptied: asyncio.Event = field(default_factory=asyncio.Event)

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

    route: ToControlPlane | ToAgent
    request: RequestRelay
    response: ResponseRelay
    request_id: bytes
    upstream: Upstream | None = None
    closing: bool = False
    ended: bool = False

    @property
    def plane(self) -> Plane:
        """Whose error form fits."""
        return Plane.AGENT if isinstance(self.route, ToAgent) else Plane.CONTROL
