"""Programs that take long: the client hears of them, and ends them by going away."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from tests.e2e.running_server import RunningServer
from tests.mcp.battery import answer_of, fields_of
from tests.mcp.conftest import Connect

from cove.mcp.progress import LastLine

pytestmark = pytest.mark.anyio

SECONDS = 15.0
END_SECONDS = 2.0
MARKER_TICKS = "while :; do date +%s%N > /tmp/marker; sleep 0.05; done"
"""Writes a file again and again for as long as it lives."""

Report = tuple[float, float | None, str | None]


class Heard:
    """Progress that a client was told of."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.times: list[float] = []

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.reports.append((progress, total, message))
        self.times.append(time.monotonic())


STEPS = {
    "python": "import time\nfor step in range(24):\n    print('step', step, flush=True)\n    time.sleep(0.1)",
    "bash": "for step in $(seq 0 23); do echo step $step; sleep 0.1; done",
}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("execute_code_isolated", {"code": STEPS["python"]}),
        ("execute_code_rich", {"sandbox_id": "ID", "code": STEPS["python"]}),
        ("run_command", {"sandbox_id": "ID", "command": STEPS["bash"]}),
    ],
)
async def test_progress_tells_the_seconds_and_the_last_line(
    connect: Connect, sandbox_id: str, tool: str, arguments: dict[str, Any]
) -> None:
    given = {name: sandbox_id if value == "ID" else value for name, value in arguments.items()}
    heard = Heard()
    async with connect(mode="legacy") as client:
        ran = fields_of(await client.call_tool(tool, {**given, "timeout": 20}, progress_callback=heard))
    assert ran["stdout"] == "".join(f"step {step}\n" for step in range(24))
    assert 2 <= len(heard.reports) <= 3
    seconds = [report[0] for report in heard.reports]
    assert seconds == sorted(set(seconds))
    assert all(total == 20 for _, total, _ in heard.reports)
    assert all(later - sooner > 0.8 for sooner, later in zip(heard.times, heard.times[1:], strict=False))
    for _, _, message in heard.reports:
        assert message is not None
        assert ": step " in message


async def test_who_does_not_listen_is_told_nothing_and_a_quick_program_tells_nothing(connect: Connect) -> None:
    heard = Heard()
    async with connect(mode="legacy") as client:
        await client.call_tool("execute_code_isolated", {"code": "print(1)"}, progress_callback=heard)
    assert heard.reports == []


@pytest.mark.parametrize(
    ("pieces", "line"),
    [
        (["a\nb\n"], "b"),
        (["a\nlong ", "line"], "long line"),
        (["a\n\n \n"], "a"),
        ([], ""),
        (["\x1b[31mred\x1b[0m\x07"], "[31mred[0m"),
        (["x" * 100_000], "x" * 200),
    ],
)
def test_the_last_line(pieces: list[str], line: str) -> None:
    last = LastLine()
    for piece in pieces:
        last.take(piece)
    assert last.text == line


async def waited(check: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """What `check` gives once it is true."""
    try:
        async with asyncio.timeout(seconds):
            while not (found := await check()):
                await asyncio.sleep(0.02)
            return found
    except TimeoutError:
        pytest.fail(f"not within {seconds:g} s: {what}")


async def marker(client: Client, sandbox_id: str) -> str:
    found = await client.call_tool("file_read", {"sandbox_id": sandbox_id, "path": "/tmp/marker"})
    return "" if found.is_error else str(fields_of(found)["content"])


@asynccontextmanager
async def called(client: Client, tool: str, arguments: dict[str, Any]) -> AsyncGenerator[anyio.CancelScope]:
    """A call under way; it is cancelled at the end of the block, if not before."""
    scopes: list[anyio.CancelScope] = []

    async def run() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await client.call_tool(tool, arguments)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await waited(lambda: _true(bool(scopes)), "the call begins")
        try:
            yield scopes[0]
        finally:
            scopes[0].cancel()


async def _true(value: bool) -> bool:
    return value


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("run_command", {"command": MARKER_TICKS}),
        ("execute_code_persistent", {"code": MARKER_TICKS, "language": "bash"}),
        ("execute_code_rich", {"code": f"import subprocess\nsubprocess.run(['bash', '-c', {MARKER_TICKS!r}])"}),
    ],
)
async def test_cancelling_ends_the_program(
    connect: Connect, sandbox_id: str, mode: str, tool: str, arguments: dict[str, Any]
) -> None:
    async with connect(mode=mode) as client, connect() as other:
        await answer_of(other, "run_command", sandbox_id=sandbox_id, command="rm -f /tmp/marker")
        async with called(client, tool, {"sandbox_id": sandbox_id, "timeout": 60, **arguments}) as call:
            await waited(lambda: marker(other, sandbox_id), "the program runs")
            assert not await _ended(other, sandbox_id)
            call.cancel()
        cancelled = time.monotonic()
        await waited(lambda: _ended(other, sandbox_id), "the program ends", END_SECONDS + 3)
        assert time.monotonic() - cancelled < END_SECONDS + 1
        after = await answer_of(other, "run_command", sandbox_id=sandbox_id, command="echo well")
    assert after["stdout"] == "well\n"


async def _ended(client: Client, sandbox_id: str) -> bool:
    found = await answer_of(client, "list_processes", sandbox_id=sandbox_id)
    assert found["truncated"] is False
    return not any("/tmp/marker" in row["command"] for row in found["processes"])


async def live(client: Client) -> set[str]:
    found = await answer_of(client, "list_sandboxes", limit=1000)
    return {row["id"] for row in found["data"]}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_cancelling_destroys_the_sandbox_of_isolated_code(connect: Connect, mode: str) -> None:
    async with connect(mode=mode) as client, connect() as other:
        before = await live(other)
        async with called(
            client, "execute_code_isolated", {"code": "import time; time.sleep(60)", "timeout": 60}
        ) as call:
            made = await waited(lambda: _more(other, before), "the sandbox is there")
            call.cancel()
        await waited(lambda: _none_of(other, made), "the sandbox is gone", 3 * END_SECONDS)


async def _more(client: Client, before: set[str]) -> set[str]:
    return await live(client) - before


async def _none_of(client: Client, made: set[str]) -> bool:
    return not (await live(client) & made)


async def test_cancelling_while_the_sandbox_is_made_leaves_none(connect: Connect, mcp_server: RunningServer) -> None:
    async with connect() as client, connect() as other:
        before = await live(other)
        for moment in range(8):
            async with called(client, "execute_code_isolated", {"code": "print(1)", "template_name": "base"}) as call:
                for _ in range(moment):
                    await anyio.lowlevel.checkpoint()
                call.cancel()
        await waited(lambda: _same(other, before), "no sandbox is left", 10.0)
    records = [path.stem for path in Path(mcp_server.data_dir, "run", "sandboxes").glob("*.json")]
    assert len(records) <= len(before) + 8


async def _same(client: Client, before: set[str]) -> bool:
    return await live(client) <= before


async def test_a_client_that_goes_away_ends_its_program(connect: Connect, sandbox_id: str) -> None:
    async with connect() as other:
        await answer_of(other, "run_command", sandbox_id=sandbox_id, command="rm -f /tmp/marker")
        async with connect(mode="legacy") as client, anyio.create_task_group() as group:

            async def run() -> None:
                arguments = {"sandbox_id": sandbox_id, "command": MARKER_TICKS, "timeout": 60}
                await client.call_tool("run_command", arguments)

            group.start_soon(run)
            await waited(lambda: marker(other, sandbox_id), "the program runs")
            group.cancel_scope.cancel()
        await waited(lambda: _ended(other, sandbox_id), "the program ends", END_SECONDS + 3)
