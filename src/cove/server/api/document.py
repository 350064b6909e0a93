"""The OpenAPI document, corrected where the framework does not know what the server really answers."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from cove.models.base import Contract
from cove.server.api.authentication import OPEN_PATHS, SECURITY_SCHEMES

_REFERENCE = {"$ref": "#/components/schemas/ErrorBody"}
_GENERATED = ("HTTPValidationError", "ValidationError")


class ErrorFacts(Contract):
    """The nested form of an error, which some clients read."""

    code: str
    message: str
    request_id: str
    details: dict[str, Any]


class ErrorBody(Contract):
    """Body of every answer that is not a success. The same facts appear nested and at the top, for all clients."""

    error: ErrorFacts
    message: str
    code: str
    remedy: str
    details: dict[str, Any]
    request_id: str


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of the app's routes."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for name in _GENERATED:
        schemas.pop(name, None)
    body = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs", {}))
    schemas["ErrorBody"] = body
    components["securitySchemes"] = SECURITY_SCHEMES
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _correct(operation, needs_key=path not in OPEN_PATHS)
    return document


def _correct(operation: dict[str, Any], *, needs_key: bool) -> None:
    """Refusals are 400 here, not 422, and all have one body."""
    responses: dict[str, Any] = operation["responses"]
    responses.pop("422", None)
    responses["default"] = {"description": "A typed error.", "content": {"application/json": {"schema": _REFERENCE}}}
    if needs_key:
        operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
