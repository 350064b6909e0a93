"""HTTP/1.1 on one connection: uvicorn's protocol with bounds of our own."""

import asyncio
import secrets

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cove.agent.http import ports
from cove.agent.http.errors import error_body, status_of
from cove.agent.http.joining import JoiningTransport
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
        super().data_received(data)
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
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._in_body = False
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """The connection leaves HTTP: for a WebSocket, or to hand over a connection to a port."""
        if self._get_upgrade() != ports.UPGRADE:
            super().handle_websocket_upgrade()
            return
        self._refused = True  # nothing more is read from it
        handing = self.loop.create_task(ports.hand_over(self.transport, self.url))
        handing.add_done_callback(self.tasks.discard)
        self.tasks.add(handing)

    def _should_upgrade(self) -> bool:
        return self._get_upgrade() == ports.UPGRADE or super()._should_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(error("INVALID_REQUEST", "This is not a valid HTTP request."))

    def _refuse(self, failure: CoveError) -> None:
        request_id = f"req_{secrets.token_hex(8)}"
        body = error_body(failure, request_id=request_id, path="")
        head = (
            b"content-type: application/json\r\nconnection: close\r\n"
            b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n" % (request_id.encode("ascii"), len(body))
        )
        self.transport.write(STATUS_LINE[status_of(failure)] + head + body)
        # Closing at once would make the client's next write fail before it has read the answer.
        self._refused = True
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
