import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import pytest
from fastapi.routing import iter_route_contexts
from tests.core.fake_host import FakeHost

from cove.agent.app import ROUTES, WEBSOCKETS
from cove.models.errors import ERRORS
from cove.server.app import build_control_plane
from cove.server.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("control-plane.json", "agent.json")
INTERNAL = {("POST", "/rehearsal")}
ELSEWHERE = {("POST", "/execute/async")}
"""Clients send it to the agent's address, and the server answers."""

LATE = "408"
"""The gateway's for a client that sends too slowly."""


class Operation(NamedTuple):
    document: str
    method: str
    path: str
    details: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.document.removesuffix('.json')} {self.method} {self.path}"


@cache
def loaded(document: str) -> dict[str, Any]:
    return json.loads((ROOT / "docs" / "openapi" / document).read_text(encoding="utf-8"))


def operations(*documents: str) -> list[Operation]:
    return [
        Operation(document, method.upper(), path, details)
        for document in documents
        for path, methods in loaded(document)["paths"].items()
        for method, details in methods.items()
    ]


EVERY = operations(*DOCUMENTS)


def described(document: str) -> set[tuple[str, str]]:
    return {(operation.method, operation.path) for operation in operations(document)}


def test_the_documents_are_not_stale() -> None:
    command = [sys.executable, "tools/generate_openapi.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_route_of_the_agent_is_described() -> None:
    routes = {
        (method, route.path.replace(":path}", "}"))
        for route in ROUTES
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert described("agent.json") == routes - INTERNAL | ELSEWHERE


def test_every_websocket_of_the_agent_is_described_with_its_frames() -> None:
    sockets = {each.path: each.details["x-websocket"] for each in EVERY if "x-websocket" in each.details}
    assert sockets.keys() == {route.path for route in WEBSOCKETS}
    schemas = loaded("agent.json")["components"]["schemas"]
    frames = [
        frame["$ref"].rpartition("/")[2] for socket in sockets.values() for side in socket.values() for frame in side
    ]
    assert set(frames) <= schemas.keys()


def test_every_route_of_the_control_plane_is_described(tmp_path: Path) -> None:
    control = build_control_plane(Settings(data_dir=tmp_path), FakeHost(tmp_path))
    routes = {
        (method, context.path)
        for context in iter_route_contexts(control.app.routes)
        for method in context.methods or ()
        if method != "HEAD"
    }
    of_the_agent = ("POST", "/sandboxes/{sandbox_id}/execute/async")
    uploads = ("PUT", "/v1/templates/uploads/{token}")
    elsewhere = {("POST", "/api/v1/rpc"), ("GET", "/api/v1/health"), of_the_agent, ("GET", "/openapi.json")}
    assert described("control-plane.json") == routes - elsewhere | {uploads}


@pytest.mark.parametrize("operation", EVERY, ids=str)
def test_examples_fit_their_schemas(operation: Operation) -> None:
    document = loaded(operation.document)
    found = 0
    for schema, example in _examples(operation.details):
        jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}).validate(example)
        found += 1
    assert found or not _contents(operation.details)


@pytest.mark.parametrize("operation", EVERY, ids=str)
def test_operations_have_examples_of_request_and_success(operation: Operation) -> None:
    for content in _contents(operation.details):
        for kind, media in content.items():
            binary = media["schema"].get("format") == "binary" or kind == "multipart/form-data"
            assert binary or "example" in media
    for parameter in operation.details.get("parameters", ()):
        assert "example" in parameter or not parameter["required"]


@pytest.mark.parametrize("operation", EVERY, ids=str)
def test_errors_are_those_of_the_table(operation: Operation) -> None:
    responses = loaded(operation.document)["components"]["responses"]
    refused = {status: found for status, found in operation.details["responses"].items() if "$ref" in found}
    assert {"400", "500"} <= refused.keys()
    for status, reference in refused.items():
        codes = reference["$ref"].rpartition("/")[2].split(".")
        schema = responses[".".join(codes)]["content"]["application/json"]["schema"]
        assert schema["allOf"][1]["properties"]["code"]["enum"] == codes
        assert status == LATE or {ERRORS[code].status for code in codes} == {int(status)}
        assert int(status) >= 400


def test_operation_ids_are_unique() -> None:
    for document in DOCUMENTS:
        ids = [operation.details["operationId"] for operation in operations(document)]
        assert len(ids) == len(set(ids))


def _contents(details: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the request and of the success."""
    bodies = [details.get("requestBody", {}), *details["responses"].values()]
    return [body["content"] for body in bodies if "content" in body]


def _examples(details: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    for content in _contents(details):
        for media in content.values():
            if "example" in media:
                yield media["schema"], media["example"]
    for parameter in details.get("parameters", ()):
        if "example" in parameter:
            yield parameter["schema"], parameter["example"]
