"""The official Python client, over both transports and both eras: one battery for the four."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)
from tests.e2e.running_server import COVE, RunningServer, clean_environment

from cove.mcp.addresses import FILE_TEMPLATE

pytestmark = pytest.mark.anyio

TRANSPORTS = ("stdio", "http")
REVISIONS = {"legacy": "2025-11-25", "auto": "2026-07-28"}
"""How the client is told which era to speak, and the revision that comes of it."""
ENDED_SECONDS = 5.0
CALL_SECONDS = 30.0


@asynccontextmanager
async def connected(server: RunningServer, transport: str, mode: str) -> AsyncGenerator[Client]:
    """A client; over stdio it starts `cove mcp`, which finds the server by the data directory."""
    there: str | StdioServerParameters = f"{server.url}/mcp"
    if transport == "stdio":
        arguments = [*COVE[1:], "mcp", "--data-dir", str(server.data_dir)]
        there = StdioServerParameters(command=COVE[0], args=arguments, env=clean_environment())
    async with Client(there, mode=mode) as client:
        yield client


def structured(result: CallToolResult) -> dict[str, Any]:
    """What a call answered; the text says the same."""
    assert not result.is_error, result.content
    assert result.structured_content is not None
    text = result.content[0]
    assert isinstance(text, TextContent)
    assert json.loads(text.text) == result.structured_content
    return result.structured_content


@pytest.mark.parametrize("mode", REVISIONS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_battery(server: RunningServer, transport: str, mode: str) -> None:
    with anyio.fail_after(3 * CALL_SECONDS):
        async with connected(server, transport, mode) as client:
            assert client.protocol_version == REVISIONS[mode]
            await introduces_itself(client)
            await lists_its_tools(client)
            await runs_code(client)
            await refuses_what_is_wrong(client)
            created = structured(await client.call_tool("create_sandbox", {"timeout_seconds": 120}))
            await keeps_files_and_state(client, created["id"])
            await offers_prompts(client)
            await completes(client, created["id"])
            await ends_what_nobody_waits_for(client, created["id"])
            structured(await client.call_tool("delete_sandbox", {"id": created["id"]}))


async def introduces_itself(client: Client) -> None:
    assert client.server_info
    assert client.server_info.name == "cove"
    assert client.instructions
    assert "execute_code_isolated" in client.instructions


async def lists_its_tools(client: Client) -> None:
    tools = (await client.list_tools()).tools
    assert tools[0].name == "execute_code_isolated"
    assert len(tools) > 40
    for tool in tools:
        assert tool.annotations
        told = tool.annotations.model_dump(exclude={"title"})
        assert None not in told.values(), tool.name


async def runs_code(client: Client) -> None:
    answer = structured(await client.call_tool("execute_code_isolated", {"code": "print(6 * 7)"}))
    assert (answer["stdout"], answer["exit_code"]) == ("42\n", 0)
    failed = structured(await client.call_tool("execute_code_isolated", {"code": "1 / 0"}))
    assert failed["exit_code"] == 1
    assert "ZeroDivisionError" in failed["stderr"]


async def refuses_what_is_wrong(client: Client) -> None:
    with pytest.raises(MCPError, match="execute_code_isolated") as unknown:
        await client.call_tool("execute_code_isolate", {})
    assert unknown.value.code == INVALID_PARAMS
    wrong = await client.call_tool("execute_code_isolated", {"code": "1", "timeout": 301})
    assert wrong.is_error
    missing = await client.call_tool("run_command", {"sandbox_id": "1700000000aaaaaaaa", "command": "true"})
    assert missing.is_error
    assert "SANDBOX_NOT_FOUND" in str(missing.content)


async def keeps_files_and_state(client: Client, sandbox_id: str) -> None:
    code = "x = 20; open('/workspace/a.txt', 'w').write('written')"
    await client.call_tool("execute_code_persistent", {"sandbox_id": sandbox_id, "code": code})
    again = await client.call_tool("execute_code_persistent", {"sandbox_id": sandbox_id, "code": "print(x + 1)"})
    assert structured(again)["stdout"] == "21\n"
    (content,) = (await client.read_resource(f"cove://{sandbox_id}/workspace/a.txt")).contents
    assert isinstance(content, TextResourceContents)
    assert content.text == "written"
    listed = [resource.uri for resource in (await client.list_resources(cache_mode="refresh")).resources]
    assert f"cove://{sandbox_id}/workspace" in listed
    with pytest.raises(MCPError) as missing:
        await client.read_resource(f"cove://{sandbox_id}/workspace/none")
    assert missing.value.code == (INVALID_PARAMS if client.protocol_version == "2026-07-28" else -32002)


async def offers_prompts(client: Client) -> None:
    assert [prompt.name for prompt in (await client.list_prompts()).prompts][:2] == [
        "quick_code_execution",
        "data_analysis",
    ]
    (message,) = (await client.get_prompt("data_analysis", {"data": "1,2,3"})).messages
    assert isinstance(message.content, TextContent)
    assert "1,2,3" in message.content.text


async def completes(client: Client, sandbox_id: str) -> None:
    files = ResourceTemplateReference(uri=FILE_TEMPLATE)
    found = await client.complete(files, {"name": "sandbox", "value": sandbox_id[:12]})
    assert sandbox_id in found.completion.values
    names = await client.complete(
        PromptReference(name="create_python_sandbox"), {"name": "namespace", "value": "default"}
    )
    assert names.completion.values == ["default"]


async def ends_what_nobody_waits_for(client: Client, sandbox_id: str) -> None:
    """Progress comes while a program runs; when the call is cancelled the program ends."""
    heard: list[tuple[float, str | None]] = []
    running = anyio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))
        running.set()

    arguments = {"sandbox_id": sandbox_id, "command": "echo ticking; exec sleep 4321"}

    async def call() -> None:
        await client.call_tool("run_command", arguments, progress_callback=note)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        with anyio.fail_after(CALL_SECONDS):
            await running.wait()
        assert await _sleeps(client, sandbox_id)
        group.cancel_scope.cancel()
    assert "ticking" in str(heard[0][1])
    await _eventually(lambda: _is_over(client, sandbox_id))


async def _sleeps(client: Client, sandbox_id: str) -> bool:
    found = await client.call_tool("run_command", {"sandbox_id": sandbox_id, "command": "pgrep -f 'sleep [4]321'"})
    return structured(found)["exit_code"] == 0


async def _is_over(client: Client, sandbox_id: str) -> bool:
    return not await _sleeps(client, sandbox_id)


async def _eventually(check: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(ENDED_SECONDS):
        while not await check():
            await anyio.lowlevel.checkpoint()
