"""Connections to upstreams. Each belongs to one client connection and is never lent to another."""

import asyncio
import socket
from pathlib import Path
from typing import Protocol, cast

MAX_IDLE = 4
WRITE_BUFFER = 256 * 1024

_BACKLOG_RETRY_SECONDS = 0.005


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
    """One connection to a unix socket.

    Attributes:
        path: the socket that it leads to.
        idle_since: loop time of its last response, while it waits for another request.
    """

    def __init__(self, owner: UpstreamOwner, path: Path) -> None:
        self.path = path
        self.idle_since = 0.0
        self._owner = owner
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
        self._transport = None
        self._owner.upstream_lost(self, exc)

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

    def take(self, path: Path) -> Upstream | None:
        """A connection to `path` that is still good."""
        for upstream in self._idle:
            if upstream.path == path:
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


async def connect(owner: UpstreamOwner, path: Path, *, seconds: float) -> Upstream:
    """Connects to the socket at `path`.

    Raises:
        OSError: nobody listens there.
        TimeoutError: not within `seconds`.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        async with asyncio.timeout(seconds):
            await _connected(sock, path)
            _, upstream = await loop.create_unix_connection(lambda: Upstream(owner, path), sock=sock)
    except BaseException:
        sock.close()
        raise
    return upstream


async def _connected(sock: socket.socket, path: Path) -> None:
    # unix(7): a full backlog answers EAGAIN at once and nothing tells when it has room again.
    while True:
        try:
            sock.connect(str(path))
        except BlockingIOError:
            await asyncio.sleep(_BACKLOG_RETRY_SECONDS)
        else:
            return
