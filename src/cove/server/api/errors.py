"""Error bodies: one shape from which every client reads code, message and remedy (contract 2.2)."""

import json
import time
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cove.core.clock import rfc3339
from cove.models.errors import CoveError, definition_of, error
from cove.server.api.context import MCP_PATHS, Scope, agent_path_of, request_id_of, resource_metadata_of, set_refusal
from cove.server.mcp.refusals import mcp_refusal

_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})
_SHOWN_PROBLEMS = 10
_TOP_LEVEL = ("sandbox_id", "status", "created_at", "expires_at")
"""Facts that the JavaScript client reads beside the message, not in `details`."""

_HTTP_CODES = {400: "INVALID_JSON", 404: "RESOURCE_NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "REQUEST_TOO_LARGE"}


def answer_of(scope: Scope, failure: CoveError) -> Response:
    """The answer for a failure, in the form that the client of this request expects."""
    request_id = request_id_of(scope)
    set_refusal(scope, failure.code)
    if scope["path"] not in MCP_PATHS:
        return render(failure, request_id, agent_path=agent_path_of(scope))
    sent = any(name in _CREDENTIALS for name, _ in scope["headers"])
    return mcp_refusal(failure, request_id, metadata_url=resource_metadata_of(scope), with_credential=sent)


def render(failure: CoveError, request_id: str, *, agent_path: str | None = None) -> Response:
    """The answer for a failure; with `agent_path` in the agent's form, whose `error` is text (contract 2.2)."""
    definition = definition_of(failure.code)
    details = dict(failure.details)
    retry_after = details.get("retry_after_seconds")
    if definition.retryable:
        details.setdefault("retryable", True)
    message = str(failure)
    body: dict[str, Any] = {
        "error": {"code": failure.code, "message": message, "request_id": request_id, "details": details},
        "message": message,
        "code": failure.code,
        "remedy": failure.remedy,
        "details": details,
        "request_id": request_id,
    }
    body.update({name: details[name] for name in _TOP_LEVEL if name in details})
    if agent_path is not None:
        body |= {"error": message, "path": agent_path, "timestamp": rfc3339(time.time())}
    headers: dict[str, str] = {}
    if retry_after is not None:
        body["retry_after"] = retry_after
        headers["Retry-After"] = str(retry_after)
    if definition.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(json.dumps(body), definition.status, headers, "application/json")


async def on_cove_error(request: Request, failure: Exception) -> Response:
    """Exception handler for `CoveError`."""
    assert isinstance(failure, CoveError)
    return answer_of(request.scope, failure)


async def on_http_exception(request: Request, failure: Exception) -> Response:
    """Exception handler for what the framework itself refuses: no such route, another method, a broken body."""
    assert isinstance(failure, HTTPException)
    if isinstance(failure.__cause__, CoveError):
        # A refusal raised while the framework was reading the body, which it took for a broken body.
        return await on_cove_error(request, failure.__cause__)
    path = request.url.path[:200]
    code = _HTTP_CODES.get(failure.status_code, "INVALID_REQUEST")
    texts = {
        "RESOURCE_NOT_FOUND": f"There is nothing at {path!r}.",
        "METHOD_NOT_ALLOWED": f"{request.method[:20]} is not possible at {path!r}.",
        "INVALID_JSON": "The body could not be read as JSON.",
        "REQUEST_TOO_LARGE": "The body is too large.",
    }
    remedies = {
        "RESOURCE_NOT_FOUND": "GET /openapi.json lists the paths that there are.",
        "METHOD_NOT_ALLOWED": "GET /openapi.json lists the methods of each path.",
        "REQUEST_TOO_LARGE": "Send less.",
    }
    refusal = error(code, texts.get(code, "The request could not be read."), remedy=remedies.get(code, ""))
    answer = await on_cove_error(request, refusal)
    for name, value in (failure.headers or {}).items():
        answer.headers[name] = value
    return answer


async def on_validation_error(request: Request, failure: Exception) -> Response:
    """Exception handler for bodies and queries that do not fit: 400, naming the field."""
    assert isinstance(failure, RequestValidationError)
    return await on_cove_error(request, _invalid(failure.errors()))


def _invalid(problems: Sequence[Any]) -> CoveError:
    first = problems[0]
    if first["type"] == "json_invalid":
        return error("INVALID_JSON", f"The body is not valid JSON: {first.get('ctx', {}).get('error', first['msg'])}.")
    if first["loc"] == ("body",):
        return error(
            "INVALID_JSON",
            "The body is not a JSON object.",
            remedy="Send a JSON object as the body, with Content-Type: application/json.",
        )
    shown = [{"field": _field(problem["loc"]), "message": _text(problem)} for problem in problems[:_SHOWN_PROBLEMS]]
    field, message = shown[0]["field"], shown[0]["message"]
    code = "MISSING_PARAMETER" if first["type"] == "missing" else "INVALID_REQUEST"
    return error(
        code, f"{field}: {message}.", remedy=f"Correct {field} and send the request again.", field=field, problems=shown
    )


def _field(location: Sequence[str | int]) -> str:
    """`('body', 'resources', 'vcpu')` as `resources.vcpu`. Parts may be keys that the client chose: bounded."""
    return ".".join(str(part)[:80] for part in location[1:7] if part != "[key]") or str(location[0])


def _text(problem: Any) -> str:
    text: str = problem["msg"].removeprefix("Value error, ").rstrip(".")
    return text[:300]
