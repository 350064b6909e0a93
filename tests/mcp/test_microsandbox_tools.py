"""The five tools of microsandbox: every JSON example of its guide, and what else its users may send."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent
from tests.e2e.running_server import RunningServer
from tests.mcp.conftest import Connect

from cove.mcp.toolsets import Toolset
from cove.sdk import AsyncControlPlane

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(connect: Connect) -> AsyncIterator[Client]:
    async with connect(toolset=Toolset.MICROSANDBOX) as connected:
        yield connected


@pytest.fixture(autouse=True)
async def ended(mcp_server: RunningServer) -> AsyncIterator[None]:
    """What a test stopped is kept by the server, with its files, until its time is over."""
    yield
    async with AsyncControlPlane(base_url=mcp_server.url) as control:
        left = [info async for info in control.in_namespace("*").sandboxes() if info.name]
        for info in left:
            await control.in_namespace(str(info.namespace)).kill(info.id)


@pytest.fixture
def namespace() -> str:
    """One of the test's own."""
    return f"n{uuid.uuid4().hex[:12]}"


def _text(result: CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text


def _structured(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def _stdout(result: CallToolResult) -> list[str]:
    return [line["text"] for line in _structured(result)["output"] if line["stream"] == "stdout"]


def _stderr(result: CallToolResult) -> list[str]:
    return [line["text"] for line in _structured(result)["output"] if line["stream"] == "stderr"]


async def _start(client: Client, sandbox: str, namespace: str, **config: Any) -> CallToolResult:
    arguments: dict[str, Any] = {"sandbox": sandbox, "namespace": namespace}
    return await client.call_tool("sandbox_start", {**arguments, **({"config": config} if config else {})})


async def _stop(client: Client, sandbox: str, namespace: str) -> CallToolResult:
    return await client.call_tool("sandbox_stop", {"sandbox": sandbox, "namespace": namespace})


async def test_the_tools_have_the_documented_names_and_arguments(client: Client) -> None:
    listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert {name: set(tool.input_schema["properties"]) for name, tool in listed.items()} == {
        "sandbox_start": {"sandbox", "namespace", "config"},
        "sandbox_stop": {"sandbox", "namespace"},
        "sandbox_run_code": {"sandbox", "namespace", "code", "language"},
        "sandbox_run_command": {"sandbox", "namespace", "command", "args"},
        "sandbox_get_metrics": {"sandbox", "namespace"},
    }
    config = listed["sandbox_start"].input_schema["properties"]["config"]["properties"]
    assert list(config) == ["image", "memory", "cpus", "volumes", "ports", "envs"]
    assert listed["sandbox_run_code"].input_schema["required"] == ["sandbox", "code", "language"]


async def test_the_basic_examples(client: Client) -> None:
    where = {"sandbox": "my-python-env", "namespace": "default"}
    started = await client.call_tool("sandbox_start", where)
    assert json.loads(_text(started)) == "Sandbox my-python-env started successfully."
    assert _structured(started) == {"message": json.loads(_text(started))}
    code = "import math\nresult = math.sqrt(16)\nprint(f'Square root: {result}')"
    ran = await client.call_tool("sandbox_run_code", {**where, "code": code, "language": "python"})
    expected = {
        "status": "success",
        "language": "python",
        "output": [{"stream": "stdout", "text": "Square root: 4.0"}],
    }
    assert _structured(ran) == expected
    assert _text(ran) == json.dumps(expected, indent=2)
    await client.call_tool("sandbox_run_command", {**where, "command": "touch", "args": ["/workspace/seen"]})
    listed = await client.call_tool("sandbox_run_command", {**where, "command": "ls"})
    assert _structured(listed) == {
        "command": "ls",
        "args": [],
        "exit_code": 0,
        "success": True,
        "output": [{"stream": "stdout", "text": "seen"}],
    }
    long = await client.call_tool("sandbox_run_command", {**where, "command": "ls", "args": ["-la", "/workspace"]})
    assert any(line.endswith(" seen") for line in _stdout(long))
    [figures] = _structured(await client.call_tool("sandbox_get_metrics", where))["sandboxes"]
    assert (figures["name"], figures["namespace"], figures["running"]) == ("my-python-env", "default", True)
    assert figures["cpu_usage"] >= 0
    assert figures["memory_usage"] > 0
    assert figures["disk_usage"] > 0
    stopped = await client.call_tool("sandbox_stop", where)
    assert _text(stopped) == '"Sandbox my-python-env stopped successfully."'


async def test_the_examples_with_a_configuration(client: Client) -> None:
    config: dict[str, Any] = {
        "image": "microsandbox/python",
        "memory": 1024,
        "cpus": 2,
        "envs": ["PYTHONPATH=/workspace"],
    }
    where = {"sandbox": "data-analysis", "namespace": "research"}
    _structured(await client.call_tool("sandbox_start", {**where, "config": config}))
    code = "import os\nprint(os.environ['PYTHONPATH'])"
    assert _stdout(await client.call_tool("sandbox_run_code", {**where, "code": code, "language": "python"})) == [
        "/workspace"
    ]
    # There is no network here: what counts is that pip itself is found and tells what happens.
    args = ["install", "pandas", "numpy", "matplotlib"]
    installed = await client.call_tool("sandbox_run_command", {**where, "command": "pip", "args": args})
    assert _structured(installed)["exit_code"] == 0, _text(installed)
    await client.call_tool("sandbox_stop", where)


async def test_the_examples_for_node(client: Client) -> None:
    where = {"sandbox": "node-env", "namespace": "development"}
    config = {"image": "microsandbox/node", "memory": 512}
    _structured(await client.call_tool("sandbox_start", {**where, "config": config}))
    code = (
        "const fs = require('fs');\nconst data = { message: 'Hello from Node.js!' };\n"
        "console.log(JSON.stringify(data, null, 2));"
    )
    ran = await client.call_tool("sandbox_run_code", {**where, "code": code, "language": "nodejs"})
    assert json.loads("\n".join(_stdout(ran))) == {"message": "Hello from Node.js!"}
    assert _structured(ran)["status"] == "success"
    everywhere = _structured(await client.call_tool("sandbox_get_metrics", {"namespace": "development"}))
    assert [one["name"] for one in everywhere["sandboxes"]] == ["node-env"]
    found = _structured(await client.call_tool("sandbox_get_metrics", {"namespace": "*"}))["sandboxes"]
    assert ("development", "node-env") in {(one["namespace"], one["name"]) for one in found}
    await client.call_tool("sandbox_stop", where)
    [stopped] = _structured(await client.call_tool("sandbox_get_metrics", where))["sandboxes"]
    assert stopped == {
        "namespace": "development",
        "name": "node-env",
        "running": False,
        "cpu_usage": None,
        "memory_usage": None,
        "disk_usage": None,
    }


async def test_files_outlive_a_stop_and_variables_do_not(client: Client, namespace: str) -> None:
    await _start(client, "box", namespace)
    where = {"sandbox": "box", "namespace": namespace, "language": "python"}
    await client.call_tool("sandbox_run_code", {**where, "code": "x = 41\nopen('kept', 'w').write('here')"})
    again = await _start(client, "box", namespace)
    assert not again.is_error
    assert _stdout(await client.call_tool("sandbox_run_code", {**where, "code": "print(x + 1)"})) == ["42"]
    await _stop(client, "box", namespace)
    refused = await client.call_tool("sandbox_run_code", {**where, "code": "1"})
    assert refused.is_error
    assert "sandbox_start" in _text(refused)
    await _start(client, "box", namespace)
    code = "print(open('kept').read(), 'x' in globals())"
    assert _stdout(await client.call_tool("sandbox_run_code", {**where, "code": code})) == ["here False"]
    await _stop(client, "box", namespace)


async def test_a_configuration_is_read_as_it_is_meant(client: Client, namespace: str) -> None:
    config: dict[str, Any] = {
        "image": "python:3.12-slim",
        "memory": 300,
        "cpus": 0.4,
        "ports": ["8080:80", "3000"],
        "envs": ["A=b=c", "EMPTY="],
        "workdir": "/workspace/project",
        "volumes": None,
        "depends_on": None,
        "scripts": {"start": "true"},
        "unheard_of": [1],
    }
    message = _structured(await _start(client, "box", namespace, **config))["message"]
    assert "code-interpreter" in message
    assert "Port 80 is reached at http" in message
    assert "Port 3000 is reached at http" in message
    assert "scripts" in message
    assert "timed out waiting" not in message
    where = {"sandbox": "box", "namespace": namespace}
    code = "import os\nprint(os.environ['A'], repr(os.environ['EMPTY']), os.getcwd())"
    ran = await client.call_tool("sandbox_run_code", {**where, "code": code, "language": "Python"})
    assert _stdout(ran) == ["b=c '' /workspace/project"]
    assert _stdout(await client.call_tool("sandbox_run_command", {**where, "command": "pwd"})) == ["/workspace/project"]
    await _stop(client, "box", namespace)
    await _start(client, "box", namespace)
    ran = await client.call_tool("sandbox_run_code", {**where, "code": "print(os.getcwd())", "language": "python"})
    assert _structured(ran)["status"] == "error"
    ran = await client.call_tool("sandbox_run_code", {**where, "code": code, "language": "python"})
    assert _stdout(ran) == ["b=c '' /workspace/project"]
    await _stop(client, "box", namespace)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"image": "no/such:image"}, "microsandbox/python"),
        ({"memory": 1}, "memory"),
        ({"memory": "much"}, "memory"),
        ({"cpus": -1}, "cpus"),
        ({"cpus": 10_000}, "cpus"),
        ({"envs": ["SECRET"]}, "NAME=value"),
        ({"envs": ["=x"]}, "NAME=value"),
        ({"envs": "A=b"}, "envs"),
        ({"ports": ["http"]}, "ports"),
        ({"ports": ["80:99999"]}, "ports"),
        ({"workdir": "relative"}, "workdir"),
        ({"volumes": ["/etc:/etc"]}, "volumes"),
    ],
)
async def test_a_configuration_that_cannot_be(client: Client, config: dict[str, Any], named: str) -> None:
    refused = await _start(client, "box", "refused", **config)
    assert refused.is_error
    assert named in _text(refused)
    assert "SECRET" not in _text(refused)
    found = _structured(await client.call_tool("sandbox_get_metrics", {"namespace": "refused"}))
    assert found == {"sandboxes": []}


async def test_names_that_cannot_be_and_sandboxes_that_are_not_there(client: Client, namespace: str) -> None:
    for name in ("", "-a", "a b", "a/b", "ä", "x" * 64, "*"):
        refused = await _start(client, name, namespace)
        assert refused.is_error
        assert "1 to 63" in _text(refused)
        refused = await _start(client, "box", name)
        assert refused.is_error
        assert "1 to 63" in _text(refused)
    where = {"sandbox": "nobody", "namespace": namespace}
    for tool, more in (
        ("sandbox_stop", {}),
        ("sandbox_get_metrics", {}),
        ("sandbox_run_code", {"code": "1", "language": "python"}),
        ("sandbox_run_command", {"command": "ls"}),
    ):
        refused = await client.call_tool(tool, {**where, **more})
        assert refused.is_error, tool
        assert "sandbox_start" in _text(refused)


async def test_runs_that_fail_are_results(client: Client, namespace: str) -> None:
    await _start(client, "box", namespace)
    where = {"sandbox": "box", "namespace": namespace}
    python = {**where, "language": "python"}
    ran = await client.call_tool("sandbox_run_code", {**python, "code": "print('before')\n1/0"})
    assert _structured(ran)["status"] == "error"
    assert _stdout(ran) == ["before"]
    assert _stderr(ran)[-1] == "ZeroDivisionError: division by zero"
    slow = await client.call_tool("sandbox_run_code", {**python, "code": "print('on')\nwhile True: pass", "timeout": 1})
    assert _structured(slow)["status"] == "error"
    assert _stdout(slow) == ["on"]
    assert "timeout: ended after 1 s" in _stderr(slow)
    ended = await client.call_tool("sandbox_run_command", {**where, "command": "sh", "args": ["-c", "exit 3"]})
    assert (_structured(ended)["exit_code"], _structured(ended)["success"]) == (3, False)
    nowhere = await client.call_tool("sandbox_run_command", {**where, "command": "ls -la /"})
    assert _structured(nowhere)["exit_code"] == 127
    assert "bash" in _stderr(nowhere)[-1]
    quoted = ["%s|", "$HOME", "a b", "'", "-n", "*"]
    printed = await client.call_tool("sandbox_run_command", {**where, "command": "printf", "args": quoted})
    assert _stdout(printed) == ["$HOME|a b|'|-n|*|"]
    for timeout in (0, -1, 301):
        refused = await client.call_tool("sandbox_run_code", {**python, "code": "1", "timeout": timeout})
        assert refused.is_error
        assert "timeout" in _text(refused)
    refused = await client.call_tool("sandbox_run_code", {**where, "code": "1", "language": "cobol"})
    assert refused.is_error
    assert "python" in _text(refused)
    await _stop(client, "box", namespace)


async def test_long_output_is_shortened_with_the_way_to_the_rest(client: Client, namespace: str) -> None:
    await _start(client, "box", namespace)
    where = {"sandbox": "box", "namespace": namespace, "language": "python"}
    code = "for number in range(100_000): print(number)"
    ran = await client.call_tool("sandbox_run_code", {**where, "code": code})
    lines = _stdout(ran)
    assert lines[0] == "0"
    assert lines[-1] == "99999"
    assert any("file_read" in line for line in lines)
    assert sum(map(len, lines)) < 21_000
    short = await client.call_tool("sandbox_run_code", {**where, "code": code, "max_output_chars": 200})
    assert sum(map(len, _stdout(short))) < 600
    blank = await client.call_tool("sandbox_run_code", {**where, "code": "print('\\n' * 15_000)"})
    assert len(_stdout(blank)) < 4100
    binary = "import sys; sys.stdout.buffer.write(bytes(range(256)))"
    assert _structured(await client.call_tool("sandbox_run_code", {**where, "code": binary}))["status"] == "success"
    await _stop(client, "box", namespace)
