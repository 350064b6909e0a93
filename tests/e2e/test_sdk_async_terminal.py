"""The client's terminals and watches, against a real server."""

import pytest
from tests.e2e.running_server import RunningServer

from cove import AsyncSandbox
from cove.models.errors import Conflict, InvalidRequest, NotFound
from cove.models.frames import ChangeFrame
from cove.sdk import AsyncTerminalConnection

pytestmark = pytest.mark.anyio  # async only


@pytest.fixture(autouse=True)
def use_the_server(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_BASE_URL", server.url)
    monkeypatch.delenv("COVE_API_KEY", raising=False)


async def test_a_shell_has_a_screen_and_an_exit_code() -> None:
    async with (
        AsyncSandbox.create("base") as sandbox,
        sandbox.terminal.connect(cols=100, rows=30) as terminal,
    ):
        await terminal.send("stty size\n")
        await _until(terminal, "30 100")
        await terminal.resize(120, 40)
        await terminal.send("stty size\n")
        await _until(terminal, "40 120")
        await terminal.send("exit 7\n")
        async for _ in terminal:
            pass
        assert (terminal.exit_code, terminal.session) == (7, None)
        assert (terminal.cols, terminal.rows) == (120, 40)


async def test_ctrl_c_interrupts_what_runs() -> None:
    async with AsyncSandbox.create("base") as sandbox, sandbox.terminal.connect() as terminal:
        # Said by the very process that sleeps: before it is there, the interrupt would find only the shell.
        await terminal.send("bash -c \"echo be''gun; exec sleep 1000\"\n")
        await _until(terminal, "begun")
        await terminal.send("\x03")
        await terminal.send("echo inter''rupted\n")
        await _until(terminal, "interrupted")


async def test_a_session_outlives_its_connection() -> None:
    async with AsyncSandbox.create("base") as sandbox:
        async with sandbox.terminal.connect(session="new") as terminal:
            await terminal.send("A=42; echo be''gun\n")
            await _until(terminal, "begun")
            session = terminal.session
        assert session
        assert [entry["id"] for entry in await sandbox.terminal.sessions()] == [session]
        async with sandbox.terminal.connect(session=session) as again:
            assert again.session == session
            await again.send("echo is-$A\n")
            await _until(again, "is-42")
            await again.reconnect()
            await again.send("echo still-$A\n")
            await _until(again, "still-42")
        await sandbox.terminal.end_session(session)
        assert await sandbox.terminal.sessions() == []
        with pytest.raises(NotFound):
            await sandbox.terminal.end_session(session)
        with pytest.raises(NotFound):
            await again.reconnect()


async def test_another_client_takes_a_session_over() -> None:
    async with (
        AsyncSandbox.create("base") as sandbox,
        sandbox.terminal.connect(session="new") as first,
        sandbox.terminal.connect(session=first.session) as second,
    ):
        with pytest.raises(Conflict, match="taken over"):
            async for _ in first:
                pass
        await second.send("echo he''re\n")
        await _until(second, "here")


async def test_the_names_of_hopx_clients() -> None:
    async with AsyncSandbox.create("base") as sandbox, sandbox.terminal.connect(command="read x; exit $x") as terminal:
        await sandbox.terminal.resize(terminal, 90, 20)
        await sandbox.terminal.send_input(terminal, "5\n")
        frames = [frame async for frame in sandbox.terminal.iter_output(terminal)]
        assert frames[-1] == {"type": "exit", "code": 5}
        assert {frame["type"] for frame in frames[:-1]} <= {"output"}


@pytest.mark.parametrize(("cols", "rows"), [(0, 24), (80, 0), (10**9, 24), (-1, 24)])
async def test_a_size_that_no_screen_has(cols: int, rows: int) -> None:
    async with AsyncSandbox.create("base") as sandbox:
        with pytest.raises(InvalidRequest, match=r"cols|rows"):
            await sandbox.terminal.connect(cols=cols, rows=rows)
        async with sandbox.terminal.connect() as terminal:
            with pytest.raises(InvalidRequest, match=r"cols|rows"):
                await terminal.resize(cols, rows)
            with pytest.raises(Conflict, match="no session"):
                await terminal.reconnect()


async def test_a_missing_session() -> None:
    async with AsyncSandbox.create("base") as sandbox:
        with pytest.raises(NotFound, match="session"):
            await sandbox.terminal.connect(session="term_nothing")


async def test_changes_are_seen_from_the_beginning_of_the_block() -> None:
    async with AsyncSandbox.create("base") as sandbox, sandbox.files.watch(timeout=20) as changes:
        await sandbox.commands.run("mkdir d; echo x > d/f; mv d/f d/g; rm d/g; touch end")
        seen: list[tuple[str, str]] = []
        async for change in changes:
            assert isinstance(change, ChangeFrame)
            seen.append((change.event, change.path))
            if change.path == "/workspace/end":
                break
        assert seen[0] == ("created", "/workspace/d")
        assert ("renamed", "/workspace/d/g") in seen or ("created", "/workspace/d/g") in seen
        assert ("deleted", "/workspace/d/g") in seen


async def test_a_watch_ends_by_its_time_and_with_its_path() -> None:
    async with AsyncSandbox.create("base") as sandbox:
        assert [change async for change in sandbox.files.watch(timeout=0.1)] == []
        await sandbox.files.mkdir("/workspace/gone")
        async with sandbox.files.watch("/workspace/gone", timeout=20) as changes:
            await sandbox.files.remove("/workspace/gone")
            seen = [change async for change in changes]
        assert [change.path for change in seen] == ["/workspace/gone"]


async def test_a_watch_on_what_is_not_there() -> None:
    async with AsyncSandbox.create("base") as sandbox:
        with pytest.raises(NotFound):
            async for _ in sandbox.files.watch("/workspace/nothing"):
                pytest.fail("nothing changes there")
        with pytest.raises(InvalidRequest, match="timeout"):
            sandbox.files.watch(timeout=0)


async def _until(terminal: AsyncTerminalConnection, text: str) -> None:
    """Read until the screen has shown `text`."""
    shown = ""
    async for piece in terminal:
        shown += piece
        if text in shown:
            return
    pytest.fail(f"the terminal ended without {text!r}: {shown!r}")
