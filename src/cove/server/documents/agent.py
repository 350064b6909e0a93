"""The OpenAPI document of an agent. It is put together here and not in the agent: a sandbox has no memory to spare."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic.json_schema import JsonSchemaMode, models_json_schema

from cove.models.base import Contract
from cove.models.version import VERSION
from cove.server.documents.agent_files import FILE_OPERATIONS
from cove.server.documents.agent_programs import BACKGROUND_OPERATIONS, RUN_OPERATIONS
from cove.server.documents.agent_sockets import SOCKET_OPERATIONS
from cove.server.documents.agent_system import SYSTEM_OPERATIONS
from cove.server.documents.errors import GATEWAY_ERRORS, AgentErrorBody, error_responses, shared_responses
from cove.server.documents.operation import JSON, Body, Operation, Parameter, Shape

OPERATIONS: Final = (
    *RUN_OPERATIONS,
    *BACKGROUND_OPERATIONS,
    *FILE_OPERATIONS,
    *SYSTEM_OPERATIONS,
    *SOCKET_OPERATIONS,
)
"""All that a sandbox's token opens. `POST /execute/async` is answered by the server."""

_EVERYWHERE: Final = (
    *GATEWAY_ERRORS,
    "UNAUTHORIZED",
    "TOKEN_EXPIRED",
    "SANDBOX_NOT_FOUND",
    "SANDBOX_DIED",
    "INVALID_STATE",
    "AGENT_UNREACHABLE",
)
_OF_BODIES: Final = ("INVALID_JSON", "MISSING_PARAMETER")
_OF_PARAMETERS: Final = ("RESOURCE_NOT_FOUND", "METHOD_NOT_ALLOWED")
_SCHEMAS: Final = "#/components/schemas/"
_DESCRIPTION: Final = (
    "What answers at a sandbox's own address, which is the `public_host` of `POST /v1/sandboxes`. Every request needs "
    "the sandbox's token. A program that fails is an answer with status 200; other statuses are failures of the "
    "request or of the platform. Paths that take GET take HEAD too. WebSockets are described by `x-websocket`: the "
    "frames that either side may send."
)
_SERVER: Final = {
    "url": "http://127.0.0.1:8080/sandboxes/{sandbox_id}",
    "description": "On the server's own address; with a domain, also https://7777-{sandbox_id}.<domain>.",
    "variables": {"sandbox_id": {"default": "1763382095i648uu1o"}},
}


def describe_agent() -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    modes: dict[type[Contract], JsonSchemaMode] = {
        model: mode for operation in OPERATIONS for model, mode in _models(operation)
    }
    modes[AgentErrorBody] = "serialization"
    _, definitions = models_json_schema(list(modes.items()), ref_template=_SCHEMAS + "{model}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cove agent", "version": VERSION, "description": _DESCRIPTION},
        "servers": [_SERVER],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "responses": shared_responses(paths, AgentErrorBody),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _models(operation: Operation) -> Iterator[tuple[type[Contract], JsonSchemaMode]]:
    if operation.body and isinstance(operation.body.shape, type):
        yield operation.body.shape, "validation"
    if operation.answer and isinstance(operation.answer.shape, type):
        yield operation.answer.shape, "serialization"
    if operation.socket:
        for frame in operation.socket.client:
            yield frame, "validation"
        for frame in operation.socket.server:
            yield frame, "serialization"


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.name.replace("_", " ").capitalize(),
        "description": operation.description,
        "operationId": operation.name,
    }
    if operation.parameters:
        described["parameters"] = [_parameter(each, operation.path) for each in operation.parameters]
    if operation.body:
        described["requestBody"] = {"required": operation.body.required, "content": _content(operation.body)}
    described["responses"] = {**_success(operation), **error_responses(_codes(operation))}
    if operation.socket:
        described["x-websocket"] = {
            "client": [_schema(frame) for frame in operation.socket.client],
            "server": [_schema(frame) for frame in operation.socket.server],
        }
    return described


def _codes(operation: Operation) -> tuple[str, ...]:
    bodies = _OF_BODIES if operation.body and operation.body.content_type == JSON else ()
    return (*_EVERYWHERE, *bodies, *(_OF_PARAMETERS if "{" in operation.path else ()), *operation.errors)


def _success(operation: Operation) -> dict[str, Any]:
    if operation.socket:
        return {"101": {"description": "The connection is a WebSocket (RFC 6455)."}}
    if operation.answer:
        return {"200": {"description": "Success.", "content": _content(operation.answer)}}
    return {}


def _parameter(parameter: Parameter, path: str) -> dict[str, Any]:
    place = "path" if f"{{{parameter.name}}}" in path else "query"
    described = {
        "name": parameter.name,
        "in": place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }
    return described if parameter.example is None else {**described, "example": parameter.example}


def _content(body: Body) -> dict[str, Any]:
    described: dict[str, Any] = {"schema": _schema(body.shape)}
    if body.example is not None:
        described["example"] = body.example
    return {body.content_type: described}


def _schema(shape: Shape) -> dict[str, Any]:
    return {"$ref": _SCHEMAS + shape.__name__} if isinstance(shape, type) else shape
