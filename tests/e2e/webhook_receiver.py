"""A real receiver of webhooks on loopback, on a thread of its own so that it outlives servers that are killed."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.e2e.running_server import until


@dataclass(frozen=True)
class Delivery:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.raw)


class WebhookReceiver:
    """Notes deliveries; it answers with `status`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.deliveries: list[Delivery] = []

    def of(self, execution_id: str) -> list[Delivery]:
        """Those of one execution."""
        return [one for one in tuple(self.deliveries) if one.body["execution_id"] == execution_id]

    def wait(self, execution_id: str, *, count: int = 1, seconds: float = 30.0) -> Delivery:
        """The last of so many deliveries of an execution, as soon as it has come."""
        until(lambda: len(self.of(execution_id)) >= count, seconds=seconds, what=f"delivery {count} of {execution_id}")
        return self.of(execution_id)[count - 1]


@contextmanager
def webhook_receiver() -> Generator[WebhookReceiver]:
    """A receiver that runs for the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            made.deliveries.append(Delivery(self.path, headers, raw))
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = WebhookReceiver(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
