"""The client's ways to run code, against a real server."""

import time
from contextlib import aclosing
from typing import Any

import pytest
from tests.e2e.running_server import RunningServer

from cove import AsyncSandbox
from cove.models.errors import Conflict, CoveError, InvalidRequest, NotFound, PlatformFailure
from cove.models.processes import ProcessStatus
from cove.sdk import Execution, ExecutionEvent, ResultEvent

pytestmark = pytest.mark.anyio  # async only

ENDLESS = "import time\nwhile True: time.sleep(0.05)"
WAITS_FOR_US = """
import os, time
print("before", flush=True)
while not os.path.exists("/tmp/go"):
    time.sleep(0.01)
print("after")
"""


@pytest.fixture(autouse=True)
def use_the_server(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_BASE_URL", server.url)
    monkeypatch.delenv("COVE_API_KEY", raising=False)


async def test_output_comes_while_the_program_runs() -> None:
    async with AsyncSandbox.create() as sandbox:
        seen: list[str] = []
        async for event in sandbox.run_code_stream(WAITS_FOR_US, timeout=30):
            if isinstance(event, ResultEvent):
                seen.append(f"exit {event.result.exit_code}")
                continue
            seen.append(event.data)
            if event.data == "before\n":
                await sandbox.files.write("/tmp/go", "")
        assert seen == ["before\n", "after\n", "exit 0"]


async def test_streams_are_told_apart_and_the_result_is_whole() -> None:
    async with AsyncSandbox.create() as sandbox:
        code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)"
        events = [event async for event in sandbox.run_code_stream(code)]
        result = _result(events)
        printed = {(event.type, event.data) for event in events if not isinstance(event, ResultEvent)}
        assert ("stdout", "out\n") in printed
        assert ("stderr", "err\n") in printed
        assert (result.stdout, result.exit_code, result.success) == ("out\n", 3, False)


async def test_callbacks_are_told_and_the_result_is_the_same() -> None:
    async with AsyncSandbox.create() as sandbox:
        out: list[str] = []
        err: list[str] = []
        await sandbox.run_code("kept = 41")
        result = await sandbox.run_code(
            "import sys\nprint('é' * 3)\nprint('no', file=sys.stderr)\nkept + 1",
            on_stdout=out.append,
            on_stderr=err.append,
        )
        assert ("".join(out), "".join(err)) == (result.stdout, result.stderr)
        assert (result.stdout, result.result) == ("ééé\n42\n", "42")


async def test_leaving_the_loop_ends_the_program() -> None:
    async with AsyncSandbox.create() as sandbox:
        events = sandbox.run_code_stream(f"print('on', flush=True)\n{ENDLESS}", timeout=30)
        async with aclosing(events) as stream:
            async for event in stream:
                assert not isinstance(event, ResultEvent)
                break
        # The interpreter is free again long before the program's own end.
        began = time.monotonic()
        assert (await sandbox.run_code("print(1)", timeout=20)).stdout == "1\n"
        assert time.monotonic() - began < 15


async def test_a_callback_that_raises_ends_the_program() -> None:
    class Enough(Exception):
        pass

    def refuse(text: str) -> None:
        raise Enough(text)

    async with AsyncSandbox.create() as sandbox:
        with pytest.raises(Enough, match="on"):
            await sandbox.run_code(f"print('on', flush=True)\n{ENDLESS}", timeout=30, on_stdout=refuse)
        assert (await sandbox.run_code("print(1)", timeout=20)).stdout == "1\n"


async def test_a_refused_program_raises_before_any_event() -> None:
    async with AsyncSandbox.create() as sandbox:
        with pytest.raises(CoveError) as caught:
            async for _ in sandbox.run_code_stream("1", language="cobol"):
                pytest.fail("nothing can come of it")
        assert caught.value.code == "UNSUPPORTED_LANGUAGE"
        with pytest.raises(InvalidRequest, match="timeout"):
            sandbox.run_code_stream("1", timeout=-1)


async def test_commands_can_be_streamed() -> None:
    async with AsyncSandbox.create("base") as sandbox:
        out: list[str] = []
        result = await sandbox.commands.run("echo $A; pwd; exit 4", env={"A": "b"}, on_stdout=out.append)
        assert ("".join(out), result.stdout, result.exit_code) == ("b\n/workspace\n", "b\n/workspace\n", 4)
        assert result.command == "echo $A; pwd; exit 4"
        events = [event async for event in sandbox.commands.stream("echo x >&2", working_dir="/tmp")]
        assert [event.type for event in events] == ["stderr", "result"]
        timed_out = _result([event async for event in sandbox.commands.stream("sleep 100", timeout=0.2)])
        assert (timed_out.timed_out, timed_out.exit_code) == (True, 124)


async def test_a_background_program_from_its_start_to_its_result() -> None:
    async with AsyncSandbox.create() as sandbox:
        process = await sandbox.run_code_background(WAITS_FOR_US, name="waiting", timeout=30)
        assert process.id.startswith("proc_")
        assert (process.status, process.name, process.exit_code) == (ProcessStatus.RUNNING, "waiting", None)
        with pytest.raises(PlatformFailure, match="still runs") as caught:
            await process.wait(0.05)
        assert caught.value.code == "TIMEOUT"
        assert (await sandbox.run_code("print('not in its way')")).success
        await sandbox.files.write("/tmp/go", "")
        result = await process.wait(20)
        assert (result.stdout, result.exit_code) == ("before\nafter\n", 0)
        assert (process.status, process.exit_code) == (ProcessStatus.COMPLETED, 0)
        assert await process.logs() == "before\nafter\n"
        assert await process.logs("stderr") == ""
        assert (await process.refresh()).name == "waiting"


async def test_logs_are_followed_until_the_end() -> None:
    async with AsyncSandbox.create() as sandbox:
        process = await sandbox.run_code_background(WAITS_FOR_US, timeout=30)
        pieces: list[str] = []
        async for piece in process.logs(follow=True):
            pieces.append(piece)
            await sandbox.files.write("/tmp/go", "")
        assert "".join(pieces) == "before\nafter\n"
        events = [event async for event in process.events()]
        assert _result(events).stdout == "before\nafter\n"


async def test_leaving_the_events_of_a_background_program_leaves_it_alone() -> None:
    async with AsyncSandbox.create() as sandbox:
        process = await sandbox.run_code_background(WAITS_FOR_US, timeout=30)
        async with aclosing(process.events()) as events:
            async for event in events:
                assert not isinstance(event, ResultEvent)
                break
        await sandbox.files.write("/tmp/go", "")
        assert (await process.wait(20)).stdout == "before\nafter\n"


@pytest.mark.parametrize(("signal", "code"), [("INT", 130), (15, 143), (None, None)])
async def test_kill(signal: int | str | None, code: int | None) -> None:
    async with AsyncSandbox.create("base") as sandbox:
        process = await sandbox.commands.run("sleep 100", background=True)
        assert process.id.startswith("cmd_")
        assert (await process.kill(signal)).success
        result = await process.wait(20)
        assert result.exit_code in ((code,) if code else (137, 143))
        assert process.status is ProcessStatus.KILLED
        assert (await process.kill()).success


async def test_processes_are_listed_and_found() -> None:
    async with AsyncSandbox.create() as sandbox:
        assert await sandbox.list_processes() == []
        first = await sandbox.run_code_background("print(1)")
        second = await sandbox.commands.run("sleep 100", background=True, name="long")
        await first.wait(20)
        listed = await sandbox.list_processes()
        assert [process.id for process in listed] == [second.id, first.id]
        assert [process.status for process in listed] == [ProcessStatus.RUNNING, ProcessStatus.COMPLETED]
        found = await sandbox.get_process(first.id)
        assert (await found.wait()).stdout == "1\n"
        assert (await sandbox.get_process(first.execution_id)).id == first.id
        await sandbox.kill_process(second.id)
        assert (await second.wait(20)).exit_code in (137, 143)
        with pytest.raises(NotFound):
            await sandbox.kill_process("proc_nothing")
        with pytest.raises(InvalidRequest):
            await first.kill("SIGNOTHING")


async def test_a_background_command_has_no_callbacks() -> None:
    given: dict[str, Any] = {"background": True, "on_stdout": print}
    async with AsyncSandbox.create("base") as sandbox:
        with pytest.raises(InvalidRequest, match="tells nobody"):
            await sandbox.commands.run("true", **given)


async def test_a_paused_sandbox_says_so() -> None:
    async with AsyncSandbox.create("base") as sandbox:
        await sandbox.pause()
        with pytest.raises(Conflict, match="paused"):
            [event async for event in sandbox.commands.stream("true")]
        assert not await sandbox.is_healthy()
        await sandbox.resume()
        assert await sandbox.is_healthy()


def _result(events: list[ExecutionEvent]) -> Execution:
    last = events[-1]
    assert isinstance(last, ResultEvent)
    assert [isinstance(event, ResultEvent) for event in events].count(True) == 1
    return last.result


async def test_files_and_directories_are_read_in_parts() -> None:
    async with AsyncSandbox.create("base") as sandbox:
        await sandbox.files.write("/tmp/parts/a.txt", "h\u00e9llo")
        await sandbox.files.write("/tmp/parts/b.txt", "")
        part = await sandbox.files.read_range("/tmp/parts/a.txt", offset=1, limit=3)
        assert (part.content, part.encoding, part.size) == ("\u00e9l", "utf-8", 6)
        cut = await sandbox.files.read_range("/tmp/parts/a.txt", limit=2)
        assert (cut.content, cut.encoding) == ("aMM=", "base64")
        assert (await sandbox.files.read_range("/tmp/parts/a.txt", offset=99, limit=5)).content == ""
        first = await sandbox.files.list_page("/tmp/parts", limit=1)
        assert ([entry.name for entry in first.files], first.truncated, first.next_offset) == (["a.txt"], True, 1)
        last = await sandbox.files.list_page("/tmp/parts", offset=1, limit=1)
        assert ([entry.name for entry in last.files], last.truncated) == (["b.txt"], False)
        for bad in (-1, 2**60, True):
            with pytest.raises(InvalidRequest, match="offset"):
                await sandbox.files.read_range("/tmp/parts/a.txt", offset=bad, limit=1)


@pytest.mark.parametrize("watched", [False, True])
async def test_the_output_of_a_command_is_capped(watched: bool) -> None:
    pieces: list[str] = []
    async with AsyncSandbox.create("base") as sandbox:
        result = await sandbox.commands.run(
            "seq 1000", max_output_bytes=100, on_stdout=pieces.append if watched else None
        )
        assert result.stdout_truncated
        assert result.stdout_file is not None
        assert result.stdout.startswith("1\n2\n")
        assert len(result.stdout) < 400
        whole = await sandbox.files.read(result.stdout_file)
    assert whole == "".join(f"{number}\n" for number in range(1, 1001))
    assert bool(pieces) is watched
