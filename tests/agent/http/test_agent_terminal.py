"""`/terminal`: real shells on real pseudo-terminals."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.agent.conftest import AgentProcess, WarmAgent, agent_process
from tests.agent.websocket_clients import Client, RawClient, eventually, resident_bytes, websocket
from websockets.exceptions import InvalidStatus
from websockets.frames import Opcode

from cove.agent.terminals.registry import MAX_TERMINALS
from cove.agent.terminals.terminal import SCROLLBACK_BYTES

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def process(shared_process: AgentProcess) -> AgentProcess:
    return shared_process


@asynccontextmanager
async def terminal(process: AgentProcess, *, command: str = "", **query: Any) -> AsyncGenerator[Client]:
    fields = {**query, **({"command": command} if command else {})}
    text = "&".join(f"{name}={quote(str(value))}" for name, value in fields.items())
    async with websocket(process.address, f"/terminal?{text}") as client:
        yield client


async def typed(client: Client, text: str) -> None:
    await client.send(type="input", data=text)


def output_of(frames: list[dict[str, Any]]) -> str:
    return "".join(frame["data"] for frame in frames if frame["type"] == "output")


async def test_a_shell_in_the_workspace(process: AgentProcess) -> None:
    async with terminal(process) as client:
        await typed(client, 'test -t 0 -a -t 1 -a -t 2 && echo "[$(pwd)] [$TERM] [$GLOBAL] [$(stty size)]"; exit 7\n')
        frames = await client.rest()
        assert f"[{process.workspace}] [xterm-256color] [1] [24 80]\r\n" in output_of(frames)
        assert frames[-1] == {"type": "exit", "code": 7}
        assert (await client.closed())[0] == 1000


async def test_it_leads_a_session_of_its_own_with_a_controlling_terminal(process: AgentProcess) -> None:
    async with terminal(
        process, command="ps -o pid=,sid=,tpgid=,tty= -p $$; tty; echo x >/dev/tty; ls -l /proc/$$/fd; :"
    ) as client:
        text = output_of(await client.rest())
    pid, session, _, tty = text.split("\r\n")[0].split()
    assert pid == session
    assert f"/dev/{tty}\r\nx\r\n" in text
    # Nothing of the agent's is open in there.
    assert set(re.findall(r" (\d+) -> ", text)) <= {"0", "1", "2", "255"}


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("no-such-command-here", 127)],
)
async def test_exit_codes(process: AgentProcess, command: str, code: int) -> None:
    async with terminal(process, command=command) as client:
        assert (await client.rest())[-1] == {"type": "exit", "code": code}


async def test_resize_reaches_the_program(process: AgentProcess) -> None:
    command = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    async with terminal(process, command=command, cols=100, rows=30) as client:
        await client.shown("ready\r\n")
        await client.send(type="resize", cols=132, rows=43)
        await client.shown("43 132\r\n")


async def test_control_c_interrupts_the_program_and_not_the_shell(process: AgentProcess) -> None:
    async with terminal(process) as client:
        await typed(client, "bash -c 'echo rea''dy; exec sleep 600'\n")
        await client.shown("ready\r\n")
        await typed(client, "\x03")
        await typed(client, "echo code=$?\n")
        await client.shown("code=130\r\n")
        await typed(client, "\x04")
        assert (await client.rest())[-1]["type"] == "exit"


async def test_bad_frames_are_told_and_the_terminal_goes_on(process: AgentProcess) -> None:
    bad: list[dict[str, Any]] = [
        {"type": "nope"},
        {"data": "no type"},
        {"type": "input"},
        {"type": "input", "data": 7},
        {"type": "input", "data": "\ud800"},
        {"type": "input", "data": "x" * (MIB + 1)},
        {"type": "resize", "cols": 0, "rows": 24},
        {"type": "resize", "cols": 10**9, "rows": 24},
        {"type": "resize", "cols": 80, "rows": -1},
    ]
    async with terminal(process, command="stty size; read line; echo got $line; stty size") as client:
        await client.shown("24 80\r\n")
        for junk in ("", " ", "junk", "[]", "7", b"\xff"):
            await client.connection.send(junk)
        for frame in bad:
            await client.send(**frame)
            told = await client.receive()
            assert (told["type"], told["code"]) in (("error", "INVALID_REQUEST"), ("error", "MISSING_PARAMETER"))
            assert "``" not in told["error"]
        await typed(client, "this\n")
        assert "got this\r\n24 80\r\n" in output_of(await client.rest())


async def test_text_is_utf_8_both_ways_however_it_is_cut(process: AgentProcess) -> None:
    command = r"read line; echo ${#line}; printf '\xe2'; sleep 0.05; printf '\x98\x83 \xff.'"
    async with terminal(process, command=f"export LC_ALL=C.UTF-8; {command}") as client:
        await typed(client, "\N{GRINNING FACE}!\n")
        text = output_of(await client.rest())
    assert text.endswith("2\r\n\N{SNOWMAN} \N{REPLACEMENT CHARACTER}.")


def living(pids: Path) -> list[str]:
    return [pid for pid in pids.read_text().split() if Path("/proc", pid).exists()]


@pytest.mark.parametrize("abrupt", [False, True])
async def test_without_a_session_everything_ends_with_the_client(
    process: AgentProcess, tmp_path: Path, abrupt: bool
) -> None:
    """Also who ignores the hang-up, and who is in a session of its own."""
    pids = tmp_path / "pids"
    script = f"(trap '' HUP TERM; sleep 600) & a=$!; setsid sleep 600 & b=$!; echo $$ $a $b > {pids}; wait"
    async with terminal(process) as client:
        await typed(client, f"{script}\n")
        await eventually(lambda: pids.exists() and len(pids.read_text().split()) == 3)
        if abrupt:
            client.connection.transport.abort()
    await eventually(lambda: not living(pids))


async def test_the_shell_is_told_of_the_hang_up(process: AgentProcess, tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with terminal(process, command=f"trap 'echo bye > {told}; exit' HUP; echo ready; read x") as client:
        await client.shown("ready")
    await eventually(lambda: told.exists() and told.read_text() == "bye\n")


def sessions(process: AgentProcess) -> list[dict[str, Any]]:
    answer = process.client.get("/terminal/sessions")
    assert answer.status_code == 200
    assert answer.json()["count"] == len(answer.json()["sessions"])
    return answer.json()["sessions"]


async def test_a_session_outlives_its_client_and_shows_what_happened(process: AgentProcess) -> None:
    async with terminal(process, session="new", cols=90) as client:
        session = await client.receive()
        assert session == {"type": "session", "id": session["id"], "cols": 90, "rows": 24}
        await typed(client, "kept=yes; echo fi''rst\n")
        await client.shown("first\r\n")
        await typed(client, "sleep 0.1; echo sec''ond\n")
    try:
        (listed,) = sessions(process)
        assert (listed["id"], listed["cols"], listed["running"]) == (session["id"], 90, True)
        await eventually(lambda: not sessions(process)[0]["attached"])
        async with terminal(process, session=session["id"], rows=50) as client:
            assert (await client.receive())["rows"] == 50
            replayed = await client.shown("second\r\n")
            assert "first\r\n" in replayed
            await typed(client, "echo $kept; stty size; exit 5\n")
            frames = await client.rest()
            assert "yes\r\n50 90\r\n" in output_of(frames)
            assert frames[-1] == {"type": "exit", "code": 5}
        assert sessions(process) == []
    finally:
        process.client.delete(f"/terminal/sessions/{session['id']}")


async def test_a_second_client_takes_over(process: AgentProcess) -> None:
    async with terminal(process, session="new") as first:
        name = (await first.receive())["id"]
        await typed(first, "echo o''ne\n")
        await first.shown("one\r\n")
        async with terminal(process, session=name) as second:
            assert (await first.closed())[0] == 4001
            await second.receive()
            await second.shown("one\r\n")
            await typed(second, "echo t''wo\n")
            await second.shown("two\r\n")
            assert process.client.delete(f"/terminal/sessions/{name}").json()["success"]
            assert (await second.rest())[-1]["type"] == "exit"
    assert sessions(process) == []


async def test_what_ended_without_a_client_is_told_to_the_next_one(process: AgentProcess) -> None:
    async with terminal(process, session="new", command="echo done; exit 9") as client:
        name = (await client.receive())["id"]
        client.connection.transport.abort()
    await eventually(lambda: [session["exit_code"] for session in sessions(process)] in ([9], []))
    if sessions(process):  # else the client was sent the end before it had gone
        async with terminal(process, session=name) as client:
            frames = await client.rest()
            assert "done\r\n" in output_of(frames)
            assert frames[-1] == {"type": "exit", "code": 9}
    assert sessions(process) == []


async def test_the_scrollback_is_bounded_and_begins_with_a_line(process: AgentProcess) -> None:
    async with terminal(process, session="new", command="seq -f 'line %08.0f' 100000; echo end; read x") as client:
        name = (await client.receive())["id"]
    await eventually(lambda: not sessions(process)[0]["attached"])
    try:
        # Without a client nobody makes the program wait.
        await eventually(lambda: _waits_for_input(sessions(process)[0]["pid"]))
        async with terminal(process, session=name) as client:
            await client.receive()
            replayed = await client.shown("end\r\n")
        assert SCROLLBACK_BYTES - 100 < len(replayed) <= SCROLLBACK_BYTES
        assert re.fullmatch(r"(line \d{8}\r\n)+end\r\n", replayed)
    finally:
        assert process.client.delete(f"/terminal/sessions/{name}").status_code == 200


def _waits_for_input(pid: int) -> bool:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return not children and Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "S"


def test_sessions_that_do_not_exist(process: AgentProcess) -> None:
    answer = process.client.delete("/terminal/sessions/term_none")
    assert (answer.status_code, answer.json()["code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_a_terminal_without_a_session_cannot_be_joined(process: AgentProcess) -> None:
    async with terminal(process, command="echo ready; read x") as client:
        await client.shown("ready")
        assert sessions(process) == []


async def test_there_is_a_limit_of_terminals(process: AgentProcess) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MAX_TERMINALS):
            await stack.enter_async_context(terminal(process, command="read x"))
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(terminal(process))
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["code"] == "RESOURCE_LIMIT_EXCEEDED"
        assert process.execute("print(1)")["stdout"] == "1\n"
    await eventually(lambda: process.client.get("/health").json()["active_streams"] == 0)
    async with terminal(process, command="exit 1") as client:
        assert (await client.rest())[-1] == {"type": "exit", "code": 1}


async def test_who_does_not_read_makes_the_program_wait_and_nobody_grow(process: AgentProcess) -> None:
    before = resident_bytes(process.pid)
    with RawClient(process.address, "/terminal?command=yes&session=new") as client:
        client.socket.recv(1)
        (session,) = sessions(process)
        state = Path(f"/proc/{session['pid']}/wchan")
        await eventually(lambda: _is_idle(session["pid"]))
        assert resident_bytes(process.pid) - before < 4 * MIB
        assert state.exists()
    process.client.delete(f"/terminal/sessions/{session['id']}")


def _is_idle(pid: int) -> bool:
    """`yes`, which never stops by itself, sleeps in write(2)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "S"


async def test_who_types_into_a_program_that_does_not_read_grows_nothing(process: AgentProcess) -> None:
    before = resident_bytes(process.pid)
    frame = json.dumps({"type": "input", "data": "x" * 100_000 + "\n"}).encode()
    command = quote("stty raw -echo; echo ready; exec sleep 600")
    with RawClient(process.address, f"/terminal?session=new&command={command}") as client:
        while not any(b"ready" in bytes(frame.data) for _, frames in client.arrivals for frame in frames):
            client.read()
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                client.send_frame(Opcode.TEXT, frame)
        assert resident_bytes(process.pid) - before < 8 * MIB
        # It can be ended all the same.
        (session,) = sessions(process)
        process.client.delete(f"/terminal/sessions/{session['id']}")
        await eventually(lambda: process.client.get("/health").json()["active_streams"] == 0)


async def test_a_program_in_the_background_keeps_nothing_open(process: AgentProcess, tmp_path: Path) -> None:
    """It outlives the shell that ended by itself, and the terminal ends all the same."""
    pid = tmp_path / "pid"
    async with terminal(process, command=f"trap '' HUP; sleep 600 & echo $! > {pid}; exit 3") as client:
        assert (await client.rest())[-1] == {"type": "exit", "code": 3}
    assert living(pid)
    process.execute(f"import os; os.kill({pid.read_text().strip()}, {int(signal.SIGKILL)})")


async def test_sessions_end_with_the_agent(warm_agent: WarmAgent, tmp_path: Path) -> None:
    with agent_process(warm_agent, tmp_path) as process:
        async with terminal(process, session="new", command="trap '' HUP TERM; echo ready; read x") as client:
            await client.until(lambda frame: frame.get("data", "").endswith("ready\r\n"))
        pid = sessions(process)[0]["pid"]
        assert await asyncio.to_thread(process.end) == 0
        await eventually(lambda: not Path(f"/proc/{pid}").exists())
