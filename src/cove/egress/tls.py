"""One end of a connection that speaks TLS, over a socket of the event loop."""

import asyncio
import contextlib
import socket
import ssl
from typing import Final

from cove.egress.streams import Turns

_RAW: Final = 64 * 1024


class TlsStream:
    """A `Stream`. Its buffers hold no more than what one read of the socket brings, and one call of `send` is given."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        """
        Args:
            server_name: of the server on the other side, which has to prove it; None when this is the server.
        """
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self._flushing = asyncio.Lock()
        self._turns = Turns()

    async def shake_hands(self) -> None:
        """To be done first.

        Raises:
            OSError: it did not come about; `ssl.SSLError` says why.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._read_socket()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # the alert
                raise
            else:
                await self._flush()
                return

    async def receive(self, most: int) -> bytes:
        """See `Stream`. An end that is not announced is one too: lengths of messages tell what is missing."""
        await self._turns.take()
        while True:
            data, is_over = self._decrypted(most)
            if data or is_over:
                return data
            if self._outgoing.pending:
                await self._flush()
            await self._read_socket()

    async def send(self, data: bytes) -> None:
        """See `Stream`."""
        self._tls.write(data)
        await self._flush()

    def has_ended(self) -> bool:
        """See `Stream`."""
        try:
            raw = self._sock.recv(_RAW, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        if not raw:
            return True
        self._incoming.write(raw)  # a ticket for another time perhaps
        try:
            data, is_over = self._decrypted(1)
        except OSError:
            return True
        return is_over or bool(data)

    async def finish(self) -> None:
        """See `Stream`."""
        with contextlib.suppress(OSError):
            self._say_goodbye()
            await self._flush()
            self._sock.shutdown(socket.SHUT_WR)

    async def discard(self) -> None:
        """See `Stream`."""
        while await self._loop.sock_recv(self._sock, _RAW):
            await self._turns.take()

    def close(self) -> None:
        """See `Stream`."""
        if self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._say_goodbye()
                self._sock.send(self._outgoing.read(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            self._sock.close()

    def _say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it wants the other side's, which is not waited for
            self._tls.unwrap()

    def _decrypted(self, most: int) -> tuple[bytes, bool]:
        """What is there, record by record, and whether it is the end."""
        parts: list[bytes] = []
        size = 0
        try:
            while size < most:
                part = self._tls.read(most - size)
                if not part:
                    return b"".join(parts), True
                parts.append(part)
                size += len(part)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b"".join(parts), True
        return b"".join(parts), False

    async def _read_socket(self) -> None:
        raw = await self._loop.sock_recv(self._sock, _RAW)
        if raw:
            self._incoming.write(raw)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """One at a time: records keep their order."""
        async with self._flushing:
            if self._outgoing.pending:
                await self._loop.sock_sendall(self._sock, self._outgoing.read())
