"""Serving the application on a listening socket."""

import asyncio
import logging
import socket

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from cove.agent.http.protocol import AgentProtocol

KEEP_ALIVE_SECONDS = 75
BACKLOG = 128


class AgentServer:
    """Accepts connections until it is closed.

    uvicorn's own `Server` wakes up ten times a second; in a machine full of idle sandboxes that is real work. Its
    protocol needs only a configuration and the shared state, so those are used without the server.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, *, config: Config | None = None) -> None:
        """`config` is what `server_config(app)` returned, when that was called before."""
        self._listener = listener
        self._state = ServerState()
        self._config = config or server_config(app)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._server = await loop.create_server(self._protocol, sock=self._listener, backlog=BACKLOG)

    async def close(self, *, grace: float) -> None:
        """Accept no more, give running requests `grace` seconds to end, then cancel them."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._state.connections):
            connection.shutdown()
        pending = set(self._state.tasks)
        if pending:
            _, pending = await asyncio.wait(pending, timeout=grace)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=grace)
        for connection in tuple(self._state.connections):
            connection.transport.abort()

    def _protocol(self) -> asyncio.Protocol:
        return AgentProtocol(config=self._config, server_state=self._state, app_state={})


def server_config(app: ASGIApp) -> Config:
    """uvicorn without its logs, its headers, its signal handling and its lifespan."""
    config = Config(
        app=app,
        http=AgentProtocol,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=True,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    config.load()
    return config


def quiet_logs() -> None:
    """Keep uvicorn's notes about broken requests off the agent's stderr."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
