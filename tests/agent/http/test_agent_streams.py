"""`/execute/stream` and its relatives: output as it comes, from a real agent."""

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.agent.conftest import AgentProcess, WarmAgent, agent_process
from tests.agent.websocket_clients import RawClient, eventually, resident_bytes, websocket

pytestmark = pytest.mark.anyio


@pytest.fixture
def process(shared_process: AgentProcess) -> AgentProcess:
    return shared_process


MIB = 1024 * 1024


async def run(process: AgentProcess, path: str = "/execute/stream", **frame: Any) -> list[dict[str, Any]]:
    """All frames for one program; the agent closes the socket normally."""
    async with websocket(process.address, path) as client:
        await client.send(**frame)
        frames = await client.rest()
        assert (await client.closed())[0] == 1000
    return frames


def joined(frames: list[dict[str, Any]], stream: str) -> str:
    return "".join(frame["data"] for frame in frames if frame["type"] == stream)


def result_of(frames: list[dict[str, Any]]) -> dict[str, Any]:
    """The result; it and `complete` are the last frames."""
    assert [frame["type"] for frame in frames[-2:]] == ["result", "complete"]
    assert frames[-1] == {"type": "complete", "success": frames[-2]["success"]}
    return frames[-2]


async def test_output_comes_before_the_program_ends(process: AgentProcess, tmp_path: Path) -> None:
    """The program waits for a file that is made only when its first line has arrived."""
    gate = tmp_path / "gate"
    code = f"echo first; while [ ! -e {gate} ]; do sleep 0.01; done; echo second >&2; exit 3"
    async with websocket(process.address, "/execute/stream") as client:
        await client.send(type="execute", code=code, language="bash", timeout=20)
        first = await client.receive()
        assert (first["type"], first["data"]) == ("stdout", "first\n")
        assert first["timestamp"].endswith("Z")
        gate.touch()
        frames = await client.rest()
    assert joined(frames, "stderr") == "second\n"
    result = result_of(frames)
    assert (result["exit_code"], result["success"]) == (3, False)
    assert result["execution_time"] > 0


async def test_the_first_output_is_not_held_back(process: AgentProcess) -> None:
    process.execute("import time")
    delays: list[float] = []
    for _ in range(5):
        frames = await run(process, code="print(time.time(), flush=True); time.sleep(0.05)")
        delays.append(_seconds(frames[0]["timestamp"]) - float(joined(frames, "stdout")))
    assert min(delays) < 0.01


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


async def test_python_keeps_its_state_and_shows_the_last_value(process: AgentProcess) -> None:
    await run(process, code="value = 41", language="python")
    frames = await run(process, "/stream", code="print('now'); value + 1", language="python")
    assert joined(frames, "stdout") == "now\n42\n"
    assert result_of(frames)["result"] == "42"
    assert process.execute("print(value)")["stdout"] == "41\n"


async def test_the_ipython_stream_runs_python_whatever_is_asked_for(process: AgentProcess) -> None:
    frames = await run(process, "/stream/ipython", code="print(6 * 7)", language="bash")
    assert joined(frames, "stdout") == "42\n"


@pytest.mark.parametrize(
    ("frame", "stdout"),
    [
        ({"type": "execute", "command": "echo $A; pwd", "env": {"A": "b"}, "workdir": "/"}, "b\n/\n"),
        ({"type": "run", "command": "printf", "args": ["%s-%s", "a b", "c"]}, "a b-c"),
        ({"command": "echo x", "workdir": None}, "x\n"),
    ],
)
async def test_commands(process: AgentProcess, frame: dict[str, Any], stdout: str) -> None:
    frames = await run(process, "/commands/stream", **frame)
    assert joined(frames, "stdout") == stdout
    assert result_of(frames)["success"]


async def test_frames_that_are_no_objects_are_skipped(process: AgentProcess) -> None:
    async with websocket(process.address, "/execute/stream") as client:
        for junk in ("", "  \n", "junk", "[1]", "1", "null", "[" * 100_000, b"\xff\xfe"):
            await client.connection.send(junk)
        await client.connection.send(json.dumps({"code": "echo ok", "language": "bash"}).encode())
        assert joined(await client.rest(), "stdout") == "ok\n"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"code": "1", "language": "cobol"}, "UNSUPPORTED_LANGUAGE"),
        ({"language": "python"}, "MISSING_PARAMETER"),
        ({"code": "1", "timeout": -1}, "INVALID_REQUEST"),
        ({"code": "1", "timeout": 1e400}, "INVALID_REQUEST"),
        ({"code": "1", "type": "nope"}, "INVALID_REQUEST"),
        ({"code": "1", "workdir": "/no/such"}, "INVALID_PATH"),
        ({"code": "nul\0"}, "INVALID_REQUEST"),
        ({"code": "\ud800"}, "INVALID_REQUEST"),
        ({"code": "1", "env": {"A=": "1"}}, "INVALID_REQUEST"),
        ({"code": "#" * (4 * MIB + 1)}, "REQUEST_TOO_LARGE"),
    ],
)
async def test_what_cannot_run_is_an_error_and_complete(
    process: AgentProcess, frame: dict[str, Any], code: str
) -> None:
    error, complete = await run(process, **frame)
    assert (error["type"], error["code"]) == ("error", code)
    assert error["message"]
    assert error["error"].startswith(error["message"])
    assert complete == {"type": "complete", "success": False}


async def test_a_timeout_is_a_result(process: AgentProcess) -> None:
    frames = await run(process, code="printf before; sleep 60", language="bash", timeout=0.5)
    result = result_of(frames)
    assert (result["exit_code"], result["timed_out"]) == (124, True)
    assert joined(frames, "stdout") == "before"
    assert "timeout: ended after 0.5 s" in joined(frames, "stderr")


async def test_bytes_that_are_cut_anywhere_become_whole_characters(process: AgentProcess) -> None:
    code = r"""
for part in '\xe2\x98' '\x83\xf0\x9f' '\x98\x80' '\xff' '\xe2'; do printf "$part"; sleep 0.02; done
printf '\xe2\x98' >&2
"""
    frames = await run(process, code=code, language="bash")
    assert joined(frames, "stdout") == "\N{SNOWMAN}\N{GRINNING FACE}\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    assert joined(frames, "stderr") == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("order", ["cancel", "interrupt"])
async def test_the_client_can_end_its_program(process: AgentProcess, order: str) -> None:
    process.execute("kept = 1")
    async with websocket(process.address, "/execute/stream") as client:
        await client.send(code="import time; print('runs', flush=True)\nwhile True: time.sleep(0.01)", timeout=60)
        assert (await client.receive())["data"] == "runs\n"
        await client.send(type="unknown")
        await client.send(type=order)
        result = result_of(await client.rest())
    assert (result["exit_code"], result["success"]) == (130, False)
    assert process.execute("print(kept)")["stdout"] == "1\n"


@pytest.mark.parametrize("abrupt", [False, True])
async def test_a_program_ends_with_its_client(process: AgentProcess, tmp_path: Path, abrupt: bool) -> None:
    """The whole tree: the program's child is in a session of its own."""
    pids = tmp_path / "pids"
    code = f"setsid sleep 600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
    async with websocket(process.address, "/execute/stream") as client:
        await client.send(code=code, language="bash", timeout=600)
        await eventually(pids.exists)
        if abrupt:
            client.connection.transport.abort()
    child, parent = (Path("/proc", pid) for pid in pids.read_text().split())
    await eventually(lambda: not child.exists() and not parent.exists())
    await eventually(lambda: process.client.get("/health").json()["active_streams"] == 0)


async def test_a_flood_is_delivered_whole_in_few_frames(process: AgentProcess) -> None:
    code = "import sys\nfor i in range(20_000): sys.stdout.write(f'{i:06d} ' + 'x' * 493)"
    frames = await run(process, code=code, timeout=50)
    text = joined(frames, "stdout")
    assert len(text) == 20_000 * 500
    assert [text[start : start + 6] for start in range(0, len(text), 500)] == [f"{i:06d}" for i in range(20_000)]
    assert len(frames) < 2000
    assert max(len(json.dumps(frame)) for frame in frames) < MIB
    assert not result_of(frames)["stdout_truncated"]


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", "while True: print('x' * 100_000)"), ("bash", "yes | tr -d '\\n'")],
)
async def test_who_does_not_read_makes_the_program_wait_and_nobody_grow(
    process: AgentProcess, language: str, code: str, tmp_path: Path
) -> None:
    process.execute("marker = 1")
    before = resident_bytes(process.pid)
    written = tmp_path / "written"
    if language == "python":
        code = f"import os\nfor n in range(10**9): print('x' * 100_000); open({str(written)!r}, 'w').write(str(n))"
    with RawClient(process.address, "/execute/stream") as client:
        client.send(code=code, language=language, timeout=120)
        client.socket.recv(1)
        await _standstill(process, written)
        assert resident_bytes(process.pid) - before < 8 * MIB
        assert process.client.get("/health").json()["active_streams"] == 1
    await eventually(lambda: process.client.get("/health").json()["active_streams"] == 0)
    # The program was waiting to print; it could be interrupted all the same.
    assert process.execute("print(marker)")["stdout"] == "1\n"


async def _standstill(process: AgentProcess, written: Path) -> None:
    """The agent uses no processor time any more: it waits for its client."""
    idle = 0
    last = -1
    async with asyncio.timeout(20):
        while idle < 20:
            await asyncio.sleep(0.02)
            used = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11])
            idle = idle + 1 if used == last else 0
            last = used


async def test_a_result_that_clients_cannot_take_is_sent_without_its_picture(process: AgentProcess) -> None:
    code = """
class Picture:
    def _repr_png_(self): return b"\\x89PNG" * 500_000
    def __repr__(self): return "a picture"
Picture()
"""
    frames = await run(process, code=code)
    result = result_of(frames)
    assert "png" not in result
    assert result["result"] == "a picture"
    assert "the picture" not in joined(frames, "stdout")
    assert "png" in joined(frames, "stderr")
    assert max(len(json.dumps(frame)) for frame in frames) < MIB


async def test_the_agent_ends_in_order_while_streams_are_open(warm_agent: WarmAgent, tmp_path: Path) -> None:
    with agent_process(warm_agent, tmp_path) as process:
        await _end_while_streaming(process)


async def _end_while_streaming(process: AgentProcess) -> None:
    async with websocket(process.address, "/execute/stream") as client:
        await client.send(code="echo x; sleep 600", language="bash", timeout=600)
        assert (await client.receive())["data"] == "x\n"
        assert await asyncio.to_thread(process.end) == 0
        assert (await client.closed())[0] == 1001
