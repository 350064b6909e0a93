"""What `/mcp` answers where a request does not reach the protocol: a JSON-RPC error, which clients show, and how to
authenticate (RFC 6750 §3, RFC 9728 §5.1)."""

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from cove.models.errors import CoveError, definition_of
from cove.models.scopes import Scope

_INVALID_REQUEST: Final = -32600
_INTERNAL_ERROR: Final = -32603
_WANTED: Final = f"{Scope.READ} {Scope.EXEC}"


def mcp_refusal(
    failure: CoveError, request_id: str, *, metadata_url: str | None = None, with_credential: bool = False
) -> Response:
    """The answer for a failure.

    Args:
        metadata_url: of the OAuth protected resource, if there is one.
        with_credential: the request carried one, which was not accepted.
    """
    definition = definition_of(failure.code)
    data: dict[str, Any] = {
        "code": failure.code,
        "remedy": failure.remedy,
        "retryable": definition.retryable,
        "request_id": request_id,
        "details": failure.details,
    }
    body = {
        "jsonrpc": "2.0",
        "id": None,
        "error": {
            "code": _INTERNAL_ERROR if definition.status >= 500 else _INVALID_REQUEST,
            "message": f"{failure} [{failure.code}]",
            "data": data,
        },
    }
    headers = _headers(failure, definition.status, metadata_url, with_credential=with_credential)
    return Response(json.dumps(body), definition.status, headers, "application/json")


def _headers(failure: CoveError, status: int, metadata_url: str | None, *, with_credential: bool) -> Mapping[str, str]:
    details = failure.details
    headers: dict[str, str] = {}
    if (seconds := details.get("retry_after_seconds")) is not None:
        headers["Retry-After"] = str(seconds)
    if status == 405:
        headers["Allow"] = "POST"
    challenge: dict[str, str] | None = None
    if status == 401:
        challenge = {"scope": _WANTED} | ({"error": "invalid_token"} if with_credential else {})
    elif failure.code == "FORBIDDEN" and "scope" in details:
        challenge = {"error": "insufficient_scope", "scope": str(details["scope"])}
    if challenge is not None:
        challenge |= {} if metadata_url is None else {"resource_metadata": metadata_url}
        headers["WWW-Authenticate"] = "Bearer " + ", ".join(f'{name}="{value}"' for name, value in challenge.items())
    return headers
