"""HTTP/1 requests, one by one: on one connection each of them may name another host (RFC 9112 §3.2)."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Final, cast

import h11

from cove.egress.refusals import BAD_GATEWAY, FORBIDDEN, UNREADABLE, Refused
from cove.egress.rewriting import Headers, Rewriting
from cove.egress.secrets import Destination
from cove.egress.streams import Outlet, Pace, Stream
from cove.egress.termination import SandboxTermination
from cove.models.addresses import IpAddress
from cove.models.host_names import canonical_host

_CHUNK: Final = 64 * 1024
_MAX_HEAD: Final = 64 * 1024
_IDLE_SECONDS: Final = 120.0
_LINGER_SECONDS: Final = 2.0
_PORT: Final = re.compile(r"[0-9]{1,5}")
_SWITCHING: Final = 101
_WORTH_CARRYING: Final = 256 * 1024
_HOP_BY_HOP: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive"})

_SAID: Final = {
    UNREADABLE: "This request cannot be read",
    FORBIDDEN: "This sandbox may not do that",
    BAD_GATEWAY: "The host cannot be used",
}

Host = str | IpAddress
Carry = Callable[[Stream, int], Awaitable[int]]
Passed = type[h11.DONE] | type[h11.SWITCHED_PROTOCOL] | None
Connect = Callable[[Host], Awaitable[Stream]]


class WebRequests:
    """Serves one connection that a program made: each request goes to the host that it names, if it may."""

    def __init__(
        self,
        inside: Stream,
        *,
        port: int,
        is_tls: bool,
        termination: SandboxTermination,
        connect: Connect,
        sent: Pace,
        received: Pace,
        carry: Carry | None,
    ) -> None:
        """
        Args:
            port: that the program connected to; the one that requests name must be the same.
            is_tls: whether TLS was taken off them, and is put on again by `connect`.
            termination: of the sandbox; knows its secrets.
            connect: to a host; raises `Refused` when it may not be.
            sent, received: told of the bytes that the program in the sandbox has sent, and gets; they return when
                those may be carried on.
            carry: so many bytes from the host to the program, without looking at them; how many came. None where they
                cannot be carried like that.
        """
        self._inside = inside
        self._port = port
        self._is_tls = is_tls
        self._termination = termination
        self._connect = connect
        self._sent, self._received = sent, received
        self._carry = carry
        self._to_inside = Outlet(inside, received)
        self._client = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._outside: Outlet | None = None
        self._host: Host = ""
        self._was_used = False

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
            reason = self._termination.secrets.scrub_text(str(problem))
            said = Refused(reason, status=problem.status, cause=problem.cause)
            await self._answer(said)
            raise said from None
        finally:
            self._drop()

    async def _serve_one(self) -> bool:
        """Whether another request may follow."""
        try:
            request = await self._next_from_program()
        except h11.RemoteProtocolError as problem:
            raise _unreadable(problem) from None
        if not isinstance(request, h11.Request):
            return False
        await self._termination.request()
        host = self._host_of(request)
        named = Destination(host if isinstance(host, str) else "", self._port, over_tls=self._is_tls)
        rewriting = Rewriting(self._termination.secrets, named)
        request = rewriting.request(request)
        if not rewriting.buffers_body:
            return await self._pass(request, host, rewriting, None)
        async with self._termination.buffering:
            body = rewriting.whole_body(await self._whole_body())
            return await self._pass(_with_length(request, len(body)), host, rewriting, body)

    async def _pass(self, request: h11.Request, host: Host, rewriting: Rewriting, body: bytes | None) -> bool:
        outside = await self._to(host)
        try:
            return await self._exchange(request, rewriting, body, outside)
        except h11.RemoteProtocolError as problem:
            if self._was_used and self._client.our_state is h11.SEND_RESPONSE:
                # The host has hung up on a kept connection meanwhile: the program sees that, and knows what to do.
                return False
            raise Refused(f"the host's answer cannot be read: {problem}", status=BAD_GATEWAY) from None

    def _host_of(self, request: h11.Request) -> Host:
        """In its one spelling.

        Raises:
            Refused: it names none, or two.
        """
        names = [value for name, value in request.headers if name == b"host"]
        target = request.target
        if request.method == b"PRI":
            raise Refused("it speaks HTTP/2, which is not read here: HTTP/1.1 is", status=UNREADABLE)
        if request.method == b"CONNECT":
            raise Refused("CONNECT is for proxies; there is none to ask")
        scheme = b"https://" if self._is_tls else b"http://"
        if target.startswith(scheme):
            named = target[len(scheme) :].partition(b"/")[0]
            if names != [named]:
                raise Refused("it names two different hosts")
        elif not target.startswith((b"/", b"*")):
            raise Refused("its target is neither a path nor a URL of its kind")
        if len(names) != 1:
            raise Refused("it names no host, or more than one")
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
            # The other side could take another part of it for the next request (RFC 9112 §6.1).
            raise Refused("it says in two ways how long its body is")
        host, port = _authority(names[0], 443 if self._is_tls else 80)
        if port != self._port:
            raise Refused(f"it names port {port} on a connection to port {self._port}")
        return host

    async def _to(self, host: Host) -> Outlet:
        self._was_used = self._outside is not None and host == self._host and not self._outside.stream.has_ended()
        if self._outside is None or not self._was_used:
            self._drop()
            self._outside = Outlet(await self._connect(host), self._sent)
            self._host = host
        return self._outside

    async def _exchange(self, request: h11.Request, rewriting: Rewriting, body: bytes | None, outside: Outlet) -> bool:
        server = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        await self._to_server(server, outside, self._outgoing(request))
        if _has_body(request):
            final = await self._pass_both(server, outside, rewriting, body)
        else:
            await self._pass_body(server, outside, rewriting, None)
            final = await self._pass_response(server, outside, rewriting)
        if final is h11.SWITCHED_PROTOCOL:
            await self._switch(server, outside, rewriting)
        if final is not h11.DONE:
            return False
        if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
            self._drop()
        return self._client.our_state is h11.DONE and self._client.their_state is h11.DONE

    async def _pass_both(
        self, server: h11.Connection, outside: Outlet, rewriting: Rewriting, body: bytes | None
    ) -> Passed:
        """The body and the answer at the same time: a host may answer before it has read all."""
        sending = asyncio.create_task(self._pass_body(server, outside, rewriting, body))
        answering = asyncio.create_task(self._pass_response(server, outside, rewriting))
        try:
            await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and isinstance(problem := sending.exception(), Refused):
                raise problem
            final = await answering
            return final if sending.done() and not sending.exception() else None
        finally:
            for task in (sending, answering):
                task.cancel()
            await asyncio.gather(sending, answering, return_exceptions=True)

    def _outgoing(self, request: h11.Request) -> h11.Request:
        headers = [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP]
        if self._is_tls:
            # Everything else would be carried without being understood.
            headers = [one for one in headers if one[0] != b"upgrade" or one[1].lower() == b"websocket"]
        upgrade = [(b"connection", b"upgrade")] if any(name == b"upgrade" for name, _ in headers) else []
        return h11.Request(method=request.method, target=request.target, headers=headers + upgrade, http_version=b"1.1")

    def _drop(self) -> None:
        if self._outside:
            self._outside.stream.close()
            self._outside = None

    async def _whole_body(self) -> bytes:
        """Of a length that was looked at."""
        body = bytearray()
        while True:
            event = await self._next_of_body()
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            else:
                raise Refused("it ended in its request's body", status=UNREADABLE)

    async def _next_of_body(self) -> h11.Event | type[h11.PAUSED]:
        try:
            return await self._next_from_program()
        except h11.RemoteProtocolError as problem:
            raise _unreadable(problem) from None

    async def _pass_body(
        self, server: h11.Connection, outside: Outlet, rewriting: Rewriting, body: bytes | None
    ) -> None:
        if body is not None:
            await self._to_server(server, outside, h11.Data(data=body))
            await self._to_server(server, outside, h11.EndOfMessage())
            await self._flush_out(outside)
            return
        while True:
            event = await self._next_of_body()
            if isinstance(event, h11.Data):
                await self._to_server(server, outside, h11.Data(data=rewriting.body(bytes(event.data))))
            elif isinstance(event, h11.EndOfMessage):
                if rest := rewriting.body_end():
                    await self._to_server(server, outside, h11.Data(data=rest))
                trailers = rewriting.trailers(list(event.headers))
                await self._to_server(server, outside, h11.EndOfMessage(headers=trailers))
                await self._flush_out(outside)
                return
            else:
                return

    async def _pass_response(self, server: h11.Connection, outside: Outlet, rewriting: Rewriting) -> Passed:
        """How it ended; None when nothing more can follow on this connection."""
        left = 0
        while True:
            event = await self._next_from_server(server, outside)
            if isinstance(event, h11.InformationalResponse | h11.Response):
                left = _length(event)
                await self._pass_head(rewriting.answer(event))
                if event.status_code == _SWITCHING:
                    await self._to_inside.flush()
                    return h11.SWITCHED_PROTOCOL
            elif isinstance(event, h11.Data):
                for piece in rewriting.answered(bytes(event.data)):
                    await self._to_program(h11.Data(data=piece))
                left -= len(event.data)
                unread = rewriting.changes_nothing and not server.trailing_data[0]
                if self._carry and left >= _WORTH_CARRYING and unread:
                    return await self._carry_rest(self._carry, outside, left)
            elif isinstance(event, h11.EndOfMessage):
                if rest := rewriting.answered_end():
                    await self._to_program(h11.Data(data=rest))
                await self._to_program(h11.EndOfMessage(headers=rewriting.answered_headers(list(event.headers))))
                await self._to_inside.flush()
                return h11.DONE
            else:
                return None

    async def _carry_rest(self, carry: Carry, outside: Outlet, left: int) -> Passed:
        """The rest of a long answer, whose length is known, needs no reading."""
        await self._to_inside.flush()
        if await carry(outside.stream, left) < left:
            raise h11.RemoteProtocolError("it ended before its end")
        placeholder = cast(bytes, range(left))  # only its length counts
        self._client.send_with_data_passthrough(h11.Data(data=placeholder))
        await self._to_program(h11.EndOfMessage())
        return h11.DONE

    async def _pass_head(self, answer: h11.InformationalResponse | h11.Response) -> None:
        if answer.status_code == _SWITCHING and not self._is_tls:
            raise Refused("switching protocols is not carried over plain HTTP")
        headers: Headers = [(name, value) for name, value in answer.headers if name not in _HOP_BY_HOP]
        if answer.status_code == _SWITCHING:
            headers.append((b"connection", b"upgrade"))
        await self._to_program(type(answer)(status_code=answer.status_code, headers=headers, reason=answer.reason))

    async def _switch(self, server: h11.Connection, outside: Outlet, rewriting: Rewriting) -> None:
        """Carry what is no HTTP any more, until either side ends (RFC 6455)."""

        async def out(data: bytes) -> None:
            await outside.put(data)
            await outside.flush()

        async def back(data: bytes) -> None:
            for piece in rewriting.answered(data):
                await self._to_inside.put(piece)
            await self._to_inside.flush()

        directions = {
            asyncio.create_task(_pump(self._client.trailing_data[0], self._inside, out)),
            asyncio.create_task(_pump(server.trailing_data[0], outside.stream, back)),
        }
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for direction in done:
                await direction
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _next_from_program(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._client.next_event()
            if event is not h11.NEED_DATA:
                return cast(h11.Event, event)
            if self._client.they_are_waiting_for_100_continue:
                await self._to_program(h11.InformationalResponse(status_code=100, headers=[]))
            await self._to_inside.flush()
            if self._outside:
                await self._flush_out(self._outside)
            self._client.receive_data(await self._received_from(self._inside))

    async def _next_from_server(self, server: h11.Connection, outside: Outlet) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = server.next_event()
            if event is not h11.NEED_DATA:
                return cast(h11.Event, event)
            await self._to_inside.flush()
            try:
                server.receive_data(await self._received_from(outside.stream))
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
            await self._to_inside.put(data)

    async def _to_server(self, server: h11.Connection, outside: Outlet, event: h11.Event) -> None:
        data = server.send(event)
        if data:
            try:
                await outside.put(data)
            except OSError as problem:
                raise _broke(problem) from None

    async def _flush_out(self, outside: Outlet) -> None:
        try:
            await outside.flush()
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
            await self._to_inside.flush()
            await self._linger()

    async def _linger(self) -> None:
        """Take what the program still sends: closing on unread bytes would be a reset, and the answer would be lost
        with it (RFC 9112 §9.6).
        """
        await self._inside.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self._inside.discard()


async def _pump(first: bytes, source: Stream, target: Callable[[bytes], Awaitable[None]]) -> None:
    data = first or await source.receive(_CHUNK)
    while data:
        await target(data)
        data = await source.receive(_CHUNK)


def _length(answer: h11.InformationalResponse | h11.Response) -> int:
    """Of its body, if it says so: it is a number, since the head was taken (RFC 9112 §6.3); else 0."""
    fields = dict(answer.headers)
    return 0 if b"transfer-encoding" in fields else int(fields.get(b"content-length", b"0"))


def _has_body(request: h11.Request) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in request.headers)


def _with_length(request: h11.Request, length: int) -> h11.Request:
    """With another length; and its body is there already, so that nobody has to be asked for it."""
    headers = [one for one in request.headers if one[0] not in (b"content-length", b"expect")]
    return h11.Request(
        method=request.method,
        target=request.target,
        headers=[*headers, (b"content-length", b"%d" % length)],
        http_version=request.http_version,
    )


def _unreadable(problem: h11.RemoteProtocolError) -> Refused:
    return Refused(f"its request cannot be read: {problem}", status=UNREADABLE)


def _broke(problem: OSError) -> h11.RemoteProtocolError:
    """The host's side of the connection did: for the program that is an answer that cannot be read."""
    return h11.RemoteProtocolError(problem.strerror or "the connection broke")


def _authority(value: bytes, default: int) -> tuple[Host, int]:
    """Host and port that a `Host` field names."""
    try:
        text = value.decode("ascii")
        place, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
        host = canonical_host(place if colon else text)
    except ValueError as problem:
        raise Refused(f"the host that it names cannot be read: {problem}") from None
    if colon and not _PORT.fullmatch(port):
        raise Refused(f"{port[:20]!r} is no port")
    return host, int(port) if colon else default
