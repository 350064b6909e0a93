"""Connections to upstreams. Each belongs to one client connection and is never lent to another."""

import asyncio
import contextlib
import socket
from typing import Final, NamedTuple, Protocol, cast

from cove.server.gateway.dialling import PortDialer, connect_unix
from cove.server.gateway.shared_socket import SharedSocketTransport

MAX_IDLE = 4
WRITE_BUFFER = 256 * 1024

_LAST_BYTES: Final = 64 * 1024

_SO_PASSRIGHTS: Final = 83
"""asm-generic/socket.h, Linux 6.16."""


class Destination(NamedTuple):
    """What listens on a unix socket, or on a port of the sandbox whose agent listens there."""

    path: str
    port: int | None = None


class UpstreamOwner(Protocol):
    """The client connection, as its upstreams see it."""

    def upstream_made(self, upstream: "Upstream") -> None:
        """It is connected; `upstream_lost` will follow once."""
        ...

    def upstream_received(self, upstream: "Upstream", data: bytes) -> None:
        """Bytes came."""
        ...

    def upstream_ended(self, upstream: "Upstream") -> bool:
        """It will send no more; answers whether to keep the other direction open."""
        ...

    def upstream_lost(self, upstream: "Upstream", error: Exception | None) -> None:
        """The connection is gone."""
        ...

    def upstream_full(self, upstream: "Upstream", full: bool) -> None:
        """Its write buffer is above, or again below, the mark."""
        ...


class Upstream(asyncio.Protocol):
    """One connection.

    Attributes:
        destination: where it leads.
        idle_since: loop time of its last response, while it waits for another request.
    """

    def __init__(self, owner: UpstreamOwner, destination: Destination, sock: socket.socket) -> None:
        self.destination = destination
        self.idle_since = 0.0
        self._owner = owner
        self._sock = sock
        self._transport: asyncio.Transport | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._owner.upstream_made(self)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._owner.upstream_received(self, data)

    def eof_received(self) -> bool:
        """Called by the loop."""
        return self._owner.upstream_ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if isinstance(exc, OSError):
            self._take_last_words()
        self._transport = None
        self._owner.upstream_lost(self, exc)

    def _take_last_words(self) -> None:
        """What came before the connection broke: once a write has failed, transports read no more."""
        with contextlib.suppress(OSError):
            data = self._sock.recv(_LAST_BYTES, socket.MSG_DONTWAIT)
            if data:
                self._owner.upstream_received(self, data)

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._owner.upstream_full(self, True)

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._owner.upstream_full(self, False)

    @property
    def usable(self) -> bool:
        """Whether anything written may still arrive."""
        return self._transport is not None and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Sends, unless it is closing."""
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        """Closes the sending direction after what was written."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def pause(self, paused: bool) -> None:
        """Stops or resumes reading."""
        if paused == self._paused or self._transport is None or self._transport.is_closing():
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self) -> None:
        """Closes after sending what was written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()


class IdleUpstreams:
    """The upstream connections that one client connection may use again, the oldest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reuse_seconds: float) -> None:
        self._loop = loop
        self._reuse_seconds = reuse_seconds
        self._idle: list[Upstream] = []

    def take(self, destination: Destination) -> Upstream | None:
        """A connection to `destination` that is still good."""
        for upstream in self._idle:
            if upstream.destination == destination:
                self._idle.remove(upstream)
                if upstream.usable and self._loop.time() - upstream.idle_since < self._reuse_seconds:
                    return upstream
                upstream.abort()
                return None
        return None

    def give(self, upstream: Upstream) -> None:
        """Keeps a connection whose response is complete."""
        upstream.idle_since = self._loop.time()
        upstream.pause(False)
        self._idle.append(upstream)
        if len(self._idle) > MAX_IDLE:
            self._idle.pop(0).abort()

    def discard(self, upstream: Upstream) -> None:
        """Drops a connection that ended, or spoke without being asked."""
        if upstream in self._idle:
            self._idle.remove(upstream)
        upstream.abort()

    def close(self) -> None:
        """Drops all."""
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.abort()


async def connect(owner: UpstreamOwner, to: Destination, dialer: PortDialer, *, seconds: float) -> Upstream:
    """Connects.

    Raises:
        OSError: it cannot be reached.
        TimeoutError: not within `seconds`.
        CoveError: PORT_NOT_OPEN.
    """
    if to.port is None:
        return await _connect_unix(owner, to, seconds)
    sock = await dialer.dial(to.path, to.port)
    upstream = Upstream(owner, to, sock)
    SharedSocketTransport(asyncio.get_running_loop(), sock, upstream)
    return upstream


async def _connect_unix(owner: UpstreamOwner, to: Destination, seconds: float) -> Upstream:
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # What an agent attaches to its bytes would be dropped here, and the kernel would release it on this thread.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
        async with asyncio.timeout(seconds):
            await connect_unix(sock, to.path)
            _, upstream = await loop.create_unix_connection(lambda: Upstream(owner, to, sock), sock=sock)
    except BaseException:
        sock.close()
        raise
    return upstream
