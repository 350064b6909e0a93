"""`/api/v1/rpc` and `/api/v1/health`: the doors of microsandbox's clients. What they ask for is done in
`cove.compat.microsandbox`, through this server's own API, with a key that is lent to it for the one request."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cove.compat.microsandbox.rpc import NO_KEY, WRONG_KEY, Reply, answer, read_request, refusal
from cove.core.keys import MICROSANDBOX_PREFIX
from cove.models.errors import CoveError, error
from cove.models.execution import MAX_CODE_BYTES
from cove.server.api.context import header_of, principal_of
from cove.server.mcp.bodies import Bodies
from cove.server.mcp.callers import HttpCallers, identity_of

RPC_PATH: Final = "/api/v1/rpc"
HEALTH_PATH: Final = "/api/v1/health"
MAX_RPC_BODY_BYTES: Final = 2 * MAX_CODE_BYTES
"""Code as JSON is longer than it is."""

_CLIENT_GONE = 499
_END_SECONDS = 5.0
_CREDENTIALS = (b"x-api-key", b"proxy-authorization", b"authorization")
_log = structlog.get_logger("cove.http")
T = TypeVar("T")


def microsandbox_routes(callers: HttpCallers) -> APIRouter:
    """The routes. They are not in the OpenAPI document, which cannot describe JSON-RPC."""
    router, bodies = APIRouter(), Bodies()

    async def health(request: Request) -> Response:
        return JSONResponse({"message": "Cove is up and takes requests."})

    async def rpc(request: Request) -> Response:
        owner = identity_of(principal_of(request.scope))
        async with bodies.read(request.receive, owner) as body:
            called = read_request(request.headers.get("content-type"), body)
            if isinstance(called, Reply):
                return _response(called)
            async with callers.of(request) as caller:
                reply = await _while_connected(request.receive, answer(called, caller.control))
        return Response(status_code=_CLIENT_GONE) if reply is None else _response(reply)

    router.add_route(HEALTH_PATH, health, methods=["GET"], include_in_schema=False)
    router.add_route(RPC_PATH, rpc, methods=["POST"], include_in_schema=False)
    return router


class MicrosandboxErrors:
    """ASGI middleware: what refuses a request before its route is reached says so as these clients read it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] != RPC_PATH:
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except CoveError as failure:
            # Nothing was sent yet: the route answers everything in one piece.
            credential = WRONG_KEY if _carries_key(scope) else NO_KEY
            await _response(refusal(failure, credential=credential))(scope, receive, send)
        except Exception:
            _log.exception("unhandled", path=RPC_PATH)
            hidden = error("INTERNAL_ERROR", "Cove failed; its log says more.")
            await _response(refusal(hidden))(scope, receive, send)


def _carries_key(scope: Scope) -> bool:
    """Whether a key of the kind that these clients use came along, valid or not."""
    return any(MICROSANDBOX_PREFIX in (header_of(scope, name) or "") for name in _CREDENTIALS)


def _response(reply: Reply) -> Response:
    if isinstance(reply.body, str):
        return PlainTextResponse(reply.body, reply.status)
    headers = {"WWW-Authenticate": "Bearer"} if reply.status == 401 else None
    return Response(json.dumps(reply.body), reply.status, headers, "application/json")


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` comes to; None when the client has left before, which ends `work` and the program that it runs."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.wait({leaving, working}, timeout=_END_SECONDS)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
