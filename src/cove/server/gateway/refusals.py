"""Answers that the gateway gives itself: the hybrid error bodies that every client of the two planes can read."""

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from cove.models.errors import CoveError, definition_of
from cove.server.gateway.pages import PAGE_POLICY, error_page

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,128}")


class Plane(StrEnum):
    """Whose error form a client expects: the agent's `error` is text, the control plane's is an object.

    Visitors of a program get the agent's form, or a page if they take one.
    """

    AGENT = "agent"
    CONTROL = "control"
    PREVIEW = "preview"


@dataclass(frozen=True, slots=True)
class Refuse:
    """A request that goes no further.

    Attributes:
        code: from the error table.
        path: for the agent form's `path`.
        location: where to go instead.
        cookie: that the client shall keep.
        details: facts for programs.
    """

    status: int
    code: str
    message: str
    remedy: str
    plane: Plane
    path: str = ""
    location: str = ""
    cookie: str = ""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


def refuse(
    code: str, message: str, plane: Plane, *, remedy: str = "", path: str = "", status: int = 0, **details: Any
) -> Refuse:
    """A refusal with status and remedy from the error table, unless given."""
    row = definition_of(code)
    return Refuse(status or row.status, code, message, remedy or row.remedy, plane, path, details=details)


def refuse_error(error: CoveError, plane: Plane, *, path: str = "") -> Refuse:
    """The refusal for a platform error."""
    return refuse(error.code, error.message, plane, remedy=error.remedy, path=path)


def too_large(limit: int, plane: Plane) -> Refuse:
    """The refusal of a request body beyond `limit` bytes."""
    message = f"The request body is larger than {limit} bytes."
    return refuse("REQUEST_TOO_LARGE", message, plane, remedy="Send less, or in parts.")


def redirect(location: str) -> Refuse:
    """Sends the client to another path of this server."""
    return Refuse(308, "MOVED", f"This is at {location}.", "Follow the Location field.", Plane.PREVIEW, "", location)


def exchange(location: str, cookie: str) -> Refuse:
    """Sends the client to the address without the credential that it came with."""
    message, remedy = f"This is at {location}.", "Follow the Location field."
    return Refuse(303, "MOVED", message, remedy, Plane.PREVIEW, "", location, cookie)


def request_id_of(sent: bytes | None) -> bytes:
    """The id that the client sent, if it is one that may be logged and echoed; else a new one."""
    return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else new_request_id()


def new_request_id() -> bytes:
    """The shape of `cove.models.identifiers.new_request_id`, at a thirtieth of its time: every request gets one."""
    return b"req_" + secrets.token_hex(10).encode()


def render(refusal: Refuse, request_id: bytes, *, close: bool, head_only: bool = False, as_page: bool = False) -> bytes:
    """The whole response.

    Args:
        refusal: what went wrong.
        request_id: for `X-Request-ID` and the body.
        close: announce that the connection is closed after it.
        head_only: the request was a HEAD: leave the body out.
        as_page: HTML instead of JSON.
    """
    number = request_id.decode("ascii")
    reason = _reason(refusal.status)
    body = (
        error_page(f"{refusal.status} {reason}", refusal.message, refusal.remedy, f"{refusal.code} {number}")
        if as_page
        else json.dumps(_body(refusal, number)).encode()
    )
    lines = [
        f"HTTP/1.1 {refusal.status} {reason}",
        "Content-Type: text/html; charset=utf-8" if as_page else "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Request-ID: {number}",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        *_fields(refusal, as_page=as_page, close=close),
    ]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    return head if head_only else head + body


def _fields(refusal: Refuse, *, as_page: bool, close: bool) -> Iterator[str]:
    if as_page:
        yield f"Content-Security-Policy: {PAGE_POLICY}"
    if refusal.location:
        yield f"Location: {refusal.location}"
        yield "Referrer-Policy: no-referrer"
    if refusal.cookie:
        yield f"Set-Cookie: {refusal.cookie}"
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        yield "WWW-Authenticate: Bearer"
    if refusal.status == HTTPStatus.METHOD_NOT_ALLOWED:
        yield "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    if close:
        yield "Connection: close"


def _body(refusal: Refuse, request_id: str) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "message": refusal.message,
        "code": refusal.code,
        "remedy": refusal.remedy,
        "request_id": request_id,
    }
    if refusal.plane is Plane.CONTROL:
        return {"error": {**shared, "details": dict(refusal.details)}, **shared}
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "error": refusal.message,
        **shared,
        "timestamp": now,
        "path": refusal.path,
        "details": dict(refusal.details),
    }


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
