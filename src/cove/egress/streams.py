"""The two ends of a connection as whoever reads its requests sees them: bytes in, bytes out."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

_FAIR_READS: Final = 16
"""After so many reads in a row others have their turn: a socket that always has bytes would never let go."""
_GATHERED: Final = 64 * 1024

Pace = Callable[[int], Awaitable[None]]


class Stream(Protocol):
    """One end. One task receives at a time; several may send."""

    async def receive(self, most: int) -> bytes:
        """What comes next, empty at its end.

        Raises:
            OSError: the connection broke.
        """
        ...

    async def send(self, data: bytes) -> None:
        """All of `data`.

        Raises:
            OSError: the connection broke.
        """
        ...

    def has_ended(self) -> bool:
        """Whether the other side has hung up, or said something out of turn; waits for nothing, and is to be asked only
        when nothing is expected.
        """
        ...

    async def finish(self) -> None:
        """Nothing more is sent; the other side learns of it."""
        ...

    async def discard(self) -> None:
        """Take what still comes, to its end."""
        ...

    def close(self) -> None:
        """At once. Idempotent."""
        ...


class Turns:
    """Lets others have theirs."""

    def __init__(self) -> None:
        self._reads = 0

    async def take(self) -> None:
        """Count one read; wait for the next round of the loop now and then."""
        self._reads += 1
        if self._reads % _FAIR_READS == 0:
            await asyncio.sleep(0)


class Plain:
    """A socket as it is."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._turns = Turns()

    async def receive(self, most: int) -> bytes:
        """See `Stream`."""
        await self._turns.take()
        return await self._loop.sock_recv(self._sock, most)

    async def send(self, data: bytes) -> None:
        """See `Stream`."""
        await self._loop.sock_sendall(self._sock, data)

    def has_ended(self) -> bool:
        """See `Stream`."""
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    async def finish(self) -> None:
        """See `Stream`."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    async def discard(self) -> None:
        """See `Stream`."""
        while await self.receive(65536):
            pass

    def close(self) -> None:
        """See `Stream`."""
        self._sock.close()


class Outlet:
    """Gathers what is to be sent, so that what is there at once goes at once; in its order, whoever sends it."""

    def __init__(self, stream: Stream, pace: Pace) -> None:
        """`pace` is told of the bytes that go, and returns when they may."""
        self.stream = stream
        self._pace = pace
        self._turn = asyncio.Lock()
        self._parts: list[bytes] = []
        self._size = 0

    async def put(self, data: bytes) -> None:
        """To be sent with the next `flush` at the latest.

        Raises:
            OSError: the connection broke.
        """
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _GATHERED:
            await self.flush()

    async def flush(self) -> None:
        """Send it.

        Raises:
            OSError: the connection broke.
        """
        if not self._parts:
            return
        async with self._turn:
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            await self._pace(len(data))
            await self.stream.send(data)
