from __future__ import annotations

import asyncio  # async only
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cove import AsyncSandbox
from cove.models.errors import (
    AuthenticationFailed,
    Conflict,
    CoveError,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    PermissionRefused,
    PlatformFailure,
    Unsupported,
)
from cove.sdk import AsyncControlPlane, _retry

if TYPE_CHECKING:
    from tests.sdk.conftest import Planes, ScriptedServer

pytestmark = pytest.mark.anyio  # async only

SANDBOX_ID = "1763382095i648uu1o"


def created(url: str) -> dict[str, Any]:
    """The answer to a create on a scripted server."""
    host = f"{url}/sandboxes/{SANDBOX_ID}"
    return {
        "id": SANDBOX_ID,
        "status": "running",
        "public_host": host,
        "direct_url": host,
        "created_at": "2026-01-01T00:00:00Z",
        "isolation": "namespace",
        "auth_token": "token",
        "token_expires_at": "2099-01-01T00:00:00Z",
    }


def failure(code: str, **details: Any) -> dict[str, Any]:
    """A control plane's error body."""
    body = {"code": code, "message": "m", "request_id": "req_x", "details": details}
    return {"error": body, **body}


async def sandbox_on(server: ScriptedServer) -> AsyncSandbox:
    """A sandbox of a scripted server, which has seen one request."""
    server.answer(201, created(server.url), close=True)
    return await AsyncSandbox.create(base_url=server.url, api_key="key")


async def test_code_is_never_run_twice_when_the_connection_is_lost(scripted: ScriptedServer) -> None:
    sandbox = await sandbox_on(scripted)
    scripted.hang_up()
    scripted.answer(200, {"stdout": "a second run"})
    with pytest.raises(PlatformFailure, match="not sent a second time") as caught:
        await sandbox.run_code("print(1)")
    await sandbox.aclose()
    assert caught.value.code == "NETWORK_ERROR"
    assert len(scripted.requests) == 2


async def test_code_is_never_run_twice_when_the_answer_is_cut(scripted: ScriptedServer) -> None:
    sandbox = await sandbox_on(scripted)
    scripted.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{")
    with pytest.raises(PlatformFailure):
        await sandbox.run_code("print(1)")
    await sandbox.aclose()
    assert len(scripted.requests) == 2


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_code_and_commands_are_not_repeated_after_a_retryable_answer(
    scripted: ScriptedServer, status: int
) -> None:
    sandbox = await sandbox_on(scripted)
    scripted.answer(status, {"error": "e", "code": "HOST_UNAVAILABLE", "details": {"sent": False}}, close=True)
    scripted.answer(status, {"error": "e", "code": "RATE_LIMIT_EXCEEDED"}, close=True)
    with pytest.raises(CoveError):
        await sandbox.run_code("print(1)")
    with pytest.raises(CoveError):
        await sandbox.commands.run("ls")
    await sandbox.aclose()
    assert len(scripted.requests) == 3


async def test_a_read_is_repeated_after_a_lost_connection(scripted: ScriptedServer) -> None:
    scripted.hang_up()
    scripted.answer(503, failure("HOST_UNAVAILABLE"), close=True)
    scripted.answer(200, created(scripted.url), close=True)
    async with AsyncControlPlane(base_url=scripted.url) as control:
        assert (await control.get(SANDBOX_ID)).id == SANDBOX_ID
    assert len(scripted.requests) == 3


async def test_repetition_is_bounded(scripted: ScriptedServer) -> None:
    async with AsyncControlPlane(base_url=scripted.url) as control:
        with pytest.raises(PlatformFailure):
            await control.get(SANDBOX_ID)
    assert len(scripted.requests) == _retry.ATTEMPTS


async def test_create_is_repeated_with_the_same_key_only_when_nothing_was_made(scripted: ScriptedServer) -> None:
    scripted.answer(503, failure("CAPACITY_EXHAUSTED", retry_after_seconds=0), close=True)
    sandbox = await sandbox_on(scripted)
    await sandbox.aclose()
    keys = {
        line for request in scripted.requests for line in request.split(b"\r\n") if b"idempotency-key" in line.lower()
    }
    assert len(scripted.requests) == 2
    assert len(keys) == 1


async def test_create_is_not_repeated_after_a_lost_connection(scripted: ScriptedServer) -> None:
    scripted.hang_up()
    with pytest.raises(PlatformFailure):
        await AsyncSandbox.create(base_url=scripted.url)
    assert len(scripted.requests) == 1


async def test_create_is_not_repeated_after_an_internal_error(scripted: ScriptedServer) -> None:
    scripted.answer(500, failure("INTERNAL_ERROR"), close=True)
    with pytest.raises(PlatformFailure):
        await AsyncSandbox.create(base_url=scripted.url)
    assert len(scripted.requests) == 1


async def test_no_server_says_how_to_start_one(unused_url: str) -> None:
    with pytest.raises(PlatformFailure, match="cove serve") as caught:
        await AsyncSandbox.create(base_url=unused_url)
    assert caught.value.code == "NETWORK_ERROR"
    assert unused_url in caught.value.message


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "INVALID_REQUEST", InvalidRequest),
        (401, "AUTHENTICATION_REQUIRED", AuthenticationFailed),
        (403, "FORBIDDEN", PermissionRefused),
        (403, "RESOURCE_LIMIT_EXCEEDED", LimitExceeded),
        (404, "TEMPLATE_NOT_FOUND", NotFound),
        (409, "TEMPLATE_NOT_BUILT", Conflict),
        (400, "ISOLATION_UNAVAILABLE", Unsupported),
        (507, "DISK_FULL", PlatformFailure),
    ],
)
async def test_the_class_of_an_error_follows_its_code(
    planes: Planes, status: int, code: str, kind: type[CoveError]
) -> None:
    planes.answer_next("/v1/sandboxes", status, failure(code, fact=1) | {"remedy": "Do this."})
    with pytest.raises(kind) as caught:
        await AsyncSandbox.create()
    assert (caught.value.code, caught.value.message, caught.value.remedy) == (code, "m", "Do this.")
    assert caught.value.details == {"fact": 1, "request_id": "req_x"}


async def test_a_remedy_that_the_message_repeats_is_said_once(planes: Planes) -> None:
    body = {"error": "No such key. Make one.", "message": "No such key. Make one.", "remedy": "Make one."}
    planes.answer_next("/v1/sandboxes", 401, body)
    with pytest.raises(AuthenticationFailed) as caught:
        await AsyncSandbox.create()
    assert (caught.value.message, str(caught.value)) == ("No such key.", "No such key. Make one.")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {}, NotFound),
        (403, {"error": None, "details": None}, PermissionRefused),
        (413, {"error": "too big", "code": "SOMETHING_NEW"}, LimitExceeded),
        (418, {"error": {"message": 5}}, InvalidRequest),
        (599, {"message": "x" * 100_000}, PlatformFailure),
    ],
)
async def test_unknown_error_bodies_are_understood_by_status(
    planes: Planes, status: int, body: dict[str, Any], kind: type[CoveError]
) -> None:
    planes.answer_next("/execute/rich", status, body)
    async with AsyncSandbox.create() as sandbox:
        with pytest.raises(kind) as caught:
            await sandbox.run_code("1")
    assert 0 < len(caught.value.message) <= 4000


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot json!",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{"exit_code":"x"}',
        b"HTTP/1.1 500 X\r\nContent-Length: 3\r\nConnection: close\r\n\r\n<h>",
        b"nonsense\r\n\r\n",
    ],
)
async def test_an_agent_that_answers_nonsense_is_a_platform_failure(scripted: ScriptedServer, answer: bytes) -> None:
    sandbox = await sandbox_on(scripted)
    scripted.raw(answer)
    if b"gzip" in answer:
        # Not decoded: a small answer could otherwise grow without bound.
        assert (await sandbox.run_code("1")).stdout == ""
    else:
        with pytest.raises(PlatformFailure):
            await sandbox.run_code("1")
    await sandbox.aclose()


async def test_an_answer_that_is_too_large_is_not_read(scripted: ScriptedServer) -> None:
    sandbox = await sandbox_on(scripted)
    scripted.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\nConnection: close\r\n\r\nx")
    with pytest.raises(LimitExceeded, match="larger than"):
        await sandbox.run_code("1")
    await sandbox.aclose()


async def test_a_redirect_is_not_followed(scripted: ScriptedServer) -> None:
    scripted.raw(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    with pytest.raises(InvalidRequest, match="redirect"):
        await AsyncSandbox.create(base_url=scripted.url)


async def test_a_silent_server_is_a_timeout_and_is_asked_once(scripted: ScriptedServer, tmp_path: Path) -> None:
    sandbox = await sandbox_on(scripted)
    scripted.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
    with pytest.raises(PlatformFailure) as caught:
        await sandbox.files.download("/x", tmp_path / "x", timeout=0.2)
    await sandbox.aclose()
    assert caught.value.code == "TIMEOUT"
    assert len(scripted.requests) == 2
    assert list(tmp_path.iterdir()) == []


async def test_a_refused_token_refresh_is_raised(planes: Planes) -> None:
    async with AsyncSandbox.create() as sandbox:
        planes.valid_tokens.clear()
        planes.answer_next("/token/refresh", 404, failure("SANDBOX_NOT_FOUND"))
        with pytest.raises(NotFound):
            await sandbox.run_code("1")
        assert len(planes.to("/execute/rich")) == 1


async def test_a_token_that_stays_expired_is_renewed_once_only(planes: Planes) -> None:
    async with AsyncSandbox.create() as sandbox:
        for _ in range(3):
            planes.answer_next("/execute/rich", 401, {"error": "e", "message": "m", "code": "TOKEN_EXPIRED"})
        with pytest.raises(AuthenticationFailed):
            await sandbox.run_code("1")
        assert len(planes.to("/execute/rich")) == 2
        assert planes.tokens_issued == 2


async def test_the_body_s_own_exception_wins_over_a_failing_kill(planes: Planes) -> None:
    with pytest.raises(ZeroDivisionError):
        async with AsyncSandbox.create() as sandbox:
            planes.answer_next(sandbox.sandbox_id, 500, failure("INTERNAL_ERROR"))
            raise ZeroDivisionError
    with pytest.raises(PlatformFailure):
        async with AsyncSandbox.create() as sandbox:
            planes.answer_next(sandbox.sandbox_id, 500, failure("INTERNAL_ERROR"))


async def test_errors_show_no_key(planes: Planes) -> None:
    planes.api_key, key = "another", planes.api_key
    with pytest.raises(AuthenticationFailed) as caught:
        await AsyncSandbox.create()
    planes.api_key = key
    assert key not in repr(caught.value) + str(caught.value)
    assert key not in repr(AsyncControlPlane().wire.endpoint)


async def test_a_cancelled_call_closes_its_connection(scripted: ScriptedServer) -> None:  # async only
    sandbox = await sandbox_on(scripted)  # async only
    scripted.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")  # async only
    with pytest.raises(TimeoutError):  # async only
        async with asyncio.timeout(0.2):  # async only
            await sandbox.run_code("1")  # async only
    await asyncio.to_thread(scripted.wait_for_goodbye)  # async only
    await sandbox.aclose()  # async only
    assert len(scripted.requests) == 2  # async only
