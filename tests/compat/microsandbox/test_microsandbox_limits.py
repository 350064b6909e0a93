"""Limits where a machine enforces none: those that a client always sends must not keep everybody from starting."""

import json
from typing import Any

import httpx2
import pytest

from cove.compat.microsandbox.config import SandboxConfig
from cove.compat.microsandbox.sandboxes import NamedSandboxes
from cove.models.errors import CoveError, Unsupported, error
from cove.sdk import AsyncControlPlane

pytestmark = pytest.mark.anyio
_CREATED: dict[str, Any] = {
    "id": "1763382095i648uu1o",
    "name": "box",
    "status": "running",
    "public_host": "http://127.0.0.1/sandboxes/1763382095i648uu1o",
    "direct_url": "http://127.0.0.1/sandboxes/1763382095i648uu1o",
    "created_at": "2026-01-17T12:21:35Z",
    "isolation": "namespace",
    "auth_token": "t",
    "token_expires_at": "2036-01-17T12:21:35Z",
}


def _answer(status: int, body: dict[str, Any]) -> httpx2.Response:
    return httpx2.Response(status, stream=httpx2.ByteStream(json.dumps(body).encode()))


class _WithoutCgroups(httpx2.AsyncBaseTransport):
    """Answers as a server does whose machine lets an ordinary user limit nothing."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return _answer(200, {"data": []})
        body = json.loads(await request.aread())
        if "resources" in body:
            failure = error("LIMIT_NOT_ENFORCEABLE", "memory cannot be limited")
            return _answer(400, {"code": failure.code, "message": failure.message})
        self.created.append(body)
        return _answer(201, _CREATED)


async def _start(**config: Any) -> tuple[str, int]:
    server = _WithoutCgroups()
    async with AsyncControlPlane(base_url="http://localhost", transport=server) as control:
        said = await NamedSandboxes(control).start("box", SandboxConfig(**config))
    return said, len(server.created)


async def test_what_the_client_sends_by_itself_is_let_go_and_said() -> None:
    said, created = await _start(memory=512, cpus=1)
    assert created == 1
    assert "not in force" in said
    assert "not in force" not in (await _start())[0]


async def test_what_a_user_chose_is_refused() -> None:
    with pytest.raises(CoveError) as refused:
        await _start(memory=256, cpus=1)
    assert isinstance(refused.value, Unsupported)
