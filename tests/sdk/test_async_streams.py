"""Streams of events and background programs against a server that follows a script."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cove import AsyncSandbox
from cove.models.errors import CoveError, InvalidRequest, LimitExceeded, PlatformFailure
from cove.models.processes import ProcessStatus
from cove.sdk import ResultEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.sdk.conftest import Planes, ScriptedServer

pytestmark = pytest.mark.anyio  # async only

STARTED = {"process_id": "proc_1", "execution_id": "exec_1", "start_time": "", "message": ""}
PROCESS = {"process_id": "proc_1", "execution_id": "exec_1", "start_time": "", "started_at": "", "language": "python"}


@pytest.fixture
async def sandbox(planes: Planes, scripted: ScriptedServer) -> AsyncIterator[AsyncSandbox]:
    """A sandbox whose agent is the scripted server."""
    connected = await AsyncSandbox.connect(planes.add(public_host=scripted.url)["id"])
    yield connected
    await connected.aclose()


def _chunked(*pieces: bytes, ended: bool = True) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + (b"" if ended else b"Connection: close\r\n") + b"\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head + body + (b"0\r\n\r\n" if ended else b"")


def _line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


async def test_events_are_found_however_the_bytes_are_cut(sandbox: AsyncSandbox, scripted: ScriptedServer) -> None:
    whole = _line(type="stdout", data="é") + _line(type="news") + b"\n" + _line(type="result", exit_code=2)
    scripted.raw(_chunked(*(whole[position : position + 1] for position in range(len(whole)))))
    events = [event async for event in sandbox.run_code_stream("x")]
    assert [event.type for event in events] == ["stdout", "result"]
    last = events[-1]
    assert isinstance(last, ResultEvent)
    assert last.result.exit_code == 2


async def test_an_error_in_the_stream_is_raised(sandbox: AsyncSandbox, scripted: ScriptedServer) -> None:
    scripted.raw(_chunked(_line(type="error", code="RESOURCE_LIMIT_EXCEEDED", message="full", remedy="wait")))
    with pytest.raises(LimitExceeded, match="full wait"):
        await sandbox.run_code("x", on_stdout=print)


@pytest.mark.parametrize(
    "answer",
    [
        _chunked(_line(type="stdout", data="a")),
        _chunked(_line(type="stdout", data="a"), ended=False),
        _chunked(b'{"type":"result","exit_co'),
    ],
)
async def test_a_stream_that_breaks_off_is_not_asked_for_again(
    sandbox: AsyncSandbox, scripted: ScriptedServer, answer: bytes
) -> None:
    scripted.raw(answer)
    with pytest.raises(PlatformFailure) as caught:
        await sandbox.run_code("x", on_stdout=print)
    assert caught.value.code == "NETWORK_ERROR"
    assert len([request for request in scripted.requests if b"/execute/events" in request]) == 1


@pytest.mark.parametrize(
    "line", [b"no json\n", b"[]\n", b'{"type":"stdout","data":1}\n', b'{"type":"result","exit_code":"x"}\n']
)
async def test_what_is_no_event(sandbox: AsyncSandbox, scripted: ScriptedServer, line: bytes) -> None:
    scripted.raw(_chunked(line))
    with pytest.raises(PlatformFailure):
        [event async for event in sandbox.run_code_stream("x")]


async def test_a_program_is_started_in_the_background_once(sandbox: AsyncSandbox, scripted: ScriptedServer) -> None:
    scripted.hang_up()
    scripted.answer(200, STARTED)
    process = await sandbox.run_code_background("x", name="n", env={"A": "b"}, working_dir="/tmp", timeout=9)
    assert (process.id, process.status, process.info) == ("proc_1", ProcessStatus.RUNNING, None)
    first, second = (json.loads(request.split(b"\r\n\r\n", 1)[1]) for request in scripted.requests)
    assert first == second
    assert first.pop("execution_id").startswith("exec_")
    assert first == {
        "code": "x",
        "language": "python",
        "timeout": 9.0,
        "workdir": "/tmp",
        "env": {"A": "b"},
        "name": "n",
        "max_output_bytes": 1024 * 1024,
    }


async def test_a_command_is_not_started_twice(sandbox: AsyncSandbox, scripted: ScriptedServer) -> None:
    scripted.hang_up()
    scripted.answer(200, STARTED)
    with pytest.raises(PlatformFailure, match="lost"):
        await sandbox.commands.run("x", background=True)
    assert len(scripted.requests) == 1


async def test_a_signal_is_not_sent_twice_but_an_end_is(sandbox: AsyncSandbox, scripted: ScriptedServer) -> None:
    scripted.hang_up()
    with pytest.raises(PlatformFailure, match="lost"):
        await sandbox.kill_process("proc_1", "INT")
    scripted.hang_up()
    scripted.answer(200, {"message": "", "process_id": "proc_1", "timestamp": ""})
    assert (await sandbox.kill_process("proc_1")).process_id == "proc_1"
    assert len(scripted.requests) == 3


async def test_an_asynchronous_execution(sandbox: AsyncSandbox, scripted: ScriptedServer) -> None:
    scripted.answer(200, {"execution_id": "exec_1", "callback_url": "http://x", "message": "", "timestamp": ""})
    accepted = await sandbox.run_code_async(
        "x", "http://x", callback_headers={"A": "b"}, callback_signature_secret="s", working_dir="/tmp"
    )
    assert (accepted.execution_id, accepted.status) == ("exec_1", "queued")
    body = json.loads(scripted.requests[0].split(b"\r\n\r\n", 1)[1])
    assert (body["callback_headers"], body["callback_signature_secret"]) == ({"A": "b"}, "s")
    assert (body["timeout"], body["workdir"]) == (1800.0, "/tmp")
    for headers in ({"Host": "x"}, {"A": "b\r\nC: d"}):
        with pytest.raises(InvalidRequest, match="callback_headers"):
            await sandbox.run_code_async("x", "http://x", callback_headers=headers)


async def test_a_process_that_the_agent_keeps_no_result_of(sandbox: AsyncSandbox, scripted: ScriptedServer) -> None:
    scripted.answer(200, PROCESS | {"status": "running"})
    process = await sandbox.get_process("proc_1")
    scripted.answer(200, PROCESS | {"status": "failed", "exit_code": 4, "stdout": "tail"})
    result = await process.wait()
    assert (result.exit_code, result.success, result.stdout) == (4, False, "tail")
    assert (process.status, process.exit_code) == (ProcessStatus.FAILED, 4)


async def test_logs_of_an_agent_that_stands_still(sandbox: AsyncSandbox, scripted: ScriptedServer) -> None:
    scripted.answer(200, PROCESS | {"status": "running"})
    process = await sandbox.get_process("proc_1")
    part = {
        "process_id": "proc_1",
        "stream": "stdout",
        "text": "a",
        "offset": 0,
        "status": "running",
        "complete": False,
    }
    scripted.answer(200, part | {"next_offset": 1})
    scripted.answer(200, part | {"next_offset": 1, "text": ""})
    assert await process.logs() == "a"
    with pytest.raises(InvalidRequest, match="stdout or stderr"):
        await process.logs("stdlog")


@pytest.mark.parametrize("process_id", ["", ".", "..", "x" * 201])
async def test_what_is_no_process_id_reaches_no_agent(
    sandbox: AsyncSandbox, scripted: ScriptedServer, process_id: str
) -> None:
    with pytest.raises(InvalidRequest, match="not the id"):
        await sandbox.kill_process(process_id)
    with pytest.raises(InvalidRequest, match="not the id"):
        await sandbox.get_process(process_id)
    assert scripted.requests == []


async def test_a_process_id_stays_one_part_of_the_path(sandbox: AsyncSandbox, scripted: ScriptedServer) -> None:
    scripted.answer(404, {"error": "x", "code": "PROCESS_NOT_FOUND"})
    with pytest.raises(CoveError):
        await sandbox.get_process("a/../b?c=d#e")
    assert scripted.requests[0].startswith(b"GET /execute/processes/a%2F..%2Fb%3Fc%3Dd%23e HTTP/1.1\r\n")
