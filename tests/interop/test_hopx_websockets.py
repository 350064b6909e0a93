"""WebSocket handshakes of the client reach the sandbox they are for, by the token alone.

This agent has no WebSocket endpoints yet: it refuses in order, and that answer shows who was asked.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.interop import hopx

Sandbox, errors = hopx.client.Sandbox, hopx.errors

pytestmark = pytest.mark.anyio


async def stream(sandbox: Any) -> None:
    async for _ in sandbox.run_code_stream("print(1)"):
        pass


async def terminal(sandbox: Any) -> None:
    await sandbox.terminal.connect(timeout=10)


async def watch(sandbox: Any) -> None:
    async for _ in sandbox.files.watch("/workspace", timeout=10):
        pass


@pytest.mark.parametrize("call", [stream, terminal, watch])
async def test_handshakes_reach_the_sandbox_of_the_token(
    there: dict[str, Any], call: Callable[[Any], Awaitable[None]]
) -> None:
    with (
        Sandbox.create("base", timeout_seconds=60, **there) as asked,
        Sandbox.create("base", timeout_seconds=60, **there) as other,
    ):
        for sandbox in (asked, other):
            sandbox.run_code("pass")
        before = [sandbox.get_metrics_snapshot()["total_requests"] for sandbox in (asked, other)]
        async with asyncio.timeout(20):
            with pytest.raises(errors.AgentError, match="HTTP 404"):
                await call(asked)
        after = [sandbox.get_metrics_snapshot()["total_requests"] for sandbox in (asked, other)]
        # Each snapshot counts itself; the handshake counts only where it arrived.
        assert after[1] - before[1] == 1
        assert after[0] - before[0] >= 2
        assert asked.run_code("print('well')").stdout == "well\n"


async def test_a_handshake_with_a_bad_token_is_refused(sandbox: Any) -> None:
    sandbox._ensure_ws_client()
    token = sandbox._ws_client._jwt_token
    sandbox._ws_client.update_jwt_token("a.b.c")
    try:
        with pytest.raises(errors.AgentError, match="HTTP 401"):
            await sandbox._ws_client.connect("/terminal", timeout=10)
    finally:
        sandbox._ws_client.update_jwt_token(token)
