# Generated from tests/e2e/test_sdk_async_execution.py by tools/generate_sync_sdk.py. Do not edit.

"""The client's ways to run code, against a real server."""

import time
from contextlib import closing
from typing import Any

import pytest
from tests.e2e.running_server import RunningServer

from cove import Sandbox
from cove.models.errors import Conflict, CoveError, InvalidRequest, NotFound, PlatformFailure
from cove.models.processes import ProcessStatus
from cove.sdk import Execution, ExecutionEvent, ResultEvent

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


def test_output_comes_while_the_program_runs() -> None:
    with Sandbox.create() as sandbox:
        seen: list[str] = []
        for event in sandbox.run_code_stream(WAITS_FOR_US, timeout=30):
            if isinstance(event, ResultEvent):
                seen.append(f"exit {event.result.exit_code}")
                continue
            seen.append(event.data)
            if event.data == "before\n":
                sandbox.files.write("/tmp/go", "")
        assert seen == ["before\n", "after\n", "exit 0"]


def test_streams_are_told_apart_and_the_result_is_whole() -> None:
    with Sandbox.create() as sandbox:
        code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)"
        events = list(sandbox.run_code_stream(code))
        result = _result(events)
        printed = {(event.type, event.data) for event in events if not isinstance(event, ResultEvent)}
        assert ("stdout", "out\n") in printed
        assert ("stderr", "err\n") in printed
        assert (result.stdout, result.exit_code, result.success) == ("out\n", 3, False)


def test_callbacks_are_told_and_the_result_is_the_same() -> None:
    with Sandbox.create() as sandbox:
        out: list[str] = []
        err: list[str] = []
        sandbox.run_code("kept = 41")
        result = sandbox.run_code(
            "import sys\nprint('é' * 3)\nprint('no', file=sys.stderr)\nkept + 1",
            on_stdout=out.append,
            on_stderr=err.append,
        )
        assert ("".join(out), "".join(err)) == (result.stdout, result.stderr)
        assert (result.stdout, result.result) == ("ééé\n42\n", "42")


def test_leaving_the_loop_ends_the_program() -> None:
    with Sandbox.create() as sandbox:
        events = sandbox.run_code_stream(f"print('on', flush=True)\n{ENDLESS}", timeout=30)
        with closing(events) as stream:
            for event in stream:
                assert not isinstance(event, ResultEvent)
                break
        # The interpreter is free again long before the program's own end.
        began = time.monotonic()
        assert (sandbox.run_code("print(1)", timeout=20)).stdout == "1\n"
        assert time.monotonic() - began < 15


def test_a_callback_that_raises_ends_the_program() -> None:
    class Enough(Exception):
        pass

    def refuse(text: str) -> None:
        raise Enough(text)

    with Sandbox.create() as sandbox:
        with pytest.raises(Enough, match="on"):
            sandbox.run_code(f"print('on', flush=True)\n{ENDLESS}", timeout=30, on_stdout=refuse)
        assert (sandbox.run_code("print(1)", timeout=20)).stdout == "1\n"


def test_a_refused_program_raises_before_any_event() -> None:
    with Sandbox.create() as sandbox:
        with pytest.raises(CoveError) as caught:
            for _ in sandbox.run_code_stream("1", language="cobol"):
                pytest.fail("nothing can come of it")
        assert caught.value.code == "UNSUPPORTED_LANGUAGE"
        with pytest.raises(InvalidRequest, match="timeout"):
            sandbox.run_code_stream("1", timeout=-1)


def test_commands_can_be_streamed() -> None:
    with Sandbox.create("base") as sandbox:
        out: list[str] = []
        result = sandbox.commands.run("echo $A; pwd; exit 4", env={"A": "b"}, on_stdout=out.append)
        assert ("".join(out), result.stdout, result.exit_code) == ("b\n/workspace\n", "b\n/workspace\n", 4)
        assert result.command == "echo $A; pwd; exit 4"
        events = list(sandbox.commands.stream("echo x >&2", working_dir="/tmp"))
        assert [event.type for event in events] == ["stderr", "result"]
        timed_out = _result(list(sandbox.commands.stream("sleep 100", timeout=0.2)))
        assert (timed_out.timed_out, timed_out.exit_code) == (True, 124)


def test_a_background_program_from_its_start_to_its_result() -> None:
    with Sandbox.create() as sandbox:
        process = sandbox.run_code_background(WAITS_FOR_US, name="waiting", timeout=30)
        assert process.id.startswith("proc_")
        assert (process.status, process.name, process.exit_code) == (ProcessStatus.RUNNING, "waiting", None)
        with pytest.raises(PlatformFailure, match="still runs") as caught:
            process.wait(0.05)
        assert caught.value.code == "TIMEOUT"
        assert (sandbox.run_code("print('not in its way')")).success
        sandbox.files.write("/tmp/go", "")
        result = process.wait(20)
        assert (result.stdout, result.exit_code) == ("before\nafter\n", 0)
        assert (process.status, process.exit_code) == (ProcessStatus.COMPLETED, 0)
        assert process.logs() == "before\nafter\n"
        assert process.logs("stderr") == ""
        assert (process.refresh()).name == "waiting"


def test_logs_are_followed_until_the_end() -> None:
    with Sandbox.create() as sandbox:
        process = sandbox.run_code_background(WAITS_FOR_US, timeout=30)
        pieces: list[str] = []
        for piece in process.logs(follow=True):
            pieces.append(piece)
            sandbox.files.write("/tmp/go", "")
        assert "".join(pieces) == "before\nafter\n"
        events = list(process.events())
        assert _result(events).stdout == "before\nafter\n"


def test_leaving_the_events_of_a_background_program_leaves_it_alone() -> None:
    with Sandbox.create() as sandbox:
        process = sandbox.run_code_background(WAITS_FOR_US, timeout=30)
        with closing(process.events()) as events:
            for event in events:
                assert not isinstance(event, ResultEvent)
                break
        sandbox.files.write("/tmp/go", "")
        assert (process.wait(20)).stdout == "before\nafter\n"


@pytest.mark.parametrize(("signal", "code"), [("INT", 130), (15, 143), (None, None)])
def test_kill(signal: int | str | None, code: int | None) -> None:
    with Sandbox.create("base") as sandbox:
        process = sandbox.commands.run("sleep 100", background=True)
        assert process.id.startswith("cmd_")
        assert (process.kill(signal)).success
        result = process.wait(20)
        assert result.exit_code in ((code,) if code else (137, 143))
        assert process.status is ProcessStatus.KILLED
        assert (process.kill()).success


def test_processes_are_listed_and_found() -> None:
    with Sandbox.create() as sandbox:
        assert sandbox.list_processes() == []
        first = sandbox.run_code_background("print(1)")
        second = sandbox.commands.run("sleep 100", background=True, name="long")
        first.wait(20)
        listed = sandbox.list_processes()
        assert [process.id for process in listed] == [second.id, first.id]
        assert [process.status for process in listed] == [ProcessStatus.RUNNING, ProcessStatus.COMPLETED]
        found = sandbox.get_process(first.id)
        assert (found.wait()).stdout == "1\n"
        assert (sandbox.get_process(first.execution_id)).id == first.id
        sandbox.kill_process(second.id)
        assert (second.wait(20)).exit_code in (137, 143)
        with pytest.raises(NotFound):
            sandbox.kill_process("proc_nothing")
        with pytest.raises(InvalidRequest):
            first.kill("SIGNOTHING")


def test_a_background_command_has_no_callbacks() -> None:
    given: dict[str, Any] = {"background": True, "on_stdout": print}
    with Sandbox.create("base") as sandbox, pytest.raises(InvalidRequest, match="tells nobody"):
        sandbox.commands.run("true", **given)


def test_a_paused_sandbox_says_so() -> None:
    with Sandbox.create("base") as sandbox:
        sandbox.pause()
        with pytest.raises(Conflict, match="paused"):
            list(sandbox.commands.stream("true"))
        assert not sandbox.is_healthy()
        sandbox.resume()
        assert sandbox.is_healthy()


def _result(events: list[ExecutionEvent]) -> Execution:
    last = events[-1]
    assert isinstance(last, ResultEvent)
    assert [isinstance(event, ResultEvent) for event in events].count(True) == 1
    return last.result


def test_files_and_directories_are_read_in_parts() -> None:
    with Sandbox.create("base") as sandbox:
        sandbox.files.write("/tmp/parts/a.txt", "h\u00e9llo")
        sandbox.files.write("/tmp/parts/b.txt", "")
        part = sandbox.files.read_range("/tmp/parts/a.txt", offset=1, limit=3)
        assert (part.content, part.encoding, part.size) == ("\u00e9l", "utf-8", 6)
        cut = sandbox.files.read_range("/tmp/parts/a.txt", limit=2)
        assert (cut.content, cut.encoding) == ("aMM=", "base64")
        assert (sandbox.files.read_range("/tmp/parts/a.txt", offset=99, limit=5)).content == ""
        first = sandbox.files.list_page("/tmp/parts", limit=1)
        assert ([entry.name for entry in first.files], first.truncated, first.next_offset) == (["a.txt"], True, 1)
        last = sandbox.files.list_page("/tmp/parts", offset=1, limit=1)
        assert ([entry.name for entry in last.files], last.truncated) == (["b.txt"], False)
        for bad in (-1, 2**60, True):
            with pytest.raises(InvalidRequest, match="offset"):
                sandbox.files.read_range("/tmp/parts/a.txt", offset=bad, limit=1)


@pytest.mark.parametrize("watched", [False, True])
def test_the_output_of_a_command_is_capped(watched: bool) -> None:
    pieces: list[str] = []
    with Sandbox.create("base") as sandbox:
        result = sandbox.commands.run("seq 1000", max_output_bytes=100, on_stdout=pieces.append if watched else None)
        assert result.stdout_truncated
        assert result.stdout_file is not None
        assert result.stdout.startswith("1\n2\n")
        assert len(result.stdout) < 400
        whole = sandbox.files.read(result.stdout_file)
    assert whole == "".join(f"{number}\n" for number in range(1, 1001))
    assert bool(pieces) is watched
