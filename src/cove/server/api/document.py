"""The OpenAPI document of the control plane, corrected where the framework does not know what is really answered."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from cove.models.template_builds import MAX_UPLOAD_BYTES
from cove.server.api.authentication import LOGIN_PATHS, OPEN_PATHS, SECURITY_SCHEMES
from cove.server.api.uploads import PREFIX as UPLOADS
from cove.server.documents.control_plane_facts import FACTS, PARAMETERS
from cove.server.documents.errors import GATEWAY_ERRORS, ErrorBody, error_responses, shared_responses

_GENERATED = ("HTTPValidationError", "ValidationError")
_EVERYWHERE = (*GATEWAY_ERRORS, "STORE_UNAVAILABLE")
_OF_KEYS = ("AUTHENTICATION_REQUIRED", "FORBIDDEN", "RATE_LIMIT_EXCEEDED")
_OF_BODIES = ("INVALID_JSON", "MISSING_PARAMETER")
_OF_PARAMETERS = ("RESOURCE_NOT_FOUND", "METHOD_NOT_ALLOWED")
"""A parameter with a slash in it makes another path."""

_OF_WRITES = ("DISK_FULL",)
_JSON = "application/json"
_UPLOAD_PATH = UPLOADS + "{token}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of the app's routes."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas: dict[str, Any] = document["components"]["schemas"]
    for name in _GENERATED:
        schemas.pop(name, None)
    body = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs"))
    schemas["ErrorBody"] = body
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    document["paths"][_UPLOAD_PATH] = {"put": _upload()}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(operation, path=path, writes=method != "get")
    document["components"]["responses"] = shared_responses(document["paths"], ErrorBody)
    return document


def _complete(operation: dict[str, Any], *, path: str, writes: bool) -> None:
    """Add the examples, the errors and who may ask. Refusals are 400 here, not the framework's 422."""
    facts = FACTS[operation["operationId"]]
    needs_key = path not in OPEN_PATHS and path != _UPLOAD_PATH
    responses: dict[str, Any] = operation["responses"]
    responses.pop("422", None)
    (success,) = responses
    kind = facts.kind if isinstance(facts.answer, str) else _JSON
    responses[success]["content"] = {kind: {"schema": {"type": "string"}, **_content_of(responses[success])}}
    responses[success]["content"][kind]["example"] = facts.answer
    codes = (
        *_EVERYWHERE,
        *(_OF_KEYS if needs_key or path in LOGIN_PATHS else ()),
        *(_OF_PARAMETERS if "{" in path else ()),
        *(_OF_WRITES if writes else ()),
        *facts.errors,
    )
    if facts.body is not None:
        codes += _OF_BODIES
        operation["requestBody"]["content"][_JSON]["example"] = facts.body
    responses.update(error_responses(codes))
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter["example"] = PARAMETERS[parameter["name"]]
    if needs_key:
        operation["security"] = [{name: []} for name in SECURITY_SCHEMES]


def _content_of(response: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, dict[str, Any]] = response.get("content", {})
    return content.get(_JSON, {})


def _upload() -> dict[str, Any]:
    """Archives do not pass the framework's routes."""
    answer = {
        "type": "object",
        "properties": {
            "success": {"type": "boolean"},
            "files_hash": {"type": "string"},
            "request_id": {"type": "string"},
        },
        "required": ["success", "files_hash", "request_id"],
    }
    return {
        "tags": ["templates"],
        "summary": "Upload Archive",
        "description": f"Put the archive of a COPY step, a tar.gz of at most {MAX_UPLOAD_BYTES} bytes, where "
        "`upload-link` said. The link is the credential.",
        "operationId": "upload_archive",
        "parameters": [{"name": "token", "in": "path", "required": True, "schema": {"type": "string"}}],
        "requestBody": {
            "required": True,
            "content": {"application/gzip": {"schema": {"type": "string", "format": "binary"}}},
        },
        "responses": {"200": {"description": "The archive is there.", "content": {_JSON: {"schema": answer}}}},
    }
