"""What belongs to one request and travels in its ASGI scope: its id, and whose it is."""

import re
from collections.abc import MutableMapping
from typing import Any

from cove.core.principal import Origin, Principal
from cove.models.errors import error
from cove.models.identifiers import new_request_id

Scope = MutableMapping[str, Any]

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_ID_KEY = "cove.request_id"
_PRINCIPAL_KEY = "cove.principal"
_REFUSAL_KEY = "cove.refusal"
_METADATA_KEY = "cove.resource_metadata"

MCP_PATHS = frozenset({"/mcp", "/mcp/"})


def header_of(scope: Scope, name: bytes) -> str | None:
    """The first header of that (lower-case) name."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None


def choose_request_id(scope: Scope) -> str:
    """Keep the id that the client sent if it is harmless in a header and a log, or make one."""
    sent = header_of(scope, b"x-request-id")
    chosen = sent if sent is not None and _REQUEST_ID.fullmatch(sent) else new_request_id()
    scope[_ID_KEY] = chosen
    return chosen


def request_id_of(scope: Scope) -> str:
    """The request's id."""
    found: str | None = scope.get(_ID_KEY)
    return choose_request_id(scope) if found is None else found


def origin_of(scope: Scope) -> Origin:
    """The request, as the audit log names it. The gateway drops what clients say about their address."""
    return Origin(request_id_of(scope), header_of(scope, b"x-forwarded-for") or "")


def set_refusal(scope: Scope, code: str) -> None:
    """Note that the answer is this error."""
    scope[_REFUSAL_KEY] = code


def refusal_of(scope: Scope) -> str | None:
    """The code of the error that was answered, if it was one."""
    found: str | None = scope.get(_REFUSAL_KEY)
    return found


def agent_path_of(scope: Scope) -> str | None:
    """The path of a request that a client sent to an agent, and to which it expects an agent's form of errors."""
    path: str = scope["path"]
    return path[:1024] if path.startswith("/sandboxes/") else None


def set_resource_metadata(scope: Scope, url: str) -> None:
    """Note where clients of `/mcp` learn who issues access tokens for it."""
    scope[_METADATA_KEY] = url


def resource_metadata_of(scope: Scope) -> str | None:
    """Where that is; None where nobody issues any, or the request is not for `/mcp`."""
    found: str | None = scope.get(_METADATA_KEY)
    return found


def set_principal(scope: Scope, principal: Principal) -> None:
    """Note on whose behalf the request is."""
    scope[_PRINCIPAL_KEY] = principal


def find_principal(scope: Scope) -> Principal | None:
    """On whose behalf the request is, or None for one that needs nobody."""
    found: Principal | None = scope.get(_PRINCIPAL_KEY)
    return found


def principal_of(scope: Scope) -> Principal:
    """On whose behalf the request is.

    Raises:
        CoveError: AUTHENTICATION_REQUIRED when nobody authenticated it: routes that need a principal stay closed
            even if authentication was forgotten in front of them.
    """
    principal = find_principal(scope)
    if principal is None:
        raise error("AUTHENTICATION_REQUIRED", "This request is not authenticated.")
    return principal
