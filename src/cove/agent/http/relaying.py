"""Bytes both ways between two connections, no faster than the slower side takes them."""

import asyncio
import socket
from collections.abc import Callable
from typing import Self


class RelayEnd(asyncio.Protocol):
    """One of two ends; what comes in at one goes out at the other."""

    transport: asyncio.Transport
    other: Self

    def __init__(self, forget: Callable[["RelayEnd"], None]) -> None:
        """`forget` is told when this end is lost."""
        self._forget = forget
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection of this end."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """On to the other end."""
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        """The other direction stays open until it ends, too."""
        self._ended = True
        if self.other.transport.can_write_eof() and not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return not self.other._ended

    def pause_writing(self) -> None:
        """This side does not take more: read no more from the other."""
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Without this side there is no use for the other."""
        self.other.transport.close()
        self._forget(self)

    def shutdown(self) -> None:
        """The server ends."""
        self.transport.close()


async def relay(transport: asyncio.Transport, sock: socket.socket, forget: Callable[[RelayEnd], None]) -> RelayEnd:
    """Join a connection that is somebody else's until now with a connected socket.

    Returns:
        The end of `transport`, which reads from now on.
    """
    asker = RelayEnd(forget)
    program = RelayEnd(lambda _: None)
    asker.connection_made(transport)
    asker.other, program.other = program, asker
    transport.pause_reading()
    try:
        await asyncio.get_running_loop().create_connection(lambda: program, sock=sock)
    except BaseException:
        sock.close()
        raise
    transport.set_protocol(asker)
    if transport.is_closing():  # the asker has gone meanwhile
        program.transport.close()
    else:
        transport.resume_reading()
    return asker
