"""`hopx_ai.AsyncSandbox`: the calls that it has."""

import asyncio
from typing import Any

import pytest
from tests.e2e.running_server import RunningServer
from tests.interop import hopx

AsyncSandbox, errors = hopx.client.AsyncSandbox, hopx.errors
There = dict[str, Any]

pytestmark = pytest.mark.anyio


async def test_the_server_is_healthy(server: RunningServer) -> None:
    assert (await AsyncSandbox.health_check(base_url=server.url))["status"] == "healthy"


async def test_templates(there: There) -> None:
    assert {"base", "code-interpreter"} <= {template.name for template in await AsyncSandbox.list_templates(**there)}
    template = await AsyncSandbox.get_template("base", **there)
    assert (await AsyncSandbox.get_template(template.id, **there)).name == "base"


async def test_an_unknown_template(there: There) -> None:
    with pytest.raises(errors.NotFoundError):
        await AsyncSandbox.create("code-interpretr", **there)


async def test_lifecycle(there: There) -> None:
    async with AsyncSandbox.create("base", timeout_seconds=90, env_vars={"A": "1"}, **there) as sandbox:
        info = await sandbox.get_info()
        assert (info.status, info.template_name) == ("running", "base")
        assert await sandbox.env.get("A") == "1"
        assert await sandbox.is_healthy()
        await sandbox.ensure_healthy()
        await sandbox.set_timeout(500)
        assert 490 < await sandbox.get_time_to_expiry() <= 500
        await sandbox.pause()
        assert (await sandbox.get_info()).status == "paused"
        await sandbox.resume()
        await sandbox.refresh_token()
        assert await sandbox.get_token()
        again = await AsyncSandbox.connect(sandbox.sandbox_id, **there)
        assert (await again.run_code("print(1)")).stdout == "1\n"
        assert sandbox.sandbox_id in {one.sandbox_id for one in await AsyncSandbox.list(**there)}
        assert sandbox.sandbox_id in [one.sandbox_id async for one in AsyncSandbox.iter(**there)]
    with pytest.raises(errors.NotFoundError):
        await sandbox.get_info()


async def test_a_paused_sandbox_answers_calls_at_once_with_what_to_do(there: There) -> None:
    async with AsyncSandbox.create("base", timeout_seconds=60, **there) as sandbox:
        await sandbox.run_code("print(1)")  # at its first call the client waits for an agent that answers
        await sandbox.pause()
        async with asyncio.timeout(5):
            with pytest.raises(errors.HopxError, match="409 Conflict"):  # all that this client tells of it
                await sandbox.run_code("print(1)")
        await sandbox.resume()
        assert (await sandbox.run_code("print(2)")).stdout == "2\n"


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", "print(6 * 7)"), ("javascript", "console.log(6 * 7)"), ("bash", "echo $((6 * 7))")],
)
async def test_languages(async_sandbox: Any, language: str, code: str) -> None:
    result = await async_sandbox.run_code(code, language=language)
    assert (result.stdout, result.exit_code, result.success) == ("42\n", 0, True)


async def test_failure_timeout_and_rich_output(async_sandbox: Any) -> None:
    failed = await async_sandbox.run_code("x = 1\n1 / 0")
    assert (failed.exit_code, failed.success) == (1, False)
    assert "ZeroDivisionError" in failed.stderr
    stopped = await async_sandbox.run_code("import time; time.sleep(600)", timeout_seconds=1)
    assert stopped.exit_code == 124
    shown = await async_sandbox.run_code("import pandas as pd\npd.DataFrame({'a': [x]})")
    assert {"text/html", "application/vnd.dataframe+json"} <= {
        kind for output in shown.rich_outputs for kind in output.data
    }


async def test_commands(async_sandbox: Any) -> None:
    result = await async_sandbox.commands.run("echo $A; pwd; exit 3", env={"A": "1"}, working_dir="/tmp")
    assert (result.stdout, result.exit_code) == ("1\n/tmp\n", 3)


async def test_files(async_sandbox: Any) -> None:
    files = async_sandbox.files
    # The asynchronous client sends paths as they are: `&` and `+` reach the server, `#` never does.
    for path in ("/workspace/plain", "/workspace/a b&c+d", "/workspace/über"):
        await files.write(path, path)
        assert await files.read(path) == path
        assert await files.exists(path)
    await files.write_bytes("/workspace/binary", bytes(range(256)))
    assert await files.read_bytes("/workspace/binary") == bytes(range(256))
    await files.mkdir("/workspace/made/deep")
    names = {entry.name: entry.is_directory for entry in await files.list("/workspace")}
    assert names["made"] is True
    assert names["a b&c+d"] is False
    await files.remove("/workspace/made")
    assert not await files.exists("/workspace/made")
    with pytest.raises(errors.FileNotFoundError):
        await files.read("/workspace/made")


async def test_variables(async_sandbox: Any) -> None:
    env = async_sandbox.env
    await env.set_all({"A": "1", "B": "2"})
    await env.update({"C": "3"})
    await env.set("A", "one")
    await env.delete("B")
    assert await env.get_all() == {"A": "one", "C": "3"}
    assert await env.get("B", "default") == "default"


async def test_facts(async_sandbox: Any) -> None:
    assert (await async_sandbox.get_agent_info())["vm_id"] == async_sandbox.sandbox_id
    assert (await async_sandbox.get_agent_metrics())["uptime_seconds"] > 0
    assert (await async_sandbox.get_metrics_snapshot())["uptime_seconds"] > 0
    assert (await async_sandbox.list_system_processes())[0]["pid"] == 1
    assert isinstance(await async_sandbox.list_processes(), list)
    assert await async_sandbox.get_jupyter_sessions()
    assert (await async_sandbox.cache.stats())["hits"] == 0
    await async_sandbox.cache.clear()


async def test_many_at_once(there: There) -> None:
    async def one(number: int) -> str:
        async with AsyncSandbox.create("code-interpreter", timeout_seconds=60, **there) as sandbox:
            return (await sandbox.run_code(f"print({number})")).stdout

    assert await asyncio.gather(*(one(number) for number in range(6))) == [f"{number}\n" for number in range(6)]


async def test_a_wrong_key(keyed_server: RunningServer) -> None:
    with pytest.raises(errors.AuthenticationError):
        await AsyncSandbox.list(base_url=keyed_server.url, api_key="nonsense")
