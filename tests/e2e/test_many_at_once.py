"""Creates, runs and kills side by side."""

import asyncio

import httpx2
import pytest
from tests.e2e.running_server import RunningServer

from cove import AsyncSandbox

pytestmark = pytest.mark.anyio

MANY = 30


async def test_thirty_creates_at_once_all_succeed(server: RunningServer, api: httpx2.Client) -> None:
    async def life(number: int) -> tuple[str, str]:
        async with AsyncSandbox.create(base_url=server.url, timeout_seconds=120) as sandbox:
            result = await sandbox.run_code(f"print({number})")
            return sandbox.sandbox_id, result.stdout

    async with asyncio.timeout(50):
        lives = await asyncio.gather(*(life(number) for number in range(MANY)))
    assert [printed for _, printed in lives] == [f"{number}\n" for number in range(MANY)]
    assert len({sandbox_id for sandbox_id, _ in lives}) == MANY
    listed = {one["id"] for one in api.get("/v1/sandboxes?limit=1000").json()["data"]}
    assert listed & {sandbox_id for sandbox_id, _ in lives} == set()


async def test_many_calls_into_one_sandbox(server: RunningServer) -> None:
    async with AsyncSandbox.create(base_url=server.url, timeout_seconds=120) as sandbox:
        await sandbox.run_code("counter = 0")
        async with asyncio.timeout(50):
            await asyncio.gather(*(sandbox.run_code("counter += 1") for _ in range(20)))
            commands = await asyncio.gather(*(sandbox.commands.run(f"echo {number}") for number in range(20)))
        assert (await sandbox.run_code("print(counter)")).stdout == "20\n"
        assert [command.stdout for command in commands] == [f"{number}\n" for number in range(20)]


async def test_two_kills_at_once(server: RunningServer) -> None:
    sandbox = await AsyncSandbox.create("base", base_url=server.url, timeout_seconds=120)
    traces = server.traces(sandbox.sandbox_id)
    path = f"{server.url}/v1/sandboxes/{sandbox.sandbox_id}"
    async with httpx2.AsyncClient(trust_env=False, timeout=20, verify=False) as client:
        answers = await asyncio.gather(*(client.delete(path) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers).count(200) >= 1
    assert {answer.status_code for answer in answers} <= {200, 404}
    assert traces.present() == []
    await sandbox.aclose()
