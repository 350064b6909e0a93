"""A WebSocket server for the client's tests: it does what the test's script says."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve, unix_serve

WAIT_SECONDS = 10.0
Script = Callable[[ServerConnection], None]


class WebSocketServer:
    """Attributes:
    url: http address of it.
    requests: handshakes it has seen, refused ones too.
    refusals: answers to the next handshakes, instead of accepting them.
    """

    def __init__(self, script: Script, *, path: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.refusals: list[Response] = []
        self._script = script
        options = {"process_request": self._decide, "compression": None, "max_size": None}
        if path is None:
            self._server = serve(self._handle, "127.0.0.1", 0, **options)  # pyright: ignore[reportArgumentType]
            self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"
        else:
            self._server = unix_serve(self._handle, str(path), **options)
            self.url = "http://localhost"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def refuse(self, status: int, body: bytes, **headers: str) -> None:
        """Refuse the next handshake."""
        fields = Headers({"Content-Length": str(len(body)), "Connection": "close"} | headers)
        self.refusals.append(Response(status, HTTPStatus(status).phrase, fields, body))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()

    def _decide(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        return self.refusals.pop(0) if self.refusals else None

    def _handle(self, connection: ServerConnection) -> None:
        try:
            self._script(connection)
        except ConnectionClosed:
            return


@contextmanager
def websocket_server(script: Script, *, path: Path | None = None) -> Generator[WebSocketServer]:
    """One that is closed at the end of the block."""
    server = WebSocketServer(script, path=path)
    try:
        yield server
    finally:
        server.close()
