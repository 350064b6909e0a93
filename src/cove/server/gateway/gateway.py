"""The front door: owns the public port and carries every request to the control plane or to one sandbox's agent."""

import asyncio
import dataclasses
import socket
from collections.abc import Sequence
from pathlib import Path

from cove.core.ports import AgentDirectory, SandboxEnds
from cove.server.gateway.accepting import MixedListener
from cove.server.gateway.audited import Audit
from cove.server.gateway.certificate import ServerCertificate
from cove.server.gateway.connection import ClientConnection
from cove.server.gateway.counters import GatewayCounters
from cove.server.gateway.dialling import AgentDialer, PortDialer
from cove.server.gateway.exchange import Surroundings
from cove.server.gateway.settings import GatewaySettings
from cove.server.gateway.visitors import TokenVerifier
from cove.server.listening import BACKLOG

_ABORT_SECONDS = 2.0


class Gateway:
    """An HTTP/1.1 and WebSocket reverse proxy whose upstreams are unix sockets.

    Args:
        control_plane: socket of the control plane.
        directory: knows the agents' sockets.
        tokens: knows which sandbox a token opens.
        settings: bounds.
        certificate: makes TCP ports speak TLS to clients that begin with it, besides plain HTTP.
        audit: hears what goes to agents, and what is refused.
        ends: knows why sandboxes have ended.
        dialer: reaches programs in sandboxes; by default through the agents.
    """

    def __init__(
        self,
        *,
        control_plane: Path,
        directory: AgentDirectory,
        tokens: TokenVerifier,
        settings: GatewaySettings,
        certificate: ServerCertificate | None = None,
        dialer: PortDialer | None = None,
        audit: Audit,
        ends: SandboxEnds | None = None,
    ) -> None:
        self._shared = Surroundings(
            control_plane, directory, tokens, settings, dialer or AgentDialer(), audit, ends=ends
        )
        self._certificate = certificate
        self._servers: list[asyncio.Server | MixedListener] = []
        self._closed = asyncio.Event()

    @property
    def counters(self) -> GatewayCounters:
        """A copy of the counters as they are now."""
        counters = self._shared.counters
        return dataclasses.replace(counters, refusals=dict(counters.refusals))

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts on bound stream sockets (TCP or unix) until `close` is called, or this is cancelled.

        The sockets are owned, and closed, by the gateway from here on.
        """
        try:
            for sock in sockets:
                self._servers.append(await self._listen(sock))
            await self._closed.wait()
        finally:
            self._stop_accepting()
            self._abort_connections()
            self._shared.dialer.close()

    async def close(self, grace_seconds: float) -> None:
        """Stops accepting, lets exchanges in progress end within `grace_seconds`, then breaks off what is left."""
        self._stop_accepting()
        self._shared.draining = True
        for connection in tuple(self._shared.connections):
            connection.drain()
        await self._emptied(grace_seconds)
        self._abort_connections()
        await self._emptied(_ABORT_SECONDS)
        self._closed.set()

    async def _listen(self, sock: socket.socket) -> asyncio.Server | MixedListener:
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            return await loop.create_unix_server(self._connection, sock=sock, backlog=BACKLOG)
        if self._certificate is not None:
            settings = self._shared.settings
            return MixedListener(
                sock, self._connection, certificate=self._certificate, settings=settings, backlog=BACKLOG
            )
        return await loop.create_server(self._connection, sock=sock, backlog=BACKLOG)

    def _connection(self) -> ClientConnection:
        return ClientConnection(self._shared)

    def _stop_accepting(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    def _abort_connections(self) -> None:
        for connection in tuple(self._shared.connections):
            connection.abort()

    async def _emptied(self, seconds: float) -> None:
        """Waits until no connection is left, at most `seconds`."""
        if self._shared.empty:
            return
        self._shared.emptied.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._shared.emptied.wait()
        except TimeoutError:
            return
