"""How many requests, and how many creates, a key may send in a minute."""

import math
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cove.core.rates import RateLimiter, Verdict
from cove.models.errors import CoveError, error
from cove.server.api.context import find_principal
from cove.server.api.errors import answer_of

_CREATES = ("POST", "/v1/sandboxes")


class RateLimits:
    """ASGI middleware behind authentication. With 0 for both it is not there at all."""

    def __init__(self, app: ASGIApp, *, requests_per_minute: int, creates_per_minute: int) -> None:
        self._app = app
        self._requests = RateLimiter(requests_per_minute) if requests_per_minute else None
        self._creates = RateLimiter(creates_per_minute) if creates_per_minute else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        verdict = self._verdict(scope) if scope["type"] == "http" else None
        if verdict is None:
            await self._app(scope, receive, send)
            return
        headers = _headers_of(verdict)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        if verdict.allowed:
            await self._app(scope, receive, answer)
        else:
            await answer_of(scope, _exceeded(scope, verdict))(scope, receive, answer)

    def _verdict(self, scope: Scope) -> Verdict | None:
        """The tightest that applies; a request that is refused uses up nothing further."""
        principal = find_principal(scope)
        if principal is None:
            return None
        whose = principal.actor
        verdict = self._requests.take(whose) if self._requests and not principal.counted else None
        if self._creates and (scope["method"], scope["path"]) == _CREATES and (verdict is None or verdict.allowed):
            verdict = self._creates.take(whose)
        return verdict


def _headers_of(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    """The documented names (contract 2.2). Reset is a unix time: when all of the limit is there again."""
    reset = math.ceil(time.time() + verdict.full_in_seconds)
    return [
        (b"x-ratelimit-limit", str(verdict.limit).encode()),
        (b"x-ratelimit-remaining", str(verdict.remaining).encode()),
        (b"x-ratelimit-reset", str(reset).encode()),
    ]


def _exceeded(scope: Scope, verdict: Verdict) -> CoveError:
    what = "creates" if (scope["method"], scope["path"]) == _CREATES else "requests"
    seconds = max(1, math.ceil(verdict.wait_seconds))
    return error(
        "RATE_LIMIT_EXCEEDED",
        f"This API key may send {verdict.limit} {what} a minute.",
        remedy=f"Wait {seconds} s and try again.",
        limit=verdict.limit,
        retry_after_seconds=seconds,
    )
