"""One request and its response as they pass through, sans-I/O: heads rewritten, bodies framed anew, nothing believed.

Which fields pass is `passage`'s to say; exactly one response passes for each request.
"""

from dataclasses import dataclass

from cove.server.gateway.framing import BodyReader, BodyWriter, request_body, response_body
from cove.server.gateway.heads import FramingError, Head, HeadBuffer, RequestHead, ResponseHead, parse_response
from cove.server.gateway.passage import Passage, below, without_domain
from cove.server.gateway.routing import Onward
from cove.server.gateway.visitors import sets_token

MAX_INTERIM_RESPONSES = 100


class BodyTooLarge(Exception):
    """A request body beyond its limit, noticed while counting.

    Attributes:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Peer:
    """What upstreams are told of the client."""

    address: bytes
    scheme: bytes


class RequestRelay:
    """A request on its way to an upstream.

    Attributes:
        head: as the client sent it.
        upgrade: the protocol that the upstream may switch to.
    """

    def __init__(self, head: RequestHead, route: Onward, *, request_id: bytes, peer: Peer, max_body: int) -> None:
        self.head = head
        self.upgrade = _upgrade_of(head, route.passage)
        self._route = route
        self._request_id = request_id
        self._peer = peer
        self._max_body = max_body
        self._body_left = max_body
        self._reader, self._writer = request_body(head.framing)

    @property
    def done(self) -> bool:
        """Whether the whole request has been read."""
        return self._reader.done

    def render_head(self) -> bytes:
        """The head as the upstream gets it."""
        head, passage = self.head, self._route.passage
        lines = [
            b"%b %b HTTP/1.1" % (head.method, self._route.target),
            b"Host: " + (head.host if passage.host is None else passage.host),
        ]
        dropped = _dropped(head, passage.not_to)
        if self._route.withheld:
            dropped |= self._route.withheld
        lines += [b"%b: %b" % (name, value) for lower, name, value in head.fields if lower not in dropped]
        lines += self._route.added
        lines.append(b"X-Request-ID: " + self._request_id)
        if head.framing.chunked:
            lines.append(b"Transfer-Encoding: chunked")
        elif head.framing.length is not None:
            lines.append(b"Content-Length: %d" % head.framing.length)
        if self.upgrade is not None:
            lines += [b"Connection: Upgrade", b"Upgrade: " + self.upgrade]
        if passage.forwarded:
            lines += self._forwarded()
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Bytes for the upstream, and bytes that belong to the next request.

        Raises:
            FramingError: the body's framing is broken.
            BodyTooLarge: the body is beyond its limit.
        """
        if self._reader.done:
            return b"", data
        payload = self._reader.feed(data)
        self._body_left -= len(payload)
        if self._body_left < 0:
            raise BodyTooLarge(self._max_body)
        framed = self._writer.frame(payload)
        if not self._reader.done:
            return framed, b""
        return framed + self._writer.end(), self._reader.rest

    def _forwarded(self) -> list[bytes]:
        lines = [b"X-Forwarded-Proto: " + self._peer.scheme]
        if self._peer.address:
            lines.append(b"X-Forwarded-For: " + self._peer.address)
        if self.head.host:
            lines.append(b"X-Forwarded-Host: " + self.head.host)
        if self._route.prefix:
            lines.append(b"X-Forwarded-Prefix: " + self._route.prefix)
        return lines


class ResponseRelay:
    """A response on its way to the client.

    Attributes:
        started: bytes of the final response have been given out, so nothing else can be answered any more.
        done: it is complete.
        upgraded: it was `101 Switching Protocols`; what follows is not HTTP.
        reusable: after it, the upstream connection can carry another request.
        rest: after an upgrade: the first bytes of the new protocol.
    """

    def __init__(self, request: RequestHead, route: Onward, *, request_id: bytes) -> None:
        self.started = False
        self.done = False
        self.upgraded = False
        self.reusable = False
        self.rest = b""
        self._request = request
        self._passage = route.passage
        self._prefix = route.prefix
        self._request_id = request_id
        self._buffer = HeadBuffer()
        self._interim = 0
        self._reader: BodyReader | None = None
        self._writer: BodyWriter | None = None

    def feed(self, data: bytes, *, close: bool) -> bytes:
        """Bytes for the client.

        Args:
            data: from the upstream.
            close: if the head is among it: announce that the client's connection is closed afterwards.

        Raises:
            FramingError: this is not one well-formed response.
        """
        if self._reader is not None:
            return self._body(data)
        self._buffer.append(data)
        interim = b""
        while (raw := self._buffer.take_head()) is not None:
            head = parse_response(raw)
            if head.status >= 200 or head.status == 101:
                return interim + self._final(head, close=close)
            interim += self._interim_response(head)
        return interim

    def end(self) -> bytes:
        """The upstream has closed; bytes for the client that complete the response.

        Raises:
            FramingError: in the middle of the response.
        """
        if self._reader is None or self._writer is None:
            raise FramingError("The connection was closed before the response.")
        self._reader.end()
        self.done = True
        return self._writer.end()

    def _interim_response(self, head: ResponseHead) -> bytes:
        """Only `100 Continue` is passed on, once, and only to a client that waits for it."""
        self._interim += 1
        if self._interim > MAX_INTERIM_RESPONSES:
            raise FramingError("There are too many interim responses.")
        expected = head.status == 100 and self._interim == 1 and self._request.expects_continue
        return b"HTTP/1.1 100 Continue\r\n\r\n" if expected else b""

    def _final(self, head: ResponseHead, *, close: bool) -> bytes:
        rest = self._buffer.take_rest()
        if head.status == 101:
            return self._switch(head, rest)
        empty = self._request.method == b"HEAD" or head.status in (204, 304)
        self._reader, self._writer = response_body(head.framing, empty=empty, client_minor=self._request.minor)
        until_close = not empty and not head.framing.chunked and head.framing.length is None
        self.reusable = head.persistent and not until_close
        rendered = self._render(head, self._framing_lines(head, close=close))
        body = self._body(rest)
        self.started = True
        return rendered + body

    def _switch(self, head: ResponseHead, rest: bytes) -> bytes:
        protocol = _upgrade_of(self._request, self._passage)
        if protocol is None or head.tokens(b"upgrade") != frozenset({protocol}):
            raise FramingError("The protocol was switched without being asked to.")
        self.started = self.upgraded = True
        self.rest = rest
        return self._render(head, [b"Connection: Upgrade", b"Upgrade: " + protocol])

    def _body(self, data: bytes) -> bytes:
        reader, writer = self._reader, self._writer
        if reader is None or writer is None:
            return b""
        if reader.done:
            framed, extra = b"", data
            self.done = True
        else:
            framed, extra = writer.frame(reader.feed(data)), reader.rest
            if reader.done:
                self.done = True
                framed += writer.end()
        if extra:
            raise FramingError("There are bytes after the end of the response.")
        return framed

    def _framing_lines(self, head: ResponseHead, *, close: bool) -> list[bytes]:
        """How the body is framed towards the client; status 204 has no length at all (RFC 9110 §8.6)."""
        lines = [b"Connection: close"] if close else []
        if head.status == 204:
            return lines
        if head.framing.length is not None:
            lines.append(b"Content-Length: %d" % head.framing.length)
        elif self._request.minor == 1 and head.status != 304 and self._request.method != b"HEAD":
            lines.append(b"Transfer-Encoding: chunked")
        return lines

    def _render(self, head: ResponseHead, framing: list[bytes]) -> bytes:
        passage = self._passage
        dropped = _dropped(head, passage.not_from)
        lines = [b"HTTP/1.1 %d %b" % (head.status, head.reason)]
        if passage.edited.isdisjoint(head.values):
            lines += [b"%b: %b" % (name, value) for lower, name, value in head.fields if lower not in dropped]
        else:
            lines += [
                b"%b: %b" % (name, self._edited(lower, value))
                for lower, name, value in head.fields
                if lower not in dropped and not (lower == b"set-cookie" and sets_token(value))
            ]
        lines += framing
        if passage.numbered or (passage.numbered is None and b"x-request-id" not in head.values):
            lines.append(b"X-Request-ID: " + self._request_id)
        return b"\r\n".join(lines) + b"\r\n" + passage.policy + b"\r\n"

    def _edited(self, lower: bytes, value: bytes) -> bytes:
        if lower not in self._passage.edited:
            return value
        return without_domain(value) if lower == b"set-cookie" else below(self._prefix, value, self._request.host)


def _upgrade_of(head: RequestHead, passage: Passage) -> bytes | None:
    """The protocol that may be switched to; agents and the control plane know only WebSockets."""
    return head.upgrade if passage.any_upgrade or head.wants_websocket else None


def _dropped(head: Head, always: frozenset[bytes]) -> frozenset[bytes]:
    """Names of fields that end here: Connection names more of them (RFC 9110 §7.6.1)."""
    return always if head.connection <= always else always | head.connection
