"""Plain HTTP/1 requests, one by one: on one connection each of them may name another host (RFC 9112 §3.2)."""

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Final, cast

import h11

from cove.models.addresses import IpAddress
from cove.models.host_names import canonical_host

_CHUNK: Final = 64 * 1024
_MAX_HEAD: Final = 64 * 1024
_IDLE_SECONDS: Final = 120.0
_LINGER_SECONDS: Final = 2.0
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOP_BY_HOP: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive"})

Host = str | IpAddress
Connect = Callable[[Host], Awaitable[socket.socket]]


class WebRequests:
    """Serves one connection that a program made: each request goes to the host that it names, if it may."""

    def __init__(self, inside: socket.socket, *, port: int, connect: Connect, refused: type[Exception]) -> None:
        """
        Args:
            port: that the program connected to; the one that requests name must be the same.
            connect: to a host; raises `refused` with the reason when it may not be.
        """
        self._loop = asyncio.get_running_loop()
        self._inside = inside
        self._port = port
        self._connect = connect
        self._refused = refused
        self._client = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._outside: socket.socket | None = None
        self._host: Host = ""
        self.sent_bytes = self.received_bytes = 0

    async def serve(self) -> None:
        """Until either side ends.

        Raises:
            OSError: the connection broke.
            Exception: `refused`, after the program was answered.
        """
        try:
            while await self._serve_one():
                self._client.start_next_cycle()
        finally:
            if self._outside:
                self._outside.close()

    async def _serve_one(self) -> bool:
        """Whether another request may follow."""
        try:
            request = await self._next_from_program()
            if not isinstance(request, h11.Request):
                return False
            host = self._host_of(request)
            server = await self._to(host)
        except h11.RemoteProtocolError as problem:
            await self._answer(400, f"This request cannot be read: {problem}")
            raise self._refused(f"its request cannot be read: {problem}") from None
        except self._refused as problem:
            await self._answer(403, f"{problem}")
            raise
        return await self._exchange(request, server)

    def _host_of(self, request: h11.Request) -> Host:
        """In its one spelling.

        Raises:
            Exception: `refused`: it names none, or two.
        """
        names = [value for name, value in request.headers if name == b"host"]
        target = request.target
        if request.method == b"CONNECT":
            raise self._refused("CONNECT is for proxies; there is none to ask")
        if target.startswith(b"http://"):
            named = target[len(b"http://") :].partition(b"/")[0]
            if names != [named]:
                raise self._refused("it names two different hosts")
        elif not target.startswith((b"/", b"*")):
            raise self._refused("its target is neither a path nor an http:// URL")
        if len(names) != 1:
            raise self._refused("it names no host, or more than one")
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
            # The other side could take another part of it for the next request (RFC 9112 §6.1).
            raise self._refused("it says in two ways how long its body is")
        host, port = _authority(names[0], self._refused)
        if port != self._port:
            raise self._refused(f"it names port {port} on a connection to port {self._port}")
        return host

    async def _to(self, host: Host) -> socket.socket:
        if self._outside is None or host != self._host:
            if self._outside:
                self._outside.close()
                self._outside = None
            self._outside = await self._connect(host)
            self._host = host
        return self._outside

    async def _exchange(self, request: h11.Request, outside: socket.socket) -> bool:
        try:
            return await self._exchanged(request, outside)
        except h11.RemoteProtocolError as problem:
            await self._answer(502, "the host's answer cannot be read")
            raise self._refused(f"the host's answer cannot be read: {problem}") from None

    async def _exchanged(self, request: h11.Request, outside: socket.socket) -> bool:
        server = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        headers = [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP]
        upgrade = [(b"connection", b"upgrade")] if any(name == b"upgrade" for name, _ in headers) else []
        await self._to_server(
            server,
            outside,
            h11.Request(method=request.method, target=request.target, headers=headers + upgrade, http_version=b"1.1"),
        )
        body = asyncio.create_task(self._pass_body(server, outside))
        try:
            final = await self._pass_response(server, outside)
        finally:
            body.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, h11.ProtocolError):
                await body
        if final is None or not body.done() or body.cancelled():
            return False
        keeps = server.our_state is h11.DONE and server.their_state is h11.DONE
        if not keeps:
            self._drop()
        return self._client.our_state is h11.DONE and self._client.their_state is h11.DONE

    def _drop(self) -> None:
        if self._outside:
            self._outside.close()
            self._outside = None

    async def _pass_body(self, server: h11.Connection, outside: socket.socket) -> None:
        while True:
            event = await self._next_from_program()
            if isinstance(event, h11.Data):
                await self._to_server(server, outside, h11.Data(data=bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                await self._to_server(server, outside, h11.EndOfMessage(headers=event.headers))
                return
            else:
                return

    async def _pass_response(self, server: h11.Connection, outside: socket.socket) -> bool | None:
        """None when nothing more can follow on this connection."""
        while True:
            event = await self._next_from_server(server, outside)
            if isinstance(event, h11.InformationalResponse | h11.Response):
                if event.status_code == 101:
                    raise self._refused("switching protocols is not carried over plain HTTP")
                headers = [(name, value) for name, value in event.headers if name not in _HOP_BY_HOP]
                kind = type(event)
                await self._to_program(kind(status_code=event.status_code, headers=headers, reason=event.reason))
            elif isinstance(event, h11.Data):
                await self._to_program(h11.Data(data=bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                await self._to_program(h11.EndOfMessage(headers=event.headers))
                return True
            else:
                return None

    async def _next_from_program(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._client.next_event()
            if event is not h11.NEED_DATA:
                return cast(h11.Event, event)
            if self._client.they_are_waiting_for_100_continue:
                await self._to_program(h11.InformationalResponse(status_code=100, headers=[]))
            self._client.receive_data(await self._received_from(self._inside))

    async def _next_from_server(self, server: h11.Connection, outside: socket.socket) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = server.next_event()
            if event is not h11.NEED_DATA:
                return cast(h11.Event, event)
            try:
                server.receive_data(await self._received_from(outside))
            except OSError as problem:
                raise _broke(problem) from None

    async def _received_from(self, sock: socket.socket) -> bytes:
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                return await self._loop.sock_recv(sock, _CHUNK)
        except TimeoutError:
            return b""

    async def _to_program(self, event: h11.Event) -> None:
        data = self._client.send(event)
        if data:
            self.received_bytes += len(data)
            await self._loop.sock_sendall(self._inside, data)

    async def _to_server(self, server: h11.Connection, outside: socket.socket, event: h11.Event) -> None:
        data = server.send(event)
        if data:
            self.sent_bytes += len(data)
            try:
                await self._loop.sock_sendall(outside, data)
            except OSError as problem:
                raise _broke(problem) from None

    async def _answer(self, status: int, text: str) -> None:
        """Say why not, in a way that a program shows."""
        body = f"This sandbox may not do that: {text}.\n".encode()
        headers = [
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            ("x-cove-egress", "refused"),
        ]
        with contextlib.suppress(h11.LocalProtocolError, OSError):
            await self._to_program(h11.Response(status_code=status, headers=headers))
            await self._to_program(h11.Data(data=body))
            await self._to_program(h11.EndOfMessage())
            await self._linger()

    async def _linger(self) -> None:
        """Take what the program still sends: closing on unread bytes would be a reset, and the answer would be lost
        with it (RFC 9112 §9.6).
        """
        self._inside.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while await self._loop.sock_recv(self._inside, _CHUNK):
                    pass


def _broke(problem: OSError) -> h11.RemoteProtocolError:
    """The host's side of the connection did: for the program that is an answer that cannot be read."""
    return h11.RemoteProtocolError(problem.strerror or "the connection broke")


def _authority(value: bytes, refused: type[Exception]) -> tuple[Host, int]:
    """Host and port that a `Host` field names."""
    try:
        text = value.decode("ascii")
        place, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "80")
        host = canonical_host(place if colon else text)
    except ValueError as problem:
        raise refused(f"the host that it names cannot be read: {problem}") from None
    if colon and not _PORT.fullmatch(port):
        raise refused(f"{port[:20]!r} is no port")
    return host, int(port) if colon else 80
