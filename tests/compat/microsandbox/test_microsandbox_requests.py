"""JSON-RPC bodies: what is read, and how the rest is answered (contract sections 1.2 and 1.4)."""

import json
from typing import Any

import pytest

from cove.compat.microsandbox.rpc import NO_KEY, Reply, RpcRequest, answer, read_request, refusal
from cove.models.errors import error
from cove.sdk import AsyncControlPlane

pytestmark = pytest.mark.anyio
JSON = "application/json"


def _read(fields: Any, content_type: str | None = JSON) -> RpcRequest | Reply:
    return read_request(content_type, json.dumps(fields).encode())


@pytest.mark.parametrize("number", ["a-b", "", 7, 0, -1, 2**70])
def test_ids_are_echoed(number: Any) -> None:
    request = _read({"jsonrpc": "2.0", "method": "x", "id": number})
    assert isinstance(request, RpcRequest)
    assert request.result("done").body == {"jsonrpc": "2.0", "result": "done", "id": number}
    assert request.error(404, -32601, "no").body == {
        "jsonrpc": "2.0",
        "error": {"code": -32601, "message": "no"},
        "id": number,
    }


def test_without_an_id_the_answer_has_none() -> None:
    for fields in ({}, {"id": None}):
        request = _read({"jsonrpc": "2.0", "method": "x", **fields})
        assert isinstance(request, RpcRequest)
        assert request.result(1).body == {"jsonrpc": "2.0", "result": 1}


@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "json"])
def test_another_kind_of_body(kind: str | None) -> None:
    reply = _read({"jsonrpc": "2.0", "method": "x"}, kind)
    assert isinstance(reply, Reply)
    assert reply.status == 415


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"])
def test_kinds_of_json(kind: str) -> None:
    assert isinstance(_read({"jsonrpc": "2.0", "method": "x"}, kind), RpcRequest)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b"9" * 10_000])
def test_bodies_that_are_not_json(body: bytes) -> None:
    reply = read_request(JSON, body)
    assert isinstance(reply, Reply)
    assert reply.status == 400


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [{"jsonrpc": "2.0", "method": "x"}],
        "x",
        1,
        None,
        {},
        {"jsonrpc": "2.0"},
        {"method": "x"},
        {"jsonrpc": 2, "method": "x"},
        {"jsonrpc": "2.0", "method": "x", "id": []},
        {"jsonrpc": "2.0", "method": "x", "id": 1.5},
        {"jsonrpc": "2.0", "method": "x", "id": True},
    ],
)
def test_json_that_is_no_request(fields: Any) -> None:
    reply = _read(fields)
    assert isinstance(reply, Reply)
    assert reply.status == 422


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"jsonrpc": "1.0", "method": "sandbox.stop"}, 400, -32600),
        ({"jsonrpc": "2.0", "method": "sandbox.restart"}, 404, -32601),
    ],
)
async def test_errors_of_the_protocol(fields: dict[str, Any], status: int, code: int) -> None:
    request = _read({**fields, "id": 1})
    assert isinstance(request, RpcRequest)
    async with AsyncControlPlane(base_url="http://127.0.0.1:9") as control:
        reply = await answer(request, control)
    assert reply.status == status
    assert isinstance(reply.body, dict)
    assert reply.body["error"]["code"] == code


@pytest.mark.parametrize(
    ("method", "params", "named"),
    [
        ("sandbox.start", None, "sandbox"),
        ("sandbox.start", [], "params"),
        ("sandbox.start", {"sandbox": 1}, "sandbox"),
        ("sandbox.start", {"sandbox": "a", "config": []}, "config"),
        ("sandbox.start", {"sandbox": "a", "config": {"cpus": -2}}, "config.cpus"),
        ("sandbox.start", {"sandbox": "a b"}, "1 to 63"),
        ("sandbox.start", {"sandbox": "a", "namespace": "a b"}, "1 to 63"),
        ("sandbox.start", {"sandbox": "a", "namespace": "*"}, "1 to 63"),
        ("sandbox.start", {"sandbox": "a", "config": {"volumes": ["a:/b"]}}, "volumes"),
        ("sandbox.repl.run", {"sandbox": "a", "code": "1"}, "language"),
        ("sandbox.command.run", {"sandbox": "a", "command": "ls", "args": "-la"}, "args"),
        ("sandbox.metrics.get", {"namespace": 1}, "namespace"),
    ],
)
async def test_parameters_that_cannot_be(method: str, params: Any, named: str) -> None:
    request = _read({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
    assert isinstance(request, RpcRequest)
    async with AsyncControlPlane(base_url="http://127.0.0.1:9") as control:
        reply = await answer(request, control)
    assert isinstance(reply.body, dict)
    assert reply.status == 400
    assert reply.body.keys() == {"error", "code"}
    assert reply.body["code"] == 2001
    assert named in reply.body["error"]


@pytest.mark.parametrize(
    ("code", "status", "number"),
    [
        ("AUTHENTICATION_REQUIRED", 401, 1001),
        ("FORBIDDEN", 403, 3001),
        ("SANDBOX_NOT_FOUND", 404, 4001),
        ("INVALID_REQUEST", 400, 2001),
        ("CONFLICT", 400, 2001),
        ("REQUEST_TOO_LARGE", 413, None),
        ("METHOD_NOT_ALLOWED", 405, None),
        ("RATE_LIMIT_EXCEEDED", 429, None),
        ("INTERNAL_ERROR", 500, 5001),
    ],
)
def test_the_envelope(code: str, status: int, number: int | None) -> None:
    reply = refusal(error(code, "What happened.", remedy="What to do."), credential=NO_KEY)
    assert reply == Reply(status, {"error": "What happened. What to do.", "code": number})
