"""WebSockets of the unmodified client, with nothing but the base URL: streams, terminals, watches.

All of them lose the path of the sandbox's address, so they reach their sandbox by the token alone.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.interop import hopx

Sandbox, errors = hopx.client.Sandbox, hopx.errors

pytestmark = pytest.mark.anyio

SECONDS = 30.0


async def collected(frames: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    async with asyncio.timeout(SECONDS):
        return [frame async for frame in frames]


def joined(frames: list[dict[str, Any]], stream: str) -> str:
    return "".join(frame["data"] for frame in frames if frame["type"] == stream)


async def shown(terminal: Any, socket: Any, text: str) -> str:
    output = ""
    async with asyncio.timeout(SECONDS):
        async for frame in terminal.iter_output(socket):
            output += frame.get("data", "")
            if text in output:
                return output
    raise AssertionError(f"the terminal ended without {text!r}: {output!r}")


async def test_code_is_streamed(sandbox: Any) -> None:
    code = "import sys\nfor i in range(3): print(i)\nprint('oops', file=sys.stderr)"
    frames = await collected(sandbox.run_code_stream(code))
    assert joined(frames, "stdout") == "0\n1\n2\n"
    assert joined(frames, "stderr") == "oops\n"
    assert [frame["type"] for frame in frames[-2:]] == ["result", "complete"]
    assert (frames[-2]["exit_code"], frames[-1]["success"]) == (0, True)
    assert frames[-2]["execution_time"] > 0


async def test_a_stream_and_a_call_share_their_variables(sandbox: Any) -> None:
    await collected(sandbox.run_code_stream("streamed = 'yes'"))
    assert (await asyncio.to_thread(sandbox.run_code, "print(streamed)")).stdout == "yes\n"


@pytest.mark.parametrize(
    ("language", "code", "stdout"),
    [("bash", "echo $((6*7))", "42\n"), ("javascript", "console.log(6*7)", "42\n"), ("python", "1/0", "")],
)
async def test_every_language_is_streamed(sandbox: Any, language: str, code: str, stdout: str) -> None:
    frames = await collected(sandbox.run_code_stream(code, language=language, env={"A": "1"}))
    assert joined(frames, "stdout") == stdout
    assert frames[-1] == {"type": "complete", "success": bool(stdout)}


async def test_megabytes_arrive_whole(sandbox: Any) -> None:
    frames = await collected(sandbox.run_code_stream("for i in range(50_000): print(f'{i:099d}')"))
    text = joined(frames, "stdout")
    assert len(text) == 5_000_000
    assert text.splitlines()[-1] == f"{49_999:099d}"


async def test_what_cannot_run_ends_the_stream_with_an_error(sandbox: Any) -> None:
    frames = await collected(sandbox.run_code_stream("1", language="cobol"))
    assert [frame["type"] for frame in frames] == ["error", "complete"]
    assert frames[0]["code"] == "UNSUPPORTED_LANGUAGE"


async def test_leaving_a_stream_ends_its_program(sandbox: Any) -> None:
    code = "import time; print('runs', flush=True)\nfor _ in range(10**9): time.sleep(0.01)"
    async with asyncio.timeout(SECONDS), aclosing(sandbox.run_code_stream(code, timeout=600)) as frames:
        async for frame in frames:
            assert frame["data"] == "runs\n"
            break
    # One interpreter runs one call after the other: this one gets its turn only when the first is gone.
    assert (await asyncio.to_thread(sandbox.run_code, "print('free')", timeout=20)).stdout == "free\n"


async def test_a_terminal(sandbox: Any) -> None:
    terminal = sandbox.terminal
    async with await terminal.connect() as socket:
        await terminal.send_input(socket, 'echo "[$(pwd)] [$TERM] [$(id -un)] [$(tty)]"\n')
        assert "[/workspace] [xterm-256color] [user] [/dev/pts/" in await shown(terminal, socket, "/dev/pts/0]\r\n")
        await terminal.resize(socket, cols=120, rows=40)
        await terminal.send_input(socket, "stty size\n")
        await shown(terminal, socket, "40 120\r\n")
        await terminal.send_input(socket, "bash -c 'echo rea''dy; exec sleep 600'\n")
        await shown(terminal, socket, "ready\r\n")
        await terminal.send_input(socket, "\x03")
        await terminal.send_input(socket, "echo code=$?\n")
        await shown(terminal, socket, "code=130\r\n")
        await terminal.send_input(socket, "exit 7\n")
        frames = await collected(terminal.iter_output(socket))
        assert frames[-1] == {"type": "exit", "code": 7}


async def changes(frames: Any, path: str) -> list[tuple[str, str]]:
    """What is told up to the first change of `path`."""
    found: list[tuple[str, str]] = []
    async with asyncio.timeout(SECONDS):
        async for frame in frames:
            assert frame["type"] == "change"
            found.append((frame["event"], frame["path"]))
            if frame["path"] == path:
                return found
    raise AssertionError(f"the watch ended: {found}")


async def _until_noticed(sandbox: Any, frames: Any) -> None:
    """Watching begins some time after the call: nothing tells the client when."""
    first = asyncio.ensure_future(anext(frames))
    number = 0
    async with asyncio.timeout(SECONDS):
        while not first.done():
            number += 1
            await asyncio.to_thread(sandbox.files.write, f"/workspace/warm/up-{number}", "")
            await asyncio.wait([first], timeout=0.05)
    await asyncio.to_thread(sandbox.files.write, "/workspace/warm/last", "")
    await changes(frames, "/workspace/warm/last")


async def test_changes_of_files_of_a_template_too(sandbox: Any) -> None:
    """/workspace is the sandbox's own; the directory below is one of the template's layers."""
    async with aclosing(sandbox.files.watch("/workspace")) as frames:
        await _until_noticed(sandbox, frames)
        await asyncio.to_thread(sandbox.files.write, "/workspace/a.txt", "1")
        assert await changes(frames, "/workspace/a.txt") == [("created", "/workspace/a.txt")]
        await asyncio.to_thread(sandbox.run_code, "open('/workspace/a.txt', 'a').write('2')")
        assert await changes(frames, "/workspace/a.txt") == [("modified", "/workspace/a.txt")]
        await asyncio.to_thread(sandbox.files.remove, "/workspace/a.txt")
        assert await changes(frames, "/workspace/a.txt") == [("deleted", "/workspace/a.txt")]
    socket = await sandbox._ws_client.connect("/files/watch?ready=1")
    async with socket, asyncio.timeout(SECONDS):
        await sandbox._ws_client.send_message(socket, {"action": "watch", "path": "/home/user"})
        assert (await sandbox._ws_client.receive_message(socket))["type"] == "watching"
        await asyncio.to_thread(sandbox.run_code, "open('/home/user/new', 'w').close()")
        assert (await sandbox._ws_client.receive_message(socket))["path"] == "/home/user/new"


async def test_a_missing_path_ends_the_watch(sandbox: Any) -> None:
    (frame,) = await collected(sandbox.files.watch("/no/such"))
    assert (frame["type"], frame["code"]) == ("error", "FILE_NOT_FOUND")


async def test_two_sandboxes_behind_one_port_see_only_their_own(there: dict[str, Any]) -> None:
    with (
        Sandbox.create("base", timeout_seconds=120, **there) as one,
        Sandbox.create("base", timeout_seconds=120, **there) as two,
    ):
        async with aclosing(one.files.watch("/workspace")) as frames:
            await _until_noticed(one, frames)
            await asyncio.to_thread(two.files.write, "/workspace/of-two", "2")
            await asyncio.to_thread(one.files.write, "/workspace/of-one", "1")
            assert await changes(frames, "/workspace/of-one") == [("created", "/workspace/of-one")]
        async with await one.terminal.connect() as first, await two.terminal.connect() as second:
            await one.terminal.send_input(first, "echo ho''st=$HOSTNAME; ls\n")
            await two.terminal.send_input(second, "echo ho''st=$HOSTNAME; ls\n")
            assert "of-one" in await shown(one.terminal, first, "of-one")
            seen = await shown(two.terminal, second, "of-two")
            assert "of-one" not in seen
            await two.terminal.send_input(second, "exit\n")
            await collected(two.terminal.iter_output(second))
            # The other one goes on.
            await one.terminal.send_input(first, "echo st''ill\n")
            await shown(one.terminal, first, "still\r\n")
        for sandbox, other in ((one, "of-two"), (two, "of-one")):
            stream = await collected(sandbox.run_code_stream("import os; print(os.listdir('/workspace'))"))
            assert other not in joined(stream, "stdout")


async def test_the_asynchronous_client(async_sandbox: Any) -> None:
    frames = await collected(async_sandbox.run_code_stream("print('hi')"))
    assert joined(frames, "stdout") == "hi\n"
    assert frames[-1] == {"type": "complete", "success": True}
    terminal = async_sandbox.terminal
    async with await terminal.connect() as socket:
        await terminal.send_input(socket, "stty size; exit 4\n")
        frames = await collected(terminal.iter_output(socket))
        assert "24 80\r\n" in joined(frames, "output")
        assert frames[-1] == {"type": "exit", "code": 4}


async def test_a_sandbox_that_is_killed_ends_its_streams(there: dict[str, Any]) -> None:
    with Sandbox.create("base", timeout_seconds=120, **there) as sandbox:
        async with await sandbox.terminal.connect() as socket:
            await sandbox.terminal.send_input(socket, "echo al''ive\n")
            await shown(sandbox.terminal, socket, "alive\r\n")
            await asyncio.to_thread(sandbox.kill)
            async with asyncio.timeout(SECONDS):
                await socket.wait_closed()


async def test_a_handshake_with_a_bad_token_is_refused(sandbox: Any) -> None:
    sandbox._ensure_ws_client()
    token = sandbox._ws_client._jwt_token
    sandbox._ws_client.update_jwt_token("a.b.c")
    try:
        with pytest.raises(errors.AgentError, match="HTTP 401"):
            await sandbox._ws_client.connect("/terminal", timeout=10)
    finally:
        sandbox._ws_client.update_jwt_token(token)


async def test_what_is_no_websocket_is_refused(sandbox: Any) -> None:
    sandbox._ensure_ws_client()
    with pytest.raises(errors.AgentError, match="HTTP 404"):
        await sandbox._ws_client.connect("/no/such", timeout=10)
    assert (await asyncio.to_thread(sandbox.run_code, "print('well')")).stdout == "well\n"
