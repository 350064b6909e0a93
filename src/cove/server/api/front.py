"""What every request passes first, outermost to innermost. Pure ASGI: no task and no queue a request."""

import time
from collections.abc import Callable, Mapping

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cove.models.errors import CoveError, error
from cove.server.api.context import choose_request_id, header_of
from cove.server.api.errors import answer_of
from cove.server.metrics import Metrics

_SAFE_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestContext:
    """Gives each request an id, answers what nobody else did, logs one line and counts it."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._log = structlog.get_logger("cove.http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = choose_request_id(scope)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *_SAFE_HEADERS]
            await send(message)

        try:
            await self._guarded(scope, receive, answer, lambda: status)
        finally:
            self._record(scope, status, time.perf_counter() - started)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, sent: Callable[[], int]) -> None:
        try:
            await self._app(scope, receive, send)
        except CoveError as failure:
            if sent():
                raise
            await answer_of(scope, failure)(scope, receive, send)
        except Exception:
            self._log.exception("unhandled", path=_path(scope))
            if sent():
                raise
            hidden = error("INTERNAL_ERROR", "Cove failed; its log says more under this request id.")
            await answer_of(scope, hidden)(scope, receive, send)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        name: str = getattr(route, "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.request(method, name, status)
        note = self._log.debug if name in {"/health", "/metrics"} else self._log.info
        note("request", method=scope["method"], path=_path(scope), status=status, ms=round(seconds * 1000, 2))


class BodyLimit:
    """Refuses bodies over a size: by their announced length, or when they have grown over it."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, larger: Mapping[str, int]) -> None:
        """`larger` are limits of single paths."""
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"].rstrip("/"), self._max_bytes)
        announced = header_of(scope, b"content-length")
        if announced is not None and announced.isdecimal() and int(announced[:20]) > limit:
            raise _too_large(limit)
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> CoveError:
    return error(
        "REQUEST_TOO_LARGE",
        f"The body is larger than {limit} bytes.",
        remedy="Send files to the sandbox itself, not to the control plane.",
        limit=limit,
    )


def _path(scope: Scope) -> str:
    """The path as it was sent, so that it holds no control characters."""
    raw: bytes = scope.get("raw_path") or b""
    return raw[:300].decode("latin-1")
