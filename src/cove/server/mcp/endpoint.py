"""`/mcp`: one address for all revisions of the protocol, over streamable HTTP."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs

import structlog
from starlette.types import Message, Receive, Scope, Send

from cove.models.errors import error
from cove.server.api.context import header_of, principal_of
from cove.server.mcp.bodies import Bodies
from cove.server.mcp.bounds import IDLE_SECONDS, LOADING_SECONDS
from cove.server.mcp.callers import HttpCallers, identity_of
from cove.server.mcp.exchange import Manager, exchange, takes_events
from cove.server.mcp.sessions import McpSessions

if TYPE_CHECKING:
    from types import ModuleType

    from cove.server.mcp.loading import Managers

PATH: Final = "/mcp"
_SESSION_ID = b"mcp-session-id"
_VERSION = b"mcp-protocol-version"
_MARGIN_SECONDS = 60.0
_log = structlog.get_logger("cove.mcp")


class _Loaded(NamedTuple):
    module: "ModuleType"
    managers: "Managers"


class McpEndpoint:
    """ASGI application. Requests that come while the library is being imported wait.

    Args:
        toolset: of clients that do not choose one (`?toolset=`).
    """

    path = PATH

    def __init__(self, callers: HttpCallers, *, toolset: str) -> None:
        self._callers = callers
        self._toolset = toolset
        self._sessions = McpSessions[Manager](idle_seconds=IDLE_SECONDS + _MARGIN_SECONDS)
        self._bodies = Bodies()
        self._loading: asyncio.Task[None] | None = None
        self._loaded = asyncio.Event()
        self._state: _Loaded | None = None
        self._ending = asyncio.Event()

    def load(self) -> None:
        """Begin to import the library, unless that was begun. The first request does so too."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._serve(), name="mcp")

    def close(self) -> None:
        """End streams that have no end of their own, and take no new ones: the server is ending."""
        self._ending.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Clean up at the end of the block."""
        try:
            yield
        finally:
            self.close()
            if self._loading is not None:
                self._loading.cancel()
                with suppress(asyncio.CancelledError):
                    await self._loading
            await self._callers.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI.

        Raises:
            CoveError: METHOD_NOT_ALLOWED, REQUEST_TOO_LARGE, CAPACITY_EXHAUSTED, HOST_UNAVAILABLE, INVALID_REQUEST,
                RESOURCE_LIMIT_EXCEEDED; RESOURCE_NOT_FOUND for a session that does not exist for this caller.
        """
        scope["route"] = self
        method, session_id = scope["method"], header_of(scope, _SESSION_ID)
        if method not in {"GET", "POST", "DELETE"} or (method != "POST" and session_id is None):
            raise error("METHOD_NOT_ALLOWED", f"{method[:20]} is not possible here.", remedy="Send POST.")
        loaded, principal = await self._when_loaded(), principal_of(scope)
        owner = identity_of(principal)
        async with AsyncExitStack() as stack:
            body = b"" if method != "POST" else await stack.enter_async_context(self._bodies.read(receive, owner))
            loaded.module.check_call(principal, body)
            if not loaded.module.has_sessions(header_of(scope, _VERSION)):
                await exchange(self._choose(loaded, scope), scope, body, receive, send)
            elif session_id is None:
                await self._open(self._choose(loaded, scope), owner, scope, body, receive, send)
            else:
                await self._use(session_id, owner, scope, body, receive, send)

    async def _open(
        self, manager: Manager, owner: str, scope: Scope, body: bytes, receive: Receive, send: Send
    ) -> None:
        """A request without session, which opens one if it is an `initialize`."""
        with self._sessions.opening(owner, manager) as opened:

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start" and message["status"] < 400:
                    for name, value in message["headers"]:
                        if name == _SESSION_ID:
                            opened(value.decode("ascii"))
                await send(message)

            await exchange(manager, scope, body, receive, noted)

    async def _use(self, session_id: str, owner: str, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """A request of a session."""
        status = [0]

        async def noted(message: Message) -> None:
            status[0] = message.get("status", status[0])
            await send(message)

        # A GET is a stream without end.
        ending = self._ending if scope["method"] == "GET" else None
        with self._sessions.used(session_id, owner) as manager:
            await exchange(manager, scope, body, receive, noted, in_session=True, ending=ending)
        if status[0] == 404 or (scope["method"] == "DELETE" and status[0] < 300):
            self._sessions.ended(session_id)

    def _choose(self, loaded: _Loaded, scope: Scope) -> Manager:
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("toolset", [self._toolset])[0]
        plain = not takes_events(scope)
        for (toolset, is_plain), manager in loaded.managers.items():
            if toolset == asked and is_plain == plain:
                return manager
        sets = ", ".join(sorted({toolset.value for toolset, _ in loaded.managers}))
        raise error("INVALID_REQUEST", f"There is no toolset {asked[:40]!r}.", remedy=f"There are: {sets}.")

    async def _when_loaded(self) -> _Loaded:
        self.load()
        try:
            async with asyncio.timeout(LOADING_SECONDS):
                await self._loaded.wait()
        except TimeoutError:
            raise error("HOST_UNAVAILABLE", "The MCP server is still starting.", retry_after_seconds=5) from None
        if self._state is None:
            raise error("HOST_UNAVAILABLE", "The MCP server did not start; the log says why.")
        return self._state

    async def _serve(self) -> None:
        """Own everything that the library runs, from its import to the end."""
        try:
            module, servers = await asyncio.to_thread(_load, self._callers)
            async with module.managing(servers) as managers:
                self._state = _Loaded(module, managers)
                self._loaded.set()
                await asyncio.Event().wait()
        except Exception:
            _log.exception("mcp_not_started")
        finally:
            self._state = None
            self._loaded.set()


def _load(callers: HttpCallers) -> "tuple[ModuleType, Any]":
    from cove.server.mcp import loading

    return loading, loading.build_servers(callers)
