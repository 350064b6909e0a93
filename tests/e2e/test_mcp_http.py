"""`/mcp` of a real server with real sandboxes: calls end with their clients, many at once, what is kept out of logs."""

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tests.e2e.running_server import RunningServer, data_directory, new_key, running_server, until
from tests.server.mcp.mcp_wire import BOTH, OLDER, message_of, open_session, request, stateless, tool_call

pytestmark = pytest.mark.anyio

END_SECONDS = 2.0
START_SECONDS = 30.0
CLIENTS, CALLS = 20, 5


@pytest.fixture(scope="module")
def mcp_http(built_data_dir: Path) -> Iterator[RunningServer]:
    """A server that wants keys."""
    with data_directory(built_data_dir) as data_dir, running_server(data_dir) as server:
        yield server


@pytest.fixture(scope="module")
def key(mcp_http: RunningServer) -> str:
    return new_key(mcp_http.data_dir, "mcp")


@asynccontextmanager
async def plain(server: RunningServer, key: str) -> AsyncGenerator[httpx2.AsyncClient]:
    """Plain HTTP, a connection for each request."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(
        base_url=server.url, headers=headers, limits=limits, timeout=60, trust_env=False, verify=False
    ) as client:
        yield client


@asynccontextmanager
async def official(server: RunningServer, key: str, *, mode: str = "auto") -> AsyncGenerator[Client]:
    """The official client."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False, verify=False) as http:
        transport = streamable_http_client(f"{server.url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


class Marker:
    """A program that can be found from outside among all processes of the machine."""

    def __init__(self) -> None:
        self.seconds = f"1000.{uuid.uuid4().int % 10**12:012}"
        self.command = f"sleep {self.seconds}"
        self.code = f"import subprocess; subprocess.run(['sleep', '{self.seconds}'])"

    @property
    def runs(self) -> bool:
        """Whether it does."""
        wanted = f"sleep\0{self.seconds}\0".encode()
        return any(_command_line(entry) == wanted for entry in os.listdir("/proc") if entry.isdigit())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_runs_code(mcp_http: RunningServer, key: str, mode: str) -> None:
    async with official(mcp_http, key, mode=mode) as client:
        result = await client.call_tool("execute_code_isolated", {"code": "print(6 * 7)"})
        assert result.structured_content
        assert result.structured_content["stdout"] == "42\n"
        made = (await client.call_tool("create_sandbox", {})).structured_content
        assert made
        for code, expected in (("x = 20", ""), ("print(x + 1)", "21\n")):
            arguments = {"sandbox_id": made["id"], "code": code}
            ran = (await client.call_tool("execute_code_persistent", arguments)).structured_content
            assert ran
            assert ran["stdout"] == expected
        assert not (await client.call_tool("delete_sandbox", {"id": made["id"]})).is_error


@pytest.mark.parametrize("accept", [BOTH, "application/json"])
async def test_a_client_that_goes_away_ends_its_program(mcp_http: RunningServer, key: str, accept: str) -> None:
    marker = Marker()
    async with plain(mcp_http, key) as client:
        arguments = {"code": marker.code, "timeout": 100}
        await _drop(client, tool_call("execute_code_isolated", arguments, accept=accept), marker)
        await _no_sandboxes(client)


@pytest.mark.parametrize("accept", [BOTH, "application/json"])
async def test_in_a_session_too(mcp_http: RunningServer, key: str, accept: str) -> None:
    marker = Marker()
    async with plain(mcp_http, key) as client:
        session = await open_session(client, OLDER[1], accept=accept)
        called = request("tools/call", {"name": "execute_code_isolated", "arguments": {"code": marker.code}})
        await _drop(client, {"json": called, "headers": session}, marker)
        await _no_sandboxes(client)
        assert (await client.post("/mcp", json=request("tools/list"), headers=session)).status_code == 200


async def test_a_cancelled_call_ends_its_program_and_the_sandbox_stays(mcp_http: RunningServer, key: str) -> None:
    marker = Marker()
    async with plain(mcp_http, key) as client:
        sandbox_id = message_of(await client.post("/mcp", **tool_call("create_sandbox")))["result"][
            "structuredContent"
        ]["id"]
        session = await open_session(client, OLDER[0])
        arguments = {"sandbox_id": sandbox_id, "command": marker.command, "timeout": 100}
        called = request("tools/call", {"name": "run_command", "arguments": arguments}, number="call-7")
        calling = asyncio.create_task(client.post("/mcp", json=called, headers=session))
        await _started(marker, calling)
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "call-7"}}
        assert (await client.post("/mcp", json=note, headers=session)).status_code == 202
        await _ended(marker)
        assert message_of(await calling)["error"]["message"] == "Request cancelled"
        still = await client.post("/mcp", **tool_call("run_command", {"sandbox_id": sandbox_id, "command": "echo up"}))
        assert message_of(still)["result"]["structuredContent"]["stdout"] == "up\n"
        await client.delete(f"/v1/sandboxes/{sandbox_id}")


async def test_many_clients_at_once(mcp_http: RunningServer, key: str) -> None:
    async def one(number: int) -> list[str]:
        async with plain(mcp_http, key) as client:
            printed: list[str] = []
            for call in range(CALLS):
                answer = await client.post(
                    "/mcp", **tool_call("execute_code_isolated", {"code": f"print({number}, {call})", "timeout": 50})
                )
                assert answer.status_code == 200, answer.text
                result = message_of(answer)["result"]
                assert not result.get("isError"), result
                printed.append(result["structuredContent"]["stdout"])
            return printed

    async with asyncio.timeout(55):
        printed = await asyncio.gather(*(one(number) for number in range(CLIENTS)))
    assert printed == [[f"{number} {call}\n" for call in range(CALLS)] for number in range(CLIENTS)]


async def test_progress_comes_while_a_call_runs(mcp_http: RunningServer, key: str) -> None:
    call = tool_call("execute_code_isolated", {"code": "import time; print('one', flush=True); time.sleep(2.5)"})
    call["json"]["params"]["_meta"]["progressToken"] = "p"
    async with plain(mcp_http, key) as client, client.stream("POST", "/mcp", **call) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        text = "".join([piece async for piece in answer.aiter_text()])
    assert "notifications/progress" in text
    assert text.index("notifications/progress") < text.index('"stdout"')


async def test_names_that_the_server_does_not_serve_are_refused(mcp_http: RunningServer, key: str) -> None:
    async with plain(mcp_http, key) as client:
        answer = await client.post("/mcp", **stateless("tools/list", more={"Host": "evil.example"}))
        assert answer.status_code == 403


async def test_a_call_that_is_too_large_is_refused_by_the_gateway(mcp_http: RunningServer, key: str) -> None:
    async with plain(mcp_http, key) as client:
        large = await client.post("/mcp", **tool_call("execute_code_isolated", {"code": "x" * (10 * 2**20)}))
        assert large.status_code == 200
        assert message_of(large)["result"]["isError"]
        larger = await client.post("/mcp", **tool_call("execute_code_isolated", {"code": "x" * (17 * 2**20)}))
        assert larger.status_code == 413
        assert larger.headers["x-request-id"]


async def test_a_server_that_ends_does_not_wait_for_streams(built_data_dir: Path) -> None:
    with data_directory(built_data_dir) as data_dir, running_server(data_dir, "--dev") as server:
        async with plain(server, "none") as client:
            session = await open_session(client)
            async with client.stream("GET", "/mcp", headers=session) as stream:
                assert stream.status_code == 200
                async with asyncio.timeout(8):
                    await asyncio.to_thread(server.stop)
        assert "without completing" not in server.log.read_text()


async def test_neither_keys_nor_code_are_logged(mcp_http: RunningServer, key: str) -> None:
    secret = uuid.uuid4().hex
    async with plain(mcp_http, key) as client:
        for arguments in ({"code": f"# {secret}"}, {"code": f"# {secret}", "language": secret}, {"code": [secret]}):
            answer = await client.post("/mcp", **tool_call("execute_code_isolated", arguments))
            assert answer.status_code == 200
        await client.post("/mcp", content=f'{{"jsonrpc": "{secret}"', headers={"Content-Type": "application/json"})
        session = await open_session(client)
        await client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": secret}, headers=session)
        await client.post("/mcp", json=request("tools/call", {"name": [secret]}), headers=session)
    log = mcp_http.log.read_text()
    assert "path=/mcp" in log or '"path": "/mcp"' in log
    assert secret not in log
    assert key not in log
    assert "cove_delegated_" not in log


async def _drop(client: httpx2.AsyncClient, call: dict[str, Any], marker: Marker) -> None:
    calling = asyncio.create_task(client.post("/mcp", **call))
    await _started(marker, calling)
    calling.cancel()
    await _ended(marker)


async def _started(marker: Marker, calling: "asyncio.Task[httpx2.Response]") -> None:
    def started() -> bool:
        assert not calling.done(), calling.result().text
        return marker.runs

    await asyncio.to_thread(until, started, seconds=START_SECONDS, what="the program runs")


async def _ended(marker: Marker) -> None:
    await asyncio.to_thread(until, lambda: not marker.runs, seconds=END_SECONDS, what="the program has ended")


async def _no_sandboxes(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(END_SECONDS):
        while (await client.get("/v1/sandboxes")).json()["data"]:
            await asyncio.sleep(0.01)


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
