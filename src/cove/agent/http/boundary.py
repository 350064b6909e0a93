"""The outermost layer of the application: request ids, the rendering of errors, and counting."""

import asyncio
import logging
import re
import secrets
import time

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cove.agent.http.errors import error_body, status_of
from cove.agent.http.traffic import Traffic
from cove.models.errors import CoveError, error

# What a client has not sent yet when it is refused is read and dropped up to these bounds, so that it gets to see the
# answer: closing a socket with unread data makes the peer's next read or write fail.
LINGER_BYTES = 16 * 1024 * 1024
LINGER_SECONDS = 2.0
MAX_ACTIVE_REQUESTS = 256

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,128}")
_log = logging.getLogger("cove.agent")


class Boundary:
    """ASGI middleware that answers every request, whatever happens inside."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        traffic: Traffic = scope["app"].state.agent.traffic
        exchange = _Exchange(scope, receive, send)
        began = time.perf_counter()
        traffic.begin()
        try:
            if traffic.active > MAX_ACTIVE_REQUESTS:
                await exchange.refuse(_overloaded())
            else:
                await self._answer(exchange)
        finally:
            traffic.end(scope["path"], exchange.status, time.perf_counter() - began)

    async def _answer(self, exchange: "_Exchange") -> None:
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except CoveError as failure:
            await exchange.refuse(failure)
        except HTTPException as failure:
            await exchange.refuse(_routing_error(exchange.scope, failure), headers=failure.headers)
        except ClientDisconnect:
            exchange.status = 499
        except Exception:
            if exchange.started:
                # The connection is cut, which is the only way left to say that the answer is not whole.
                raise
            _log.exception("internal error, request %s", exchange.request_id)
            await exchange.refuse(error("INTERNAL_ERROR", "The agent failed at this request."))


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.request_id = _request_id(scope)
        self.status = 500
        self.started = False
        self._receive = receive
        self._send = send
        self._body_read = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._body_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode("ascii"))]
        await self._send(message)

    async def refuse(self, failure: CoveError, *, headers: object = None) -> None:
        body = error_body(failure, request_id=self.request_id, path=self.scope["path"])
        fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode("ascii"))]
        if isinstance(headers, dict):
            fields += [(str(name).lower().encode(), str(value).encode()) for name, value in headers.items()]  # pyright: ignore
        keep = self._body_read or not _has_body(self.scope)
        if not keep:
            fields.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status_of(failure), "headers": fields})
        await self.send({"type": "http.response.body", "body": body, "more_body": not keep})
        if not keep:
            await self._linger()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self) -> None:
        dropped = 0
        deadline = time.monotonic() + LINGER_SECONDS
        while not self._body_read and dropped < LINGER_BYTES:
            message = await _received(self.receive, deadline - time.monotonic())
            if message is None or message["type"] == "http.disconnect":
                return
            dropped += len(message.get("body", b""))


async def _received(receive: Receive, seconds: float) -> Message | None:
    try:
        async with asyncio.timeout(seconds):
            return await receive()
    except TimeoutError:
        return None


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return f"req_{secrets.token_hex(8)}"


def _has_body(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


def _routing_error(scope: Scope, failure: HTTPException) -> CoveError:
    method = scope["method"]
    if failure.status_code == 405:
        allowed = (failure.headers or {}).get("Allow", "")
        return error("METHOD_NOT_ALLOWED", f"This path does not take {method}.", remedy=f"It takes {allowed}.")
    if failure.status_code == 404:
        return error("RESOURCE_NOT_FOUND", "No such path.", remedy="GET /info lists what there is.")
    return error("INVALID_REQUEST", str(failure.detail))


def _overloaded() -> CoveError:
    return error(
        "CAPACITY_EXHAUSTED",
        f"{MAX_ACTIVE_REQUESTS} requests are being answered already.",
        remedy="Wait until some have ended.",
    )
