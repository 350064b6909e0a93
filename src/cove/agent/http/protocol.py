"""HTTP/1.1 on one connection: uvicorn's protocol with bounds of our own."""

import asyncio
import secrets
from typing import cast

import httptools
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cove.agent.http import ports
from cove.agent.http.errors import error_body, status_of
from cove.agent.http.joining import JoiningTransport
from cove.agent.http.relaying import RelayEnd
from cove.agent.http.websocket import WebSocket
from cove.agent.http.websocket_handshake import Handshake, answer
from cove.agent.http.websocket_routes import WebSocketRoute, serve
from cove.agent.state import AgentState
from cove.models.errors import CoveError, error

MAX_HEAD_BYTES = 64 * 1024
MAX_CONNECTIONS = 512
LINGER_SECONDS = 1.0


class AgentProtocol(HttpToolsProtocol):
    """Bounds the head of a request and the number of connections, and refuses in the agent's own error form."""

    _in_head = False
    _in_body = False
    _refused = False
    _head_bytes = 0
    _websocket: WebSocketRoute | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came; it gets the keep-alive time to send its first request."""
        super().connection_made(JoiningTransport(transport, self.loop))
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self.access_log = False
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Parse `data`. The parser keeps an unfinished head in memory, however long it is: that is counted here."""
        if self._refused:
            return
        in_body = self._in_body
        self._feed(data)
        if not self._in_head or self._refused:
            return
        # What began behind the body of another request is at most one read long: count from the next one.
        self._head_bytes += 0 if in_body else len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(error("HEADERS_TOO_LARGE", f"The head is larger than {MAX_HEAD_BYTES} bytes."))

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._in_body = True
        upgrade = self.parser is not None and self.parser.should_upgrade()
        self._websocket = self._wanted_websocket() if upgrade else None
        super().on_headers_complete()
        if upgrade and not self._should_upgrade():
            # The parser takes what follows for another protocol: no further request can be read here.
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._in_body = False
        super().on_message_complete()

    def _hand_over_port(self) -> None:
        self._refused = True  # nothing more is read from it
        if ports.shares_kernel(self._agent.boot):
            handing = self.loop.create_task(ports.hand_over(self.transport, self.url))
        else:
            handing = self.loop.create_task(self._carry_port())
        handing.add_done_callback(self.tasks.discard)
        self.tasks.add(handing)

    async def _carry_port(self) -> None:
        transport = cast(JoiningTransport, self.transport).detach()
        end = await ports.carry(transport, self.url, self._forget)
        if end is not None:
            self.connections.discard(self)
            # The server only closes what is in there.
            self.connections.add(cast(HttpToolsProtocol, end))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(error("INVALID_REQUEST", "This is not a valid HTTP request."))

    def _should_upgrade(self) -> bool:
        return self._websocket is not None or self._get_upgrade() == ports.UPGRADE

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self.parser is None:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._websocket is not None:
                self._upgrade_to_websocket(self._websocket, data[upgrade.args[0] :])
            elif self._should_upgrade():
                self._hand_over_port()
        except httptools.HttpParserError:
            self.send_400_response("")

    def _wanted_websocket(self) -> WebSocketRoute | None:
        if self._get_upgrade() != b"websocket":
            return None
        return self._agent.sockets.route(httptools.parse_url(self.url).path.decode("ascii"))

    @property
    def _agent(self) -> AgentState:
        return cast(Starlette, self.config.app).state.agent

    def _upgrade_to_websocket(self, route: WebSocketRoute, received: bytes) -> None:
        """Answer the handshake, and hand the connection over. `received` came behind it."""
        agent = self._agent
        handshake = Handshake(
            path=route.path,
            query=httptools.parse_url(self.url).query or b"",
            method=self.scope["method"],
            version=self.scope["http_version"],
            headers=self.headers,
        )
        agent.traffic.begin()
        status = 101
        try:
            if self.cycle and not self.cycle.response_complete:
                raise error("INVALID_REQUEST", "The handshake came before the answer to another request.")
            head = answer(handshake, f"req_{secrets.token_hex(8)}")
            handler = agent.sockets.prepare(route, agent, handshake)
        except CoveError as failure:
            status = status_of(failure)
            self._refuse(failure, path=route.path)
            return
        finally:
            agent.traffic.end(route.path, status, 0.0)
        self.transport.write(head)
        transport = cast(JoiningTransport, self.transport).detach()
        socket = agent.sockets.open(transport, self._forget)
        self.connections.discard(self)
        # The server only closes what is in there.
        self.connections.add(cast(HttpToolsProtocol, socket))
        task = self.loop.create_task(serve(socket, handler))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        socket.start(received)

    def _forget(self, successor: WebSocket | RelayEnd) -> None:
        self.connections.discard(cast(HttpToolsProtocol, successor))

    def _refuse(self, failure: CoveError, *, path: str = "") -> None:
        request_id = f"req_{secrets.token_hex(8)}"
        body = error_body(failure, request_id=request_id, path=path)
        head = (
            b"content-type: application/json\r\nconnection: close\r\n"
            b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n" % (request_id.encode("ascii"), len(body))
        )
        self.transport.write(STATUS_LINE[status_of(failure)] + head + body)
        # Closing at once would make the client's next write fail before it has read the answer.
        self._refused = True
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
