"""Plain HTTP/1 requests, one by one: on one connection each of them may name another host (RFC 9112 §3.2)."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Final, cast

import h11

from cove.egress.refusals import BAD_GATEWAY, FORBIDDEN, UNREADABLE, Refused
from cove.egress.streams import Stream
from cove.models.addresses import IpAddress
from cove.models.host_names import canonical_host

_CHUNK: Final = 64 * 1024
_MAX_HEAD: Final = 64 * 1024
_IDLE_SECONDS: Final = 120.0
_LINGER_SECONDS: Final = 2.0
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOP_BY_HOP: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive"})

_SAID: Final = {
    UNREADABLE: "This request cannot be read",
    FORBIDDEN: "This sandbox may not do that",
    BAD_GATEWAY: "The host cannot be used",
}

Host = str | IpAddress
Connect = Callable[[Host], Awaitable[Stream]]
Pace = Callable[[int], Awaitable[None]]


class WebRequests:
    """Serves one connection that a program made: each request goes to the host that it names, if it may."""

    def __init__(self, inside: Stream, *, port: int, connect: Connect, sent: Pace, received: Pace) -> None:
        """
        Args:
            port: that the program connected to; the one that requests name must be the same.
            connect: to a host; raises `Refused` when it may not be.
            sent, received: told of the bytes that the program in the sandbox has sent, and gets; they return when
                those may be carried on.
        """
        self._inside = inside
        self._port = port
        self._connect = connect
        self._sent, self._received = sent, received
        self._client = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._outside: Stream | None = None
        self._host: Host = ""

    async def serve(self) -> None:
        """Until either side ends.

        Raises:
            OSError: the connection broke.
            Refused: after the program was answered.
        """
        try:
            while await self._serve_one():
                self._client.start_next_cycle()
        except Refused as problem:
            await self._answer(problem)
            raise
        finally:
            self._drop()

    async def _serve_one(self) -> bool:
        """Whether another request may follow."""
        try:
            request = await self._next_from_program()
            if not isinstance(request, h11.Request):
                return False
            server = await self._to(self._host_of(request))
        except h11.RemoteProtocolError as problem:
            raise Refused(f"its request cannot be read: {problem}", status=UNREADABLE) from None
        try:
            return await self._exchange(request, server)
        except h11.RemoteProtocolError as problem:
            raise Refused(f"the host's answer cannot be read: {problem}", status=BAD_GATEWAY) from None

    def _host_of(self, request: h11.Request) -> Host:
        """In its one spelling.

        Raises:
            Refused: it names none, or two.
        """
        names = [value for name, value in request.headers if name == b"host"]
        target = request.target
        if request.method == b"CONNECT":
            raise Refused("CONNECT is for proxies; there is none to ask")
        if target.startswith(b"http://"):
            named = target[len(b"http://") :].partition(b"/")[0]
            if names != [named]:
                raise Refused("it names two different hosts")
        elif not target.startswith((b"/", b"*")):
            raise Refused("its target is neither a path nor an http:// URL")
        if len(names) != 1:
            raise Refused("it names no host, or more than one")
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
            # The other side could take another part of it for the next request (RFC 9112 §6.1).
            raise Refused("it says in two ways how long its body is")
        host, port = _authority(names[0])
        if port != self._port:
            raise Refused(f"it names port {port} on a connection to port {self._port}")
        return host

    async def _to(self, host: Host) -> Stream:
        if self._outside is None or host != self._host or self._outside.has_ended():
            self._drop()
            self._outside = await self._connect(host)
            self._host = host
        return self._outside

    async def _exchange(self, request: h11.Request, outside: Stream) -> bool:
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

    async def _pass_body(self, server: h11.Connection, outside: Stream) -> None:
        while True:
            event = await self._next_from_program()
            if isinstance(event, h11.Data):
                await self._to_server(server, outside, h11.Data(data=bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                await self._to_server(server, outside, h11.EndOfMessage(headers=event.headers))
                return
            else:
                return

    async def _pass_response(self, server: h11.Connection, outside: Stream) -> bool | None:
        """None when nothing more can follow on this connection."""
        while True:
            event = await self._next_from_server(server, outside)
            if isinstance(event, h11.InformationalResponse | h11.Response):
                if event.status_code == 101:
                    raise Refused("switching protocols is not carried over plain HTTP")
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

    async def _next_from_server(self, server: h11.Connection, outside: Stream) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = server.next_event()
            if event is not h11.NEED_DATA:
                return cast(h11.Event, event)
            try:
                server.receive_data(await self._received_from(outside))
            except OSError as problem:
                raise _broke(problem) from None

    async def _received_from(self, stream: Stream) -> bytes:
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                return await stream.receive(_CHUNK)
        except TimeoutError:
            return b""

    async def _to_program(self, event: h11.Event) -> None:
        data = self._client.send(event)
        if data:
            await self._received(len(data))
            await self._inside.send(data)

    async def _to_server(self, server: h11.Connection, outside: Stream, event: h11.Event) -> None:
        data = server.send(event)
        if data:
            await self._sent(len(data))
            try:
                await outside.send(data)
            except OSError as problem:
                raise _broke(problem) from None

    async def _answer(self, problem: Refused) -> None:
        """Say why not, in a way that a program shows; if there was no answer yet."""
        if self._client.our_state is not h11.SEND_RESPONSE and self._client.our_state is not h11.IDLE:
            return
        body = f"{_SAID[problem.status]}: {problem}.\n".encode()
        headers = [
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            ("x-cove-egress", "refused"),
        ]
        with contextlib.suppress(h11.LocalProtocolError, OSError):
            await self._to_program(h11.Response(status_code=problem.status, headers=headers))
            await self._to_program(h11.Data(data=body))
            await self._to_program(h11.EndOfMessage())
            await self._linger()

    async def _linger(self) -> None:
        """Take what the program still sends: closing on unread bytes would be a reset, and the answer would be lost
        with it (RFC 9112 §9.6).
        """
        await self._inside.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self._inside.discard()


def _broke(problem: OSError) -> h11.RemoteProtocolError:
    """The host's side of the connection did: for the program that is an answer that cannot be read."""
    return h11.RemoteProtocolError(problem.strerror or "the connection broke")


def _authority(value: bytes) -> tuple[Host, int]:
    """Host and port that a `Host` field names."""
    try:
        text = value.decode("ascii")
        place, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "80")
        host = canonical_host(place if colon else text)
    except ValueError as problem:
        raise Refused(f"the host that it names cannot be read: {problem}") from None
    if colon and not _PORT.fullmatch(port):
        raise Refused(f"{port[:20]!r} is no port")
    return host, int(port) if colon else 80
