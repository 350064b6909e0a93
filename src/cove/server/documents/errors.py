"""How documents describe errors: the codes come from the operation, status and remedy from the error table."""

from collections.abc import Iterable
from typing import Any

from cove.models.base import Contract
from cove.models.errors import definition_of

GATEWAY_ERRORS = (
    "INVALID_REQUEST",
    "FORBIDDEN",
    "REQUEST_TOO_LARGE",
    "HEADERS_TOO_LARGE",
    "INTERNAL_ERROR",
    "HOST_UNAVAILABLE",
    "CAPACITY_EXHAUSTED",
    "TIMEOUT",
)
"""What any request may be answered with, before it reaches a route or because the route's program failed."""

_LATE_STATUS = 408
"""The gateway's status for TIMEOUT where the client is late; 504 is for a server that is."""


_RESPONSES = "#/components/responses/"
_SEPARATOR = "."


class ErrorFacts(Contract):
    """The nested form of an error, which some clients read."""

    code: str
    message: str
    request_id: str
    details: dict[str, Any]


class ErrorBody(Contract):
    """Body of every answer of the control plane that is not a success. The same facts appear nested and at the top, for
    all clients.
    """

    error: ErrorFacts
    message: str
    code: str
    remedy: str
    details: dict[str, Any] = {}
    request_id: str


class AgentErrorBody(Contract):
    """Body of every answer of an agent that is not a success. `error` and `message` are text for people, `code` is for
    programs; `path` is that of a file where one is at fault, else that of the request.
    """

    error: str
    message: str
    code: str
    remedy: str
    request_id: str
    timestamp: str
    path: str
    details: dict[str, Any]


def error_responses(codes: Iterable[str]) -> dict[str, Any]:
    """One response for each status that the codes have, in the order of statuses: references to `shared_responses`."""
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(definition_of(code).status, []).append(code)
        if code == "TIMEOUT":
            by_status.setdefault(_LATE_STATUS, []).append(code)
    return {str(status): _reference(by_status[status]) for status in sorted(by_status)}


def shared_responses(paths: dict[str, Any], body: type[Contract]) -> dict[str, Any]:
    """`components.responses` for all that the paths refer to."""
    operations = [operation for operations in paths.values() for operation in operations.values()]
    responses = [response for operation in operations for response in operation["responses"].values()]
    names = {response["$ref"].removeprefix(_RESPONSES) for response in responses if "$ref" in response}
    return {name: _response(name.split(_SEPARATOR), body) for name in sorted(names)}


def _reference(codes: list[str]) -> dict[str, str]:
    return {"$ref": _RESPONSES + _SEPARATOR.join(sorted(codes))}


def _response(codes: list[str], body: type[Contract]) -> dict[str, Any]:
    schema = {
        "allOf": [
            {"$ref": f"#/components/schemas/{body.__name__}"},
            {"type": "object", "properties": {"code": {"type": "string", "enum": codes}}},
        ]
    }
    return {
        "description": "\n".join(f"- `{code}` {definition_of(code).remedy}".rstrip() for code in codes),
        "content": {"application/json": {"schema": schema}},
    }
