"""The greeting is what the library would answer, or nothing."""

import json
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, jsonrpc_message_adapter
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from cove.mcp.greeting import HANDSHAKE_REVISIONS, MAX_BYTES, STATELESS_REVISIONS, greeting_for
from cove.mcp.one_caller import OneCaller
from cove.mcp.server import build_server
from cove.sdk import AsyncControlPlane

CLIENT = {"name": "some client", "version": "1.2.3", "title": "Some Client"}
META = "io.modelcontextprotocol/"


def initialize(revision: str, **more: Any) -> dict[str, Any]:
    params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": CLIENT, **more}
    return {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}


def discover(**more: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}, **more}
    return {"jsonrpc": "2.0", "id": "first", "method": "server/discover", "params": {"_meta": meta}}


GREETED = [
    *(initialize(revision) for revision in HANDSHAKE_REVISIONS),
    initialize(
        "2025-06-18", capabilities={"roots": {"listChanged": True}, "sampling": {}, "elicitation": {"form": {}}}
    ),
    initialize("2025-11-25", capabilities={"experimental": {"x": {}}, "tasks": {"requests": {"tools": {}}}}),
    {**initialize("2025-11-25"), "id": "text \u00e9"},
    {**initialize("2025-11-25"), "id": -5},
    discover(),
    discover(**{META + "clientInfo": CLIENT}),
]

LEFT_ALONE: list[bytes | dict[str, Any]] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"initialize"',
    b"\xff\xfe",
    b"[" * 50_000,
    initialize("1999-01-01"),
    initialize("2026-07-28"),
    initialize("2025-11-25", protocolVersion=["2025-11-25"]),
    initialize("2025-11-25", capabilities={"roots": 5}),
    initialize("2025-11-25", capabilities={"roots": {"listChanged": "yes"}}),
    initialize("2025-11-25", capabilities=None),
    initialize("2025-11-25", clientInfo={"name": "x"}),
    initialize("2025-11-25", clientInfo={"name": "x", "version": 1}),
    initialize("2025-11-25", clientInfo="x"),
    initialize("2025-11-25", _meta={"progressToken": 1}),
    {**initialize("2025-11-25"), "id": None},
    {**initialize("2025-11-25"), "id": True},
    {**initialize("2025-11-25"), "id": 1.5},
    {**initialize("2025-11-25"), "id": "\ud800"},
    {**initialize("2025-11-25"), "jsonrpc": "1.0"},
    {**initialize("2025-11-25"), "method": "tools/list"},
    {**initialize("2025-11-25"), "params": []},
    {**discover(), "params": {}},
    discover(**{META + "protocolVersion": "2027-01-01"}),
    discover(**{META + "clientCapabilities": []}),
    discover(**{META + "clientInfo": {"version": "1"}}),
    discover(**{META + "somethingElse": 1}),
]


def as_line(message: object) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message).encode()


async def answer_of_library(line: bytes) -> dict[str, Any]:
    async with AsyncControlPlane(base_url="http://127.0.0.1:1") as control:
        server = build_server(OneCaller(control))
        requests, for_server = anyio.create_memory_object_stream[SessionMessage | Exception](1)
        from_server, answers = anyio.create_memory_object_stream[SessionMessage](1)
        answer: Any = None
        with anyio.fail_after(10):
            async with requests, answers, anyio.create_task_group() as group:
                group.start_soon(server.run, for_server, from_server, server.create_initialization_options())
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                assert isinstance(message, JSONRPCRequest)
                await requests.send(SessionMessage(message))
                answer = (await answers.receive()).message
                group.cancel_scope.cancel()
    return json.loads(answer.model_dump_json(by_alias=True, exclude_unset=True))


@pytest.mark.anyio
@pytest.mark.parametrize("message", GREETED)
async def test_same_as_the_library(message: dict[str, Any]) -> None:
    line = as_line(message)
    greeting = greeting_for(line)
    assert greeting is not None
    assert greeting.endswith(b"\n")
    assert greeting.count(b"\n") == 1
    assert json.loads(greeting) == await answer_of_library(line)


@pytest.mark.parametrize("message", LEFT_ALONE)
def test_left_to_the_library(message: object) -> None:
    assert greeting_for(as_line(message)) is None


def test_of_any_length_but_a_bounded_one() -> None:
    message = initialize("2025-11-25", clientInfo={**CLIENT, "title": "x" * MAX_BYTES})
    assert greeting_for(as_line(message)) is None


def test_knows_the_revisions_of_the_library() -> None:
    assert HANDSHAKE_REVISIONS == HANDSHAKE_PROTOCOL_VERSIONS
    assert STATELESS_REVISIONS == MODERN_PROTOCOL_VERSIONS
