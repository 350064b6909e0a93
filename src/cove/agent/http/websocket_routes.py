"""Which paths are WebSockets, and the ones that are open."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from websockets.frames import CloseCode

from cove.agent.http.websocket import Disconnected, Liveness, WebSocket
from cove.agent.http.websocket_handshake import Handshake
from cove.models.errors import error

if TYPE_CHECKING:
    from cove.agent.state import AgentState

MAX_WEBSOCKETS = 128
_log = logging.getLogger("cove.agent")

Handler = Callable[[WebSocket], Awaitable[None]]
"""Talks with one client; when it returns, the connection is closed normally."""


class WebSocketRoute(NamedTuple):
    """A path that is a WebSocket.

    Attributes:
        prepare: called before the handshake is answered; a CoveError refuses it with an ordinary HTTP answer.
    """

    path: str
    prepare: "Callable[[AgentState, Handshake], Handler]"


class WebSockets:
    """The WebSockets of one agent."""

    def __init__(self, routes: Iterable[WebSocketRoute] = (), *, liveness: Liveness | None = None) -> None:
        self._routes = {route.path: route for route in routes}
        self._liveness = liveness or Liveness()
        self._count = 0

    @property
    def count(self) -> int:
        """Open ones."""
        return self._count

    def route(self, path: str) -> WebSocketRoute | None:
        """What `path` leads to."""
        return self._routes.get(path)

    def prepare(self, route: WebSocketRoute, state: "AgentState", handshake: Handshake) -> Handler:
        """The handler for a new client.

        Raises:
            CoveError: RESOURCE_LIMIT_EXCEEDED, or what the route says against it.
        """
        if self._count >= MAX_WEBSOCKETS:
            raise error(
                "RESOURCE_LIMIT_EXCEEDED",
                f"The limit of {MAX_WEBSOCKETS} WebSockets in a sandbox is reached.",
                remedy="Close some.",
            )
        return route.prepare(state, handshake)

    def open(self, transport: asyncio.Transport, on_lost: Callable[[WebSocket], None]) -> WebSocket:
        """A WebSocket on a connection whose handshake was answered."""

        def lost(socket: WebSocket) -> None:
            self._count -= 1
            on_lost(socket)

        self._count += 1
        return WebSocket(transport, liveness=self._liveness, on_lost=lost)


async def serve(socket: WebSocket, handler: Handler) -> None:
    """Let `handler` talk, and close the connection whatever happens."""
    code = CloseCode.NORMAL_CLOSURE
    try:
        await handler(socket)
    except Disconnected:
        pass
    except asyncio.CancelledError:
        socket.transport.abort()
        raise
    except Exception:
        _log.exception("internal error in a WebSocket")
        code = CloseCode.INTERNAL_ERROR
    await socket.close(code)


def plain_routes(routes: Iterable[WebSocketRoute]) -> tuple[Route, ...]:
    """Routes that answer those who ask for the path of a WebSocket without wanting one."""
    return tuple(Route(route.path, _not_a_websocket, methods=["GET"]) for route in routes)


async def _not_a_websocket(request: Request) -> Response:
    raise error(
        "INVALID_REQUEST",
        f"{request.url.path} is a WebSocket.",
        remedy="Connect with a WebSocket client: `Connection: Upgrade`, `Upgrade: websocket`.",
    )
