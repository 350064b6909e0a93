"""From what went wrong on the wire to the exception that a caller can catch."""

import json
from typing import Any, TypeVar, cast

import httpx2
from pydantic import BaseModel, ValidationError

from cove.models.errors import ERRORS, CoveError, definition_of, error

Model = TypeVar("Model", bound=BaseModel)

MAX_ERROR_BYTES = 256 * 1024
_MAX_TEXT = 4000

_CODE_OF_STATUS = {
    400: "INVALID_REQUEST",
    401: "AUTHENTICATION_REQUIRED",
    403: "FORBIDDEN",
    404: "RESOURCE_NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    410: "SANDBOX_EXPIRED",
    413: "REQUEST_TOO_LARGE",
    422: "INVALID_REQUEST",
    429: "RATE_LIMIT_EXCEEDED",
    431: "HEADERS_TOO_LARGE",
    501: "NOT_IMPLEMENTED",
    502: "AGENT_UNREACHABLE",
    503: "HOST_UNAVAILABLE",
    504: "TIMEOUT",
    507: "DISK_FULL",
}

# Raised by the transport before the first byte of the request can have left.
_NOTHING_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
    httpx2.ProxyError,
)


def nothing_was_sent(failure: httpx2.TransportError) -> bool:
    """Whether the server cannot have seen any byte of the request."""
    return isinstance(failure, _NOTHING_SENT)


def failure_of_answer(status: int, body: bytes, *, url: str) -> CoveError:
    """The exception for an answer that is not a success; the class follows its `code`, else its status.

    Understands the control plane's body (`{"error": {...}}`) and the agent's (`{"error": "text", "code": ...}`).
    """
    if 300 <= status < 400:
        return _redirected(status, url)
    fields = _fields(body)
    code = _text(fields.get("code"))
    if code not in ERRORS:
        code = _CODE_OF_STATUS.get(status, "INVALID_REQUEST" if status < 500 else "INTERNAL_ERROR")
    message = _text(fields.get("message")) or _text(fields.get("error")) or f"The server answered {status} to {url}."
    details = _details(fields)
    remedy = _text(fields.get("remedy")) or _text(details.get("remedy")) or definition_of(code).remedy
    # On the wire the message ends in the remedy, for clients that know of no other field.
    message = message.removesuffix(remedy).rstrip() or message
    return definition_of(code).exception(code, message, remedy=remedy, details=details)


def failure_of_transport(failure: httpx2.TransportError, *, method: str, url: str) -> CoveError:
    """The exception for a request that got no (whole) answer."""
    cause = str(failure) or type(failure).__name__
    sent = not nothing_was_sent(failure)
    if isinstance(failure, httpx2.TimeoutException):
        raised = error("TIMEOUT", f"{method} {url} was not answered in time ({cause}).", sent=sent)
    elif not sent:
        raised = error(
            "NETWORK_ERROR",
            f"No Cove server can be reached at {url} ({cause}).",
            remedy="Start one with `cove serve`, or point COVE_BASE_URL to one that runs.",
            sent=False,
        )
    else:
        raised = error(
            "NETWORK_ERROR",
            f"The connection was lost during {method} {url} ({cause}).",
            remedy="The request may or may not have been carried out; it was not sent a second time.",
            sent=True,
        )
    return raised


def too_slow(*, method: str, url: str, seconds: float) -> CoveError:
    """An answer began, and did not end in time."""
    return error("TIMEOUT", f"{method} {url} was not answered completely within {seconds:g} s.", sent=True)


def too_large(*, method: str, url: str, limit: int, remedy: str = "") -> CoveError:
    """An answer is larger than this client is ready to hold or store."""
    return error("REQUEST_TOO_LARGE", f"The answer to {method} {url} is larger than {limit} bytes.", remedy=remedy)


def parse(model: type[Model], body: bytes) -> Model:
    """`body` as a `model`.

    Raises:
        PlatformFailure: it is not one; a sandbox can answer anything, so no other exception may come out of it.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as problem:
        raise _unreadable(model.__name__, problem) from None


def parse_fields(model: type[Model], fields: dict[str, Any]) -> Model:
    """As `parse`, for what is an object already."""
    try:
        return model.model_validate(fields)
    except ValidationError as problem:
        raise _unreadable(model.__name__, problem) from None


def parse_object(body: bytes) -> dict[str, Any]:
    """`body` as a JSON object.

    Raises:
        PlatformFailure: it is not one.
    """
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise error("INTERNAL_ERROR", "The answer is not a JSON object.", remedy="Is this the address of Cove?")
    return cast(dict[str, Any], value)


def objects_in(body: bytes, name: str) -> list[dict[str, Any]]:
    """The objects in the list `name` of a JSON object; empty without one.

    Raises:
        PlatformFailure: `body` is no object.
    """
    found: object = parse_object(body).get(name)
    entries = cast(list[object], found) if isinstance(found, list) else []
    return [cast(dict[str, Any], entry) for entry in entries if isinstance(entry, dict)]


def _unreadable(name: str, problem: ValidationError) -> CoveError:
    first = problem.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "body"
    return error(
        "INTERNAL_ERROR",
        f"The answer is not a valid {name}: {where}: {first['msg']}.",
        remedy="Do client and server have the same version, and is this the address of Cove?",
    )


def _redirected(status: int, url: str) -> CoveError:
    return error(
        "INVALID_REQUEST",
        f"{url} answered with a redirect ({status}), which is never followed: it could carry the key elsewhere.",
        remedy="Give the final address as base_url.",
    )


def _fields(body: bytes) -> dict[str, Any]:
    """The members of an error body, the nested form laid over the flat one."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    flat = cast(dict[str, Any], value)
    nested: object = flat.get("error")
    return flat | cast(dict[str, Any], nested) if isinstance(nested, dict) else flat


def _details(fields: dict[str, Any]) -> dict[str, Any]:
    given: object = fields.get("details")
    details = dict(cast(dict[str, Any], given)) if isinstance(given, dict) else {}
    request_id = _text(fields.get("request_id"))
    return details | {"request_id": request_id} if request_id else details


def _text(value: object) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""
