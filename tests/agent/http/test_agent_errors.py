"""Bad input: each gets a 4xx with code, message, remedy and request id, in a form that all clients can read."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from cove.models.execution import MAX_CODE_BYTES

if TYPE_CHECKING:
    from conftest import RunningAgent

pytestmark = pytest.mark.anyio


def assert_refusal(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["code"] == code
    assert isinstance(body["error"], str)
    assert body["error"] == body["message"]
    assert isinstance(body["details"], dict)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["timestamp"].endswith("Z")
    assert isinstance(body["path"], str)
    return body


async def test_unknown_path(agent: "RunningAgent") -> None:
    body = assert_refusal(await agent.client.get("/nothing"), 404, "RESOURCE_NOT_FOUND")
    # JavaScript clients take a 404 with both words for an expired sandbox.
    assert not ("sandbox" in body["message"].lower() and "not found" in body["message"].lower())


async def test_trailing_slash_is_not_redirected(agent: "RunningAgent") -> None:
    assert_refusal(await agent.client.get("/health/"), 404, "RESOURCE_NOT_FOUND")


async def test_wrong_method(agent: "RunningAgent") -> None:
    answer = await agent.client.get("/execute")
    assert_refusal(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/desktop/vnc/status", "/desktop/screenshot", "/desktop/mouse/click"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_desktop_is_absent(agent: "RunningAgent", method: str, path: str) -> None:
    body = assert_refusal(await agent.client.request(method, path), 400, "DESKTOP_NOT_AVAILABLE")
    assert body["details"]["missing_dependencies"]
    assert "not found" not in body["message"].lower()


@pytest.mark.parametrize("sent", [b"", b"   ", b"{", b"[1,2]", b'"text"', b"null", b'{"code": "\\ud800"}', b"\xff\xfe"])
async def test_broken_json(agent: "RunningAgent", sent: bytes) -> None:
    assert_refusal(await agent.client.post("/execute", content=sent), 400, "INVALID_JSON")


async def test_deeply_nested_json(agent: "RunningAgent") -> None:
    sent = b'{"code":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = await agent.client.post("/execute", content=sent)
    assert answer.status_code == 400


async def test_missing_field_is_named(agent: "RunningAgent") -> None:
    body = assert_refusal(await agent.client.post("/execute", json={"language": "bash"}), 400, "MISSING_PARAMETER")
    assert body["details"]["field"] == "code"
    assert "`code`" in body["message"]


@pytest.mark.parametrize("timeout", ["-1", "0", "NaN", "Infinity", "1e999", "1e12", '"soon"', "null"])
async def test_bad_timeouts(agent: "RunningAgent", timeout: str) -> None:
    sent = f'{{"code": "1", "timeout": {timeout}}}'
    answer = await agent.client.post("/execute", content=sent)
    assert answer.status_code == 400
    assert answer.json()["code"] in ("INVALID_REQUEST", "INVALID_JSON")
    assert agent.engine.requests == []


@pytest.mark.parametrize("name", ["A=B", "A\0", "A\nB", "", "\x7f"])
@pytest.mark.parametrize("path", ["/execute", "/commands/run", "/env"])
async def test_bad_variable_names(agent: "RunningAgent", path: str, name: str) -> None:
    variables = {name: "1"}
    if path == "/env":
        answer = await agent.client.put(path, json={"env_vars": variables})
    else:
        answer = await agent.client.post(path, json={"code": "1", "command": "true", "env": variables})
    body = assert_refusal(answer, 400, "INVALID_REQUEST")
    assert "env" in body["details"]["field"]
    assert (await agent.client.get("/env")).json()["env_vars"] == {"GIVEN": "1"}


async def test_unknown_language(agent: "RunningAgent") -> None:
    body = assert_refusal(
        await agent.client.post("/execute", json={"code": "1", "language": "cobol"}), 400, "UNSUPPORTED_LANGUAGE"
    )
    assert "python" in body["message"]


async def test_language_that_the_template_lacks(agent: "RunningAgent") -> None:
    assert_refusal(
        await agent.client.post("/execute", json={"code": "1", "language": "go"}), 400, "UNSUPPORTED_LANGUAGE"
    )


@pytest.mark.parametrize("size", [MAX_CODE_BYTES + 1, 10_000_000])
async def test_code_over_the_limit(agent: "RunningAgent", size: int) -> None:
    answer = await agent.client.post("/execute", json={"code": "#" * size})
    body = assert_refusal(answer, 413, "REQUEST_TOO_LARGE")
    assert "/files/upload" in body["message"]
    assert agent.engine.requests == []


async def test_code_is_counted_in_bytes(agent: "RunningAgent") -> None:
    answer = await agent.client.post("/execute", json={"code": "é" * (MAX_CODE_BYTES // 2 + 1)})
    assert_refusal(answer, 413, "REQUEST_TOO_LARGE")


async def test_body_over_the_limit_is_refused_by_its_length(agent: "RunningAgent") -> None:
    head = b"POST /execute HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999999\r\n\r\n"
    answer = await agent.raw(head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


async def test_body_over_the_limit_without_a_length(agent: "RunningAgent") -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 1024 * 1024

    answer = await agent.client.post("/env", content=endless())
    assert answer.status_code in (405, 413)
    answer = await agent.client.put("/env", content=endless())
    assert_refusal(answer, 413, "REQUEST_TOO_LARGE")
    assert (await agent.client.get("/health")).status_code == 200


async def test_platform_failure_is_typed(agent: "RunningAgent") -> None:
    answer = await agent.client.post("/execute", json={"code": "raise the platform"})
    assert_refusal(answer, 500, "EXECUTION_FAILED")


async def test_internal_failure_shows_no_trace(agent: "RunningAgent") -> None:
    answer = await agent.client.post("/execute", json={"code": "raise a bug"})
    body = assert_refusal(answer, 500, "INTERNAL_ERROR")
    assert "secret detail" not in json.dumps(body)
    assert "Traceback" not in json.dumps(body)


@pytest.mark.parametrize("given", ["req_1.a-b", "x" * 128])
async def test_request_id_is_echoed(agent: "RunningAgent", given: str) -> None:
    answer = await agent.client.get("/health", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a;b", "ä".encode()])
async def test_unsafe_request_id_is_replaced(agent: "RunningAgent", given: bytes) -> None:
    answer = await agent.client.get("/health", headers={b"X-Request-ID": given})
    assert answer.headers["x-request-id"].startswith("req_")


async def test_not_http(agent: "RunningAgent") -> None:
    answer = await agent.raw(b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"INVALID_REQUEST"' in answer


@pytest.mark.parametrize(
    "start",
    [b"GET /health HTTP/1.1\r\nhost: a\r\nx-long: ", b"GET /"],
)
async def test_endless_head(agent: "RunningAgent", start: bytes) -> None:
    answer = await agent.raw(start + b"a" * 300_000)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"HEADERS_TOO_LARGE"' in answer
    assert (await agent.client.get("/health")).status_code == 200


async def test_smuggling_is_refused(agent: "RunningAgent") -> None:
    head = b"POST /execute HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    assert (await agent.raw(head)).startswith(b"HTTP/1.1 400 ")


async def test_stalled_connections_do_not_hinder_others(agent: "RunningAgent") -> None:
    stalled = [await asyncio.open_unix_connection(agent.address) for _ in range(50)]
    try:
        for _, writer in stalled:
            writer.write(b"POST /execute HTTP/1.1\r\ncontent-length: 100\r\n\r\n{")
        assert (await agent.client.get("/health")).status_code == 200
    finally:
        for _, writer in stalled:
            writer.close()
