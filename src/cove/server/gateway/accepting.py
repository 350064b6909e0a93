"""TLS and plain connections on one port, told apart by their first byte."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Final

from cove.linux.readiness import readable
from cove.server.gateway.certificate import ServerCertificate
from cove.server.gateway.settings import GatewaySettings

_TLS_HANDSHAKE: Final = b"\x16"
"""Content type of the record that begins every TLS connection (RFC 8446 §5.1); no HTTP request begins with it."""
_SHORT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RECOVERY_SECONDS: Final = 0.2
_SHUTDOWN_SECONDS: Final = 2.0


class MixedListener:
    """Accepts on a bound stream socket, which it owns.

    Args:
        protocol: makes the protocol of a connection, which begins with its first byte of HTTP.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        certificate: ServerCertificate,
        settings: GatewaySettings,
        backlog: int,
    ) -> None:
        sock.setblocking(False)
        sock.listen(backlog)
        self._sock = sock
        self._protocol = protocol
        self._certificate = certificate
        self._settings = settings
        self._greeted: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Accepts no more; connections that have not said what they are, or are shaking hands, are dropped."""
        for task in (self._accepting, *self._greeted):
            task.cancel()
        self._accepting.add_done_callback(lambda _: self._sock.close())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._sock)
            except OSError as problem:
                if problem.errno in _SHORT_OF_RESOURCES:
                    await asyncio.sleep(_RECOVERY_SECONDS)
                continue
            if len(self._greeted) >= self._settings.max_connections:
                connection.close()
                continue
            task = loop.create_task(self._greet(connection))
            self._greeted.add(task)
            task.add_done_callback(self._greeted.discard)

    async def _greet(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        seconds = self._settings.handshake_seconds
        try:
            connection.setblocking(False)
            async with asyncio.timeout(seconds):
                first = await _first_byte(connection)
        except OSError:  # TimeoutError is one
            connection.close()
            return
        except BaseException:
            connection.close()
            raise
        if not first:
            connection.close()
        elif first == _TLS_HANDSHAKE:
            with contextlib.suppress(OSError):  # ssl.SSLError is one
                await loop.connect_accepted_socket(
                    self._protocol,
                    connection,
                    ssl=self._certificate.context,
                    ssl_handshake_timeout=seconds,
                    ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
                )
        else:
            await loop.connect_accepted_socket(self._protocol, connection)


async def _first_byte(connection: socket.socket) -> bytes:
    """The first byte, which stays to be read; nothing if the client has closed."""
    while True:
        try:
            return connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            pass
        await readable(connection.fileno())
