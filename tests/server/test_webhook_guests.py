"""Asking agents about background programs: they may answer anything, or nothing."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cove.models.errors import CoveError
from cove.models.processes import ProcessStatus
from cove.server.guest_programs import AgentPrograms

pytestmark = pytest.mark.anyio

ID = "exec_0123456789abcdef"
PROCESS: dict[str, Any] = {
    "process_id": "proc_1",
    "execution_id": ID,
    "status": "completed",
    "language": "python",
    "start_time": "2027-01-15T08:00:00Z",
    "started_at": "2027-01-15T08:00:00Z",
    "exit_code": 0,
    "result": {"stdout": "x" * 200_000},
}


def plain(status: int, body: bytes, *, length: int | None = None) -> bytes:
    """An answer as agents give it."""
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, size) + body


@asynccontextmanager
async def agent(path: Path, answer: bytes | None) -> AsyncGenerator[list[bytes]]:
    """Answers every request with these bytes (None: never); yields the heads of the requests."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            heads.append(head)
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield heads
    finally:
        server.close()


async def test_a_program_that_has_ended(socket_dir: Path) -> None:
    async with agent(socket_dir / "a", plain(200, json.dumps(PROCESS).encode())) as heads:
        process = await AgentPrograms().look(socket_dir / "a", ID, owner="o", wait_seconds=30)
    assert process is not None
    assert process.result is not None
    assert (process.status, len(process.result.stdout)) == (ProcessStatus.COMPLETED, 200_000)
    assert heads[0].startswith(b"GET /execute/processes/exec_0123456789abcdef?wait=30 HTTP/1.1\r\n")


async def test_a_program_that_is_unknown(socket_dir: Path) -> None:
    async with agent(socket_dir / "a", plain(404, b'{"code":"PROCESS_NOT_FOUND","message":"?"}')):
        assert await AgentPrograms().look(socket_dir / "a", ID, owner="o", wait_seconds=0) is None


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (plain(200, b"not json"), "EXECUTION_FAILED"),
        (plain(200, b"[" * 60_000), "EXECUTION_FAILED"),
        (plain(200, b"{}"), "EXECUTION_FAILED"),
        (plain(200, json.dumps({**PROCESS, "exit_code": "nine"}).encode()), "EXECUTION_FAILED"),
        (plain(200, b"", length=10**9), "EXECUTION_FAILED"),
        (plain(200, b"x" * 10, length=10**6), "AGENT_UNREACHABLE"),
        (plain(500, b"{}"), "AGENT_UNREACHABLE"),
        (plain(302, b"{}"), "AGENT_UNREACHABLE"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "EXECUTION_FAILED"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "AGENT_UNREACHABLE"),
        (b"garbage\r\n\r\n", "AGENT_UNREACHABLE"),
        (b"", "AGENT_UNREACHABLE"),
        (None, "AGENT_UNREACHABLE"),
    ],
)
async def test_anything_else_is_an_error_within_bounds(socket_dir: Path, answer: bytes | None, code: str) -> None:
    programs = AgentPrograms(call_seconds=0.3)
    async with agent(socket_dir / "a", answer), asyncio.timeout(5):
        with pytest.raises(CoveError) as caught:
            await programs.look(socket_dir / "a", ID, owner="o", wait_seconds=0)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (plain(403, b'{"code":"RESOURCE_LIMIT_EXCEEDED","message":"full"}'), "RESOURCE_LIMIT_EXCEEDED", "full"),
        (plain(400, b'{"code":"HOMEMADE","message":"a\\u001b[31m\\nb"}'), "EXECUTION_FAILED", "a [31m b"),
        (plain(400, b'{"code":"INVALID_REQUEST","message":"' + b"x" * 9000 + b'"}'), "INVALID_REQUEST", "x" * 500),
        (plain(422, b"nothing"), "EXECUTION_FAILED", "The sandbox answered 422."),
        (plain(400, b"[1]"), "EXECUTION_FAILED", "The sandbox answered 400."),
        (plain(503, b"{}"), "AGENT_UNREACHABLE", "it answered 503"),
        (None, "AGENT_UNREACHABLE", "TimeoutError"),
    ],
)
async def test_refused_starts(socket_dir: Path, answer: bytes | None, code: str, said: str) -> None:
    async with agent(socket_dir / "a", answer), asyncio.timeout(5):
        with pytest.raises(CoveError) as caught:
            await AgentPrograms(call_seconds=0.3).start(socket_dir / "a", b"{}", owner="o")
    assert caught.value.code == code
    assert said in caught.value.message
    assert len(caught.value.message) <= 600


async def test_large_answers_of_one_tenant_do_not_keep_others_waiting(socket_dir: Path) -> None:
    programs = AgentPrograms(call_seconds=3.0)
    async with (
        agent(socket_dir / "slow", plain(200, b"x" * 10, length=10**6)),
        agent(socket_dir / "quick", plain(200, json.dumps(PROCESS).encode())),
        asyncio.TaskGroup() as group,
    ):
        dripping = [
            group.create_task(programs.look(socket_dir / "slow", ID, owner="mallory", wait_seconds=0)) for _ in range(8)
        ]
        async with asyncio.timeout(2):
            assert await programs.look(socket_dir / "quick", ID, owner="alice", wait_seconds=0)
        for task in dripping:
            task.cancel()
