"""Reading request bodies, never more than a route is willing to take."""

import asyncio
import os
from io import BytesIO
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from cove.agent.http.errors import invalid_body
from cove.models.base import Contract
from cove.models.errors import CoveError, error

IDLE_SECONDS = 60.0
MAX_SMALL_BODY = 1024 * 1024

ModelT = TypeVar("ModelT", bound=Contract)


async def read_model(request: Request, model: type[ModelT], *, limit: int = MAX_SMALL_BODY, remedy: str = "") -> ModelT:
    """The body as a `model`.

    Raises:
        CoveError: INVALID_JSON, MISSING_PARAMETER, INVALID_REQUEST, or REQUEST_TOO_LARGE with `remedy`.
    """
    body = await read_body(request, limit=limit, remedy=remedy)
    if not body or body.isspace():
        raise error("INVALID_JSON", "The body is empty.")
    try:
        return model.model_validate_json(body)
    except ValidationError as failure:
        raise invalid_body(failure) from None


async def read_body(request: Request, *, limit: int, remedy: str = "") -> bytes:
    """All bytes of the body, at most `limit`.

    Raises:
        CoveError: REQUEST_TOO_LARGE as soon as it is known that there are more.
        ClientDisconnect: the client went away.
    """
    check_declared_length(request, limit=limit, remedy=remedy)
    chunk, more = await next_chunk(request)
    if not more and len(chunk) <= limit:
        return chunk
    # Unlike a bytearray it gives its bytes away without a copy.
    body = BytesIO(chunk)
    body.seek(0, os.SEEK_END)
    while more and body.tell() <= limit:
        chunk, more = await next_chunk(request)
        body.write(chunk)
    if body.tell() > limit:
        raise too_large(limit, remedy=remedy)
    return body.getvalue()


async def next_chunk(request: Request) -> tuple[bytes, bool]:
    """The next bytes of the body, and whether more follow.

    Raises:
        CoveError: INVALID_REQUEST when nothing came for `IDLE_SECONDS`.
        ClientDisconnect: the client went away.
    """
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            message = await request.receive()
    except TimeoutError:
        raise error("INVALID_REQUEST", f"The body stalled for {IDLE_SECONDS:.0f} s.") from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def check_declared_length(request: Request, *, limit: int, remedy: str = "") -> None:
    """Refuse by `Content-Length` alone.

    Raises:
        CoveError: REQUEST_TOO_LARGE.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise too_large(limit, remedy=remedy)


def too_large(limit: int, *, remedy: str = "") -> CoveError:
    """The error for a body of more than `limit` bytes."""
    return error(
        "REQUEST_TOO_LARGE",
        f"The body is larger than {limit} bytes.",
        remedy=remedy or "Send less at once.",
        limit_bytes=limit,
    )
