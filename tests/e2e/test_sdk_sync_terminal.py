# Generated from tests/e2e/test_sdk_async_terminal.py by tools/generate_sync_sdk.py. Do not edit.

"""The client's terminals and watches, against a real server."""

import pytest
from tests.e2e.running_server import RunningServer

from cove import Sandbox
from cove.models.errors import Conflict, InvalidRequest, NotFound
from cove.models.frames import ChangeFrame
from cove.sdk import TerminalConnection


@pytest.fixture(autouse=True)
def use_the_server(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_BASE_URL", server.url)
    monkeypatch.delenv("COVE_API_KEY", raising=False)


def test_a_shell_has_a_screen_and_an_exit_code() -> None:
    with (
        Sandbox.create("base") as sandbox,
        sandbox.terminal.connect(cols=100, rows=30) as terminal,
    ):
        terminal.send("stty size\n")
        _until(terminal, "30 100")
        terminal.resize(120, 40)
        terminal.send("stty size\n")
        _until(terminal, "40 120")
        terminal.send("exit 7\n")
        for _ in terminal:
            pass
        assert (terminal.exit_code, terminal.session) == (7, None)
        assert (terminal.cols, terminal.rows) == (120, 40)


def test_ctrl_c_interrupts_what_runs() -> None:
    with Sandbox.create("base") as sandbox, sandbox.terminal.connect() as terminal:
        # Said by the very process that sleeps: before it is there, the interrupt would find only the shell.
        terminal.send("bash -c \"echo be''gun; exec sleep 1000\"\n")
        _until(terminal, "begun")
        terminal.send("\x03")
        terminal.send("echo inter''rupted\n")
        _until(terminal, "interrupted")


def test_a_session_outlives_its_connection() -> None:
    with Sandbox.create("base") as sandbox:
        with sandbox.terminal.connect(session="new") as terminal:
            terminal.send("A=42; echo be''gun\n")
            _until(terminal, "begun")
            session = terminal.session
        assert session
        assert [entry["id"] for entry in sandbox.terminal.sessions()] == [session]
        with sandbox.terminal.connect(session=session) as again:
            assert again.session == session
            again.send("echo is-$A\n")
            _until(again, "is-42")
            again.reconnect()
            again.send("echo still-$A\n")
            _until(again, "still-42")
        sandbox.terminal.end_session(session)
        assert sandbox.terminal.sessions() == []
        with pytest.raises(NotFound):
            sandbox.terminal.end_session(session)
        with pytest.raises(NotFound):
            again.reconnect()


def test_another_client_takes_a_session_over() -> None:
    with (
        Sandbox.create("base") as sandbox,
        sandbox.terminal.connect(session="new") as first,
        sandbox.terminal.connect(session=first.session) as second,
    ):
        with pytest.raises(Conflict, match="taken over"):
            for _ in first:
                pass
        second.send("echo he''re\n")
        _until(second, "here")


def test_the_names_of_hopx_clients() -> None:
    with Sandbox.create("base") as sandbox, sandbox.terminal.connect(command="read x; exit $x") as terminal:
        sandbox.terminal.resize(terminal, 90, 20)
        sandbox.terminal.send_input(terminal, "5\n")
        frames = list(sandbox.terminal.iter_output(terminal))
        assert frames[-1] == {"type": "exit", "code": 5}
        assert {frame["type"] for frame in frames[:-1]} <= {"output"}


@pytest.mark.parametrize(("cols", "rows"), [(0, 24), (80, 0), (10**9, 24), (-1, 24)])
def test_a_size_that_no_screen_has(cols: int, rows: int) -> None:
    with Sandbox.create("base") as sandbox:
        with pytest.raises(InvalidRequest, match=r"cols|rows"):
            sandbox.terminal.connect(cols=cols, rows=rows)
        with sandbox.terminal.connect() as terminal:
            with pytest.raises(InvalidRequest, match=r"cols|rows"):
                terminal.resize(cols, rows)
            with pytest.raises(Conflict, match="no session"):
                terminal.reconnect()


def test_a_missing_session() -> None:
    with Sandbox.create("base") as sandbox, pytest.raises(NotFound, match="session"):
        sandbox.terminal.connect(session="term_nothing")


def test_changes_are_seen_from_the_beginning_of_the_block() -> None:
    with Sandbox.create("base") as sandbox, sandbox.files.watch(timeout=20) as changes:
        sandbox.commands.run("mkdir d; echo x > d/f; mv d/f d/g; rm d/g; touch end")
        seen: list[tuple[str, str]] = []
        for change in changes:
            assert isinstance(change, ChangeFrame)
            seen.append((change.event, change.path))
            if change.path == "/workspace/end":
                break
        assert seen[0] == ("created", "/workspace/d")
        assert ("renamed", "/workspace/d/g") in seen or ("created", "/workspace/d/g") in seen
        assert ("deleted", "/workspace/d/g") in seen


def test_a_watch_ends_by_its_time_and_with_its_path() -> None:
    with Sandbox.create("base") as sandbox:
        assert list(sandbox.files.watch(timeout=0.1)) == []
        sandbox.files.mkdir("/workspace/gone")
        with sandbox.files.watch("/workspace/gone", timeout=20) as changes:
            sandbox.files.remove("/workspace/gone")
            seen = list(changes)
        assert [change.path for change in seen] == ["/workspace/gone"]


def test_a_watch_on_what_is_not_there() -> None:
    with Sandbox.create("base") as sandbox:
        with pytest.raises(NotFound):
            for _ in sandbox.files.watch("/workspace/nothing"):
                pytest.fail("nothing changes there")
        with pytest.raises(InvalidRequest, match="timeout"):
            sandbox.files.watch(timeout=0)


def _until(terminal: TerminalConnection, text: str) -> None:
    """Read until the screen has shown `text`."""
    shown = ""
    for piece in terminal:
        shown += piece
        if text in shown:
            return
    pytest.fail(f"the terminal ended without {text!r}: {shown!r}")
