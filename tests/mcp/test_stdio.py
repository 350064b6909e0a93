"""The stdio transport, over real pipes and files, with a library server that has one tool."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from cove.mcp import stdio
from cove.mcp.standard_streams import Wire
from cove.mcp.stdio import serve_stdio

pytestmark = pytest.mark.anyio

SECONDS = 10.0
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
Context = ServerRequestContext[Any, Any]


def call(number: int, text: str) -> dict[str, Any]:
    params = {"name": "echo", "arguments": {"text": text}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def lines(*messages: dict[str, Any] | bytes) -> bytes:
    return b"".join(m + b"\n" if isinstance(m, bytes) else json.dumps(m).encode() + b"\n" for m in messages)


def build(started: asyncio.Event | None = None, ended: asyncio.Event | None = None) -> Server[Any]:
    async def list_tools(context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="echo", input_schema={"type": "object"})])

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        if started and ended:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        text = str((params.arguments or {})["text"])
        return CallToolResult(content=[TextContent(text=text)])

    return Server("test", version="1", on_list_tools=list_tools, on_call_tool=call_tool)


class Client:
    """The other end of the pipes."""

    def __init__(self, into: int, out: int) -> None:
        self.into = into
        self.out = os.fdopen(out, "rb", buffering=0)
        self._held = b""

    async def send(self, *messages: dict[str, Any] | bytes) -> None:
        await asyncio.to_thread(self._send, lines(*messages))

    def _send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.into, data) :]

    async def receive(self) -> dict[str, Any]:
        return json.loads(await asyncio.to_thread(self._line))

    def _line(self) -> bytes:
        while b"\n" not in self._held:
            piece = self.out.read(65536)
            assert piece, f"the end after {self._held[-200:]!r}"
            self._held += piece
        line, _, self._held = self._held.partition(b"\n")
        return line

    def leave(self) -> None:
        if self.into >= 0:
            os.close(self.into)
            self.into = -1


@asynccontextmanager
async def serving(
    server: Server[Any], *, held: bytes = b"", answered: bytes | None = None
) -> AsyncGenerator[tuple[Client, asyncio.Task[None]]]:
    source, into = os.pipe()
    out, sink = os.pipe()
    wire = Wire(source, sink)
    wire.held, wire.answered = held, answered
    client = Client(into, out)
    task = asyncio.create_task(serve_stdio(server, wire))
    try:
        async with asyncio.timeout(SECONDS):
            yield client, task
            client.leave()
            await task
    finally:
        client.leave()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        client.out.close()


async def test_serves_until_the_end_of_input() -> None:
    async with serving(build()) as (client, task):
        await client.send(INITIALIZE, INITIALIZED, call(2, "hello"))
        assert (await client.receive())["result"]["protocolVersion"] == "2025-11-25"
        assert (await client.receive())["result"]["content"] == [{"type": "text", "text": "hello"}]
        client.leave()
        await task


async def test_what_was_greeted_is_not_answered_again() -> None:
    first = json.dumps(INITIALIZE).encode()
    async with serving(build(), held=first + b"\n" + lines(INITIALIZED)[:-9], answered=first) as (client, _):
        # The greeting's message and a part of the next were read already.
        client._send(lines(INITIALIZED)[-9:])  # pyright: ignore[reportPrivateUsage]
        await client.send(call(1, "the id of the first is free again"))
        answer = await client.receive()
        assert answer["id"] == 1
        assert answer["result"]["content"][0]["text"] == "the id of the first is free again"


async def test_what_is_no_message_is_refused_and_the_next_is_served() -> None:
    async with serving(build()) as (client, _):
        await client.send(
            INITIALIZE, b"no json", b"", b"  ", b'{"jsonrpc": "2.0"}', b"[1]", b"\xff", INITIALIZED, call(7, "x")
        )
        answers = [await client.receive() for _ in range(6)]
        assert [a["error"]["code"] for a in answers if a["id"] is None] == [-32700, -32600, -32600, -32700]
        assert [a["id"] for a in answers if a["id"] is not None] == [1, 7]


async def test_a_message_that_is_too_long_is_dropped_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "MAX_MESSAGE_BYTES", 100_000)
    async with serving(build()) as (client, _):
        await client.send(INITIALIZE, INITIALIZED, call(2, "x" * 1_000_000), call(3, "y"))
        answers = {answer["id"]: answer for answer in [await client.receive() for _ in range(3)]}
        assert answers.keys() == {1, None, 3}
        assert answers[None]["error"]["code"] == -32600


async def test_large_messages_pass_in_both_directions() -> None:
    text = "\u00e9" * 3_000_000
    async with serving(build()) as (client, _):
        await client.send(INITIALIZE, INITIALIZED, call(2, text))
        await client.receive()
        assert (await client.receive())["result"]["content"][0]["text"] == text


async def test_the_end_of_input_cancels_what_runs() -> None:
    started, ended = asyncio.Event(), asyncio.Event()
    async with serving(build(started, ended)) as (client, task):
        await client.send(INITIALIZE, INITIALIZED, call(2, ""))
        await started.wait()
        client.leave()
        await task
        assert ended.is_set()


async def test_what_was_asked_before_the_end_of_input_is_answered() -> None:
    async with serving(build()) as (client, task):
        await client.send(INITIALIZE, INITIALIZED, *(call(number, "x") for number in range(2, 40)))
        client.leave()
        assert sorted([(await client.receive())["id"] for _ in range(1, 40)]) == list(range(1, 40))
        await task


async def test_a_client_that_reads_no_more_ends_it() -> None:
    async with serving(build()) as (client, task):
        client.out.close()
        await client.send(INITIALIZE)
        client.leave()
        await task


def test_a_client_that_has_gone_is_noticed_before_anything_is_loaded() -> None:
    for source, into in (os.pipe(), _sockets()):
        wire = Wire(source, source)
        assert not wire.abandoned
        os.write(into, b"x")
        os.close(into)
        assert not wire.abandoned, "something is left to be read"
        wire.held += os.read(source, 10)
        assert not wire.abandoned, "something is left to be served"
        wire.held = b""
        assert wire.abandoned
        os.close(source)


def _sockets() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


async def test_files_instead_of_pipes(tmp_path: Path) -> None:
    given, taken = tmp_path / "in", tmp_path / "out"
    given.write_bytes(lines(INITIALIZE, INITIALIZED, {"jsonrpc": "2.0", "id": 2, "method": "ping"}))
    wire = Wire(os.open(given, os.O_RDONLY), os.open(taken, os.O_WRONLY | os.O_CREAT))
    async with asyncio.timeout(SECONDS):
        await serve_stdio(build(), wire)
    assert json.loads(taken.read_text().splitlines()[0])["id"] == 1
