"""One client connection: reads requests one after the other, and passes each and its response through.

At any time there is at most one exchange. Whoever reads slower than the other side sends makes that side wait; each
phase has a deadline.
"""

import asyncio

import structlog

from cove.models.errors import CoveError
from cove.server.gateway.audited import note_passage, note_refusal
from cove.server.gateway.client_side import ClientSide
from cove.server.gateway.deadline import Deadline
from cove.server.gateway.exchange import (
    Exchange,
    Phase,
    Surroundings,
    body_limit,
    failure,
    failure_with_news,
    may_have_ended,
    patience,
    plane_of,
)
from cove.server.gateway.framing import LengthReader
from cove.server.gateway.heads import FramingError, HeadBuffer, RequestHead, parse_request
from cove.server.gateway.refusals import Plane, Refuse, new_request_id, refuse, refuse_error, request_id_of, too_large
from cove.server.gateway.relay import BodyTooLarge, RequestRelay, ResponseRelay
from cove.server.gateway.routing import ToAgent, ToControlPlane, ToPort, decide
from cove.server.gateway.settings import MAX_HEAD_BYTES
from cove.server.gateway.upstreams import Destination, IdleUpstreams, Upstream, connect

READ_AHEAD = 2 * MAX_HEAD_BYTES
"""Bytes of later requests that are kept while one is answered; more than a head, so that any head can complete."""

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class ClientConnection(asyncio.Protocol):
    """The protocol of the public port."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._shared = surroundings
        self._settings = surroundings.settings
        self._counters = surroundings.counters
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._loop, self._expired)
        self._idle = IdleUpstreams(self._loop, self._settings.upstream_reuse_seconds)
        self._buffer = HeadBuffer()
        self._phase = Phase.HEAD
        self._exchange: Exchange | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._drained = LengthReader(0)
        self._head_begun = False
        self._upstream_full = False
        self._client: ClientSide

    # --- the client's side, called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._client = ClientSide(transport, self._settings, self._counters)
        self._counters.connections += 1
        self._counters.connections_open += 1
        self._shared.connections.add(self)
        if len(self._shared.connections) > self._settings.max_connections:
            crowded = refuse("CAPACITY_EXHAUSTED", "There are too many connections.", Plane.CONTROL)
            self._client.refuse(crowded, new_request_id(), close=True)
            self._close()
        else:
            self._deadline.set(self._settings.head_seconds)

    def data_received(self, data: bytes) -> None:
        """The client has sent bytes."""
        self._counters.bytes_from_clients += len(data)
        match self._phase:
            case Phase.SPLICE:
                self._splice_to_upstream(data)
            case Phase.EXCHANGE:
                self._request_body(data)
            case Phase.DRAIN:
                self._drain(data)
            case Phase.HEAD:
                self._buffer.append(data)
                self._steer()
                self._next_request()
            case Phase.CONNECTING:
                self._buffer.append(data)
                self._steer()
            case Phase.LINGER | Phase.CLOSED:
                pass

    def eof_received(self) -> bool:
        """The client sends no more; outside a splice it has gone, and what runs for it is ended."""
        exchange = self._exchange
        if (
            self._phase is Phase.SPLICE
            and exchange is not None
            and exchange.upstream is not None
            and not exchange.ended
        ):
            exchange.ended = True
            exchange.upstream.write_eof()
            self._deadline.set(self._settings.linger_seconds)
            return not self._client.encrypted
        self._close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client's connection is gone."""
        self._release_upstream()
        self._phase = Phase.CLOSED
        self._deadline.cancel()
        self._idle.close()
        self._shared.forget(self)

    def pause_writing(self) -> None:
        """The client reads too slowly: its upstream waits."""
        self._client.full = True
        self._steer()
        self._touch()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._client.full = False
        self._steer()
        self._touch()
        self._next_request()

    # --- for the gateway

    def drain(self) -> None:
        """Ends the connection after its present exchange."""
        if self._phase is Phase.HEAD:
            self._linger()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._client.abort()

    # --- requests

    def _next_request(self) -> None:
        if self._phase is not Phase.HEAD or self._client.full:
            return
        try:
            self._buffer.skip_empty_line()
            raw = self._buffer.take_head()
            if raw is None:
                self._await_head()
                return
            head = parse_request(raw)
        except FramingError as error:
            remedy = "Send HTTP/1.1 as RFC 9112 has it, with a head within the limits."
            refusal = refuse(error.code, str(error), Plane.CONTROL, status=error.status, remedy=remedy)
            self._client.refuse(refusal, new_request_id(), close=True)
            self._linger()
            return
        self._head_begun = False
        self._begin(head)
        self._steer()

    def _await_head(self) -> None:
        if len(self._buffer) and not self._head_begun:
            self._head_begun = True
            self._deadline.set(self._settings.head_seconds)

    def _begin(self, head: RequestHead) -> None:
        self._counters.requests += 1
        request_id = request_id_of(head.first(b"x-request-id"))
        route = decide(head, self._settings, self._shared.tokens, self._shared.directory, secure=self._client.secure)
        if isinstance(route, Refuse):
            note_refusal(self._shared.audit, head, route, request_id, self._client.peer.address)
            self._refuse(head, route, request_id)
            return
        limit = body_limit(route, self._settings)
        if (head.framing.length or 0) > limit:
            self._refuse(head, too_large(limit, plane_of(route)), request_id)
            return
        request = RequestRelay(head, route, request_id=request_id, peer=self._client.peer, max_body=limit)
        self._exchange = Exchange(route, request, ResponseRelay(head, route, request_id=request_id), request_id)
        match route:
            case ToControlPlane():
                self._counters.to_control_plane += 1
                self._reach(Destination(str(self._shared.control_plane)))
            case ToAgent():
                self._counters.to_agents += 1
                self._reach(route.destination)
            case ToPort():
                self._counters.to_ports += 1
                self._reach(route.destination)

    def _reach(self, destination: Destination) -> None:
        self._phase = Phase.CONNECTING
        upstream = self._idle.take(destination)
        if upstream is not None:
            self._send_request(upstream)
            return
        self._deadline.set(self._settings.connect_seconds * 2)
        self._connecting = self._loop.create_task(self._connect(destination))

    async def _connect(self, destination: Destination) -> None:
        try:
            upstream = await connect(self, destination, self._shared.dialer, seconds=self._settings.connect_seconds)
        except CoveError as error:
            self._connecting = None
            self._fail(refuse_error(error, Plane.PREVIEW))
            return
        except OSError as error:  # TimeoutError is one
            self._connecting = None
            self._upstream_failed(f"it cannot be reached ({type(error).__name__})")
            return
        self._connecting = None
        self._send_request(upstream)

    def _send_request(self, upstream: Upstream) -> None:
        exchange = self._exchange
        if exchange is None or self._phase is not Phase.CONNECTING:
            upstream.abort()
            return
        exchange.upstream = upstream
        if isinstance(exchange.route, ToAgent):
            head, address = exchange.request.head, self._client.peer.address
            note_passage(self._shared.audit, head, exchange.route, exchange.request_id, address)
        self._phase = Phase.EXCHANGE
        self._deadline.set(self._patience())
        self._request_body(self._buffer.take_rest(), head=exchange.request.render_head())

    def _request_body(self, data: bytes, *, head: bytes = b"") -> None:
        exchange = self._exchange
        if exchange is None or exchange.upstream is None:
            return
        try:
            framed, rest = exchange.request.feed(data)
        except FramingError as error:
            self._fail(refuse(error.code, str(error), exchange.plane, status=error.status))
            return
        except BodyTooLarge as error:
            self._fail(too_large(error.limit, exchange.plane))
            return
        exchange.upstream.write(head + framed)
        if rest:
            self._buffer.append(rest)
        self._steer()
        if framed:
            self._touch()

    def _drain(self, data: bytes) -> None:
        """Reads the body of a refused request away."""
        self._drained.feed(data)
        if not self._drained.done:
            return
        self._buffer.append(self._drained.rest)
        self._await_next()

    def _await_next(self) -> None:
        if self._shared.draining:
            self._linger()
            return
        self._phase = Phase.HEAD
        self._head_begun = False
        self._deadline.set(self._settings.idle_seconds)
        self._steer()
        # Not at once: a client that sends many small requests together must not keep the loop from the others.
        if len(self._buffer):
            self._loop.call_soon(self._next_request)

    # --- responses

    def upstream_made(self, upstream: Upstream) -> None:
        """The upstream is connected; the client may have gone meanwhile."""
        self._shared.upstreams += 1
        if self._phase is Phase.CLOSED:
            upstream.abort()

    def upstream_received(self, upstream: Upstream, data: bytes) -> None:
        """The upstream has sent bytes."""
        exchange = self._exchange
        if exchange is None or exchange.upstream is not upstream:
            self._idle.discard(upstream)
            return
        if self._phase is Phase.SPLICE:
            self._client.write(data)
            self._touch()
            return
        request, response = exchange.request, exchange.response
        close = not request.head.persistent or not request.done or self._shared.draining
        was_started = response.started
        try:
            out = response.feed(data, close=close)
        except FramingError as error:
            self._violated(str(error))
            return
        if response.started and not was_started:
            exchange.closing = close
        self._client.write(out)
        if response.upgraded:
            self._start_splice(exchange, upstream)
        elif response.done:
            self._finish(exchange, upstream)
        else:
            self._touch()

    def upstream_ended(self, upstream: Upstream) -> bool:
        """The upstream sends no more; in a splice the client may still."""
        exchange = self._exchange
        if self._phase is not Phase.SPLICE or exchange is None or exchange.upstream is not upstream or exchange.ended:
            return False
        exchange.ended = True
        self._client.write_eof()
        self._deadline.set(self._settings.linger_seconds)
        return True

    def upstream_lost(self, upstream: Upstream, error: Exception | None) -> None:
        """The upstream's connection is gone: the end of the response, or a failure."""
        self._shared.forget_upstream()
        exchange = self._exchange
        if exchange is None or exchange.upstream is not upstream:
            self._idle.discard(upstream)
            return
        if self._phase is Phase.SPLICE:
            self._close() if exchange.ended else self._linger()
            return
        if error is not None:
            self._upstream_failed("the connection was broken")
            return
        try:
            out = exchange.response.end()
        except FramingError:
            self._upstream_failed("it closed the connection before the end of its answer")
            return
        self._client.write(out)
        self._finish(exchange, upstream)

    def upstream_full(self, upstream: Upstream, full: bool) -> None:
        """The upstream reads too slowly: the client waits."""
        if self._exchange is not None and self._exchange.upstream is upstream:
            self._upstream_full = full
            self._steer()
            self._touch()

    def _finish(self, exchange: Exchange, upstream: Upstream) -> None:
        self._exchange = None
        self._upstream_full = False
        if exchange.response.reusable and exchange.request.done and upstream.usable:
            self._idle.give(upstream)
        else:
            upstream.abort()
        if exchange.closing:
            self._linger()
        else:
            self._await_next()

    def _start_splice(self, exchange: Exchange, upstream: Upstream) -> None:
        self._phase = Phase.SPLICE
        self._counters.websockets_open += 1
        self._client.write(exchange.response.rest)
        upstream.write(self._buffer.take_rest())
        self._steer()
        self._touch()

    def _splice_to_upstream(self, data: bytes) -> None:
        if self._exchange is not None and self._exchange.upstream is not None:
            self._exchange.upstream.write(data)
        self._touch()

    # --- failures

    def _violated(self, reason: str) -> None:
        exchange = self._exchange
        self._counters.upstream_violations += 1
        if exchange is not None and isinstance(exchange.route, ToAgent):
            _log.warning("gateway.upstream_violation", sandbox_id=exchange.route.sandbox_id, reason=reason)
        self._upstream_failed("its answer was not one valid HTTP response")

    def _upstream_failed(self, reason: str) -> None:
        self._counters.upstream_failures += 1
        exchange = self._exchange
        if exchange is not None and may_have_ended(exchange, self._shared):
            self._phase = Phase.CONNECTING
            self._deadline.set(self._settings.connect_seconds * 2)
            self._connecting = self._loop.create_task(self._fail_with_news(exchange, reason))
        elif exchange is not None:
            self._fail(failure(exchange, self._shared, reason))

    async def _fail_with_news(self, exchange: Exchange, reason: str) -> None:
        refusal = await failure_with_news(exchange, self._shared, reason)
        self._connecting = None
        self._fail(refusal)

    def _fail(self, refusal: Refuse) -> None:
        """Ends the exchange: with an answer if none has begun, else by breaking off."""
        exchange = self._exchange
        if exchange is None:
            return
        request = exchange.request
        self._release_upstream()
        if exchange.response.started:
            self._client.abort()
            return
        if exchange.upstream is None:
            self._refuse(request.head, refusal, exchange.request_id)
            return
        close = not request.head.persistent or not request.done or self._shared.draining
        self._client.refuse(refusal, exchange.request_id, close=close, head=request.head)
        if close:
            self._linger()
        else:
            self._await_next()

    def _refuse(self, head: RequestHead, refusal: Refuse, request_id: bytes) -> None:
        """Answers a request whose body has not been read yet."""
        length = head.framing.length or 0
        unread = head.framing.chunked or length > self._settings.max_drained_body_bytes
        close = not head.persistent or self._shared.draining or unread or head.expects_continue
        self._client.refuse(refusal, request_id, close=close, head=head)
        if close:
            self._linger()
        elif length:
            self._phase = Phase.DRAIN
            self._drained = LengthReader(length)
            self._deadline.set(self._settings.body_seconds)
            self._drain(self._buffer.take_rest())
        else:
            self._await_next()

    def _linger(self) -> None:
        """Closes so that the client can read what was sent: a close with unread input would reset the connection."""
        self._release_upstream()
        if self._phase in (Phase.CLOSED, Phase.LINGER):
            return
        self._phase = Phase.LINGER
        self._deadline.set(self._settings.linger_seconds)
        self._client.write_eof()
        self._steer()

    def _close(self) -> None:
        """Closes after what was written: the client has gone, or is not wanted."""
        self._release_upstream()
        if self._phase is not Phase.CLOSED:
            self._phase = Phase.LINGER
            self._deadline.set(self._settings.linger_seconds)
            self._client.close()

    def _release_upstream(self) -> None:
        if self._phase is Phase.SPLICE:
            self._counters.websockets_open -= 1
            self._phase = Phase.EXCHANGE
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        exchange, self._exchange = self._exchange, None
        self._upstream_full = False
        if exchange is not None and exchange.upstream is not None:
            exchange.upstream.abort()

    # --- pace

    def _steer(self) -> None:
        """Reads from each side only what the other side can take."""
        if self._exchange is not None and self._exchange.upstream is not None:
            self._exchange.upstream.pause(self._client.full)
        ahead = len(self._buffer) >= READ_AHEAD
        self._client.read(self._phase in (Phase.LINGER, Phase.CLOSED) or not (self._upstream_full or ahead))

    def _patience(self) -> float:
        full = self._client.full
        return patience(self._phase, self._exchange, self._settings, full=full, upstream_full=self._upstream_full)

    def _touch(self) -> None:
        exchange = self._exchange
        passing = self._phase in (Phase.EXCHANGE, Phase.SPLICE)
        if exchange is not None and passing and exchange.may_be_slow:
            self._deadline.set(self._patience())

    def _expired(self) -> None:
        match self._phase:
            case Phase.HEAD if len(self._buffer):
                late = refuse("TIMEOUT", "The request head did not come in time.", Plane.CONTROL, status=408)
                self._client.refuse(late, new_request_id(), close=True)
                self._linger()
            case Phase.HEAD | Phase.DRAIN | Phase.SPLICE:
                self._linger()
            case Phase.CONNECTING:
                self._upstream_failed("it cannot be reached in time")
            case Phase.EXCHANGE:
                self._exchange_expired()
            case Phase.LINGER | Phase.CLOSED:
                if self._phase is Phase.LINGER and self._client.linger():
                    self._deadline.set(self._settings.linger_seconds)

    def _exchange_expired(self) -> None:
        exchange = self._exchange
        if exchange is None or self._client.full:
            self._client.abort()
        elif not exchange.request.done and not self._upstream_full:
            self._fail(refuse("TIMEOUT", "The request body did not come in time.", exchange.plane, status=408))
        else:
            self._fail(refuse("TIMEOUT", "There was no answer in time.", exchange.plane))
