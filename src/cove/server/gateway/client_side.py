"""The client's end of a connection: what is written to it, and whether it is read."""

import asyncio
import socket
from typing import cast

from cove.server.gateway.counters import GatewayCounters
from cove.server.gateway.heads import RequestHead
from cove.server.gateway.refusals import Plane, Refuse, render
from cove.server.gateway.relay import Peer
from cove.server.gateway.settings import GatewaySettings
from cove.server.gateway.upstreams import WRITE_BUFFER


class ClientSide:
    """A client's transport; after it has begun to close, everything here does nothing.

    Attributes:
        peer: what upstreams are told of the client.
        encrypted: it speaks TLS.
        secure: it speaks TLS, to this server or to something in front of it.
        full: the client reads too slowly; nothing more should be written for now.
    """

    def __init__(self, transport: asyncio.BaseTransport, settings: GatewaySettings, counters: GatewayCounters) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)
        _give_up_silent_peer(transport, settings.stall_seconds)
        self._settings = settings
        self._counters = counters
        self._reading = True
        self._lingered_seconds = 0.0
        self.full = False
        self.encrypted = transport.get_extra_info("sslcontext") is not None
        scheme = "https" if self.encrypted else settings.public_scheme
        self.secure = scheme == "https"
        self.peer = Peer(_address_of(transport), scheme.encode("ascii"))

    def write(self, data: bytes) -> None:
        """Sends."""
        if data and not self._transport.is_closing():
            self._counters.bytes_to_clients += len(data)
            self._transport.write(data)

    def refuse(self, refusal: Refuse, request_id: bytes, *, close: bool, head: RequestHead | None = None) -> None:
        """Sends an answer of the gateway's own; `head` is the request, if one was understood."""
        self._counters.refused(refusal.code)
        head_only = head is not None and head.method == b"HEAD"
        as_page = head is not None and refusal.plane is Plane.PREVIEW and head.takes_pages
        self.write(render(refusal, request_id, close=close, head_only=head_only, as_page=as_page))

    def read(self, reading: bool) -> None:
        """Reads, or lets the client wait."""
        if reading == self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def write_eof(self) -> None:
        """Ends the sending direction after what was written; TLS can only end both (RFC 8446 §6.1)."""
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def close(self) -> None:
        """Closes after what was written."""
        self._transport.close()

    def abort(self) -> None:
        """Closes at once."""
        self._transport.abort()

    def linger(self) -> bool:
        """Called every `linger_seconds` of a close: whether to wait on, because a slow reader still has something to
        get; otherwise the connection has been aborted."""
        self._lingered_seconds += self._settings.linger_seconds
        if self._transport.get_write_buffer_size() and self._lingered_seconds < self._settings.stall_seconds:
            return True
        self._transport.abort()
        return False


def _give_up_silent_peer(transport: asyncio.BaseTransport, seconds: float) -> None:
    """A machine that vanished acknowledges nothing, and the kernel would try on for a quarter of an hour (tcp(7))."""
    sock = cast("socket.socket | None", transport.get_extra_info("socket"))
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def _address_of(transport: asyncio.BaseTransport) -> bytes:
    """The client's IP address; nothing for a unix socket."""
    name = cast(object, transport.get_extra_info("peername"))
    return (
        str(cast(tuple[object, ...], name)[0]).encode("ascii", "replace") if isinstance(name, tuple) and name else b""
    )
