"""Executions over HTTP: results are answers, and nobody runs for a client that has gone."""

import asyncio
import math
from typing import TYPE_CHECKING

import pytest

from cove.models.execution import CommandRequest, ExecuteRequest, ExecutionResult, RichOutput

if TYPE_CHECKING:
    from conftest import RunningAgent

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/execute", "/execute/rich", "/execute/ipython"])
async def test_a_program_runs(agent: "RunningAgent", path: str) -> None:
    answer = await agent.client.post(path, json={"code": "print('hi')"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["stdout"], body["exit_code"], body["success"]) == ("hi\n", 0, True)
    assert ("rich_outputs" in body) is (path == "/execute/rich")
    assert "json" in body
    assert "error" not in body


async def test_a_failing_program_is_a_result(agent: "RunningAgent") -> None:
    answer = await agent.client.post("/execute", json={"code": "1/0"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["exit_code"], body["success"]) == (1, False)
    assert "ZeroDivisionError" in body["stderr"]


async def test_a_command_runs(agent: "RunningAgent") -> None:
    shell = await agent.client.post("/commands/run", json={"command": "echo a; exit 3"})
    assert (shell.json()["stdout"], shell.json()["exit_code"]) == ("a\n", 3)
    direct = await agent.client.post("/commands/run", json={"command": "echo", "args": ["a b"]})
    assert direct.json()["stdout"] == "a b\n"


@pytest.mark.parametrize("field", ["workdir", "working_dir"])
async def test_both_names_of_the_working_directory(agent: "RunningAgent", field: str) -> None:
    await agent.client.post("/execute", json={"code": "1", field: "/tmp"})
    await agent.client.post("/commands/run", json={"command": "true", field: None})
    first, second = agent.engine.requests
    assert isinstance(first, ExecuteRequest)
    assert isinstance(second, CommandRequest)
    assert (first.workdir, second.workdir) == ("/tmp", "")


@pytest.mark.parametrize("name", ["py", "python3", "Python", "sh", "shell"])
async def test_aliases_of_languages_pass(agent: "RunningAgent", name: str) -> None:
    agent.engine.answer = ExecutionResult()
    assert (await agent.client.post("/execute", json={"code": "1", "language": name})).status_code == 200


async def test_results_that_json_cannot_carry(agent: "RunningAgent") -> None:
    agent.engine.answer = ExecutionResult(
        stdout="lone \ud800 surrogate",
        json={"nan": math.nan, "inf": [math.inf, 1.5], "text\udfff": True},
        rich_outputs=(RichOutput(type="text/plain", data={"text/plain": "\ud800"}),),
    )
    answer = await agent.client.post("/execute/rich", json={"code": "1"})
    assert answer.status_code == 200
    assert answer.json()["stdout"] == "lone ? surrogate"
    assert answer.json()["json"] == {"nan": None, "inf": [None, 1.5], "text?": True}


async def test_numbers_that_json_cannot_carry(agent: "RunningAgent") -> None:
    agent.engine.answer = ExecutionResult(json={"nan": math.nan}, dataframe={"data": [[math.inf]]})
    answer = await agent.client.post("/execute", json={"code": "1"})
    assert answer.json()["json"] == {"nan": None}
    assert answer.json()["dataframe"] == {"data": [[None]]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/execute", b'{"language": "bash", "code": "exec sleep 1000"}'),
        ("/commands/run", b'{"command": "exec sleep 1000"}'),
    ],
)
async def test_the_program_ends_when_the_client_goes(agent: "RunningAgent", path: str, body: bytes) -> None:
    _, writer = await asyncio.open_unix_connection(agent.address)
    writer.write(f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    await asyncio.wait_for(agent.engine.running.wait(), 10)
    assert agent.engine.active == 1
    writer.close()
    await asyncio.wait_for(agent.engine.ended.wait(), 10)
    assert agent.engine.active == 0
    assert (await agent.client.get("/health")).status_code == 200


async def test_others_are_answered_while_a_program_runs(agent: "RunningAgent") -> None:
    running = asyncio.create_task(
        agent.client.post("/commands/run", json={"command": "read -t 20 < <(:)", "timeout": 20})
    )
    await asyncio.wait_for(agent.engine.running.wait(), 10)
    assert (await agent.client.get("/health")).status_code == 200
    assert (await asyncio.wait_for(running, 25)).status_code == 200


async def test_one_connection_serves_many_requests(agent: "RunningAgent") -> None:
    reader, writer = await asyncio.open_unix_connection(agent.address)
    try:
        for number in range(20):
            body = f'{{"code": "print({number})"}}'.encode()
            agent.engine.answer = ExecutionResult(stdout=str(number))
            writer.write(b"POST /execute HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            answer = await asyncio.wait_for(reader.readexactly(length), 10)
            assert f'"stdout":"{number}"'.encode() in answer
    finally:
        writer.close()


async def test_jupyter_sessions(agent: "RunningAgent") -> None:
    sessions = (await agent.client.get("/jupyter/sessions")).json()["sessions"]
    assert [session["kernel_id"] for session in sessions] == ["python"]
    assert sessions[0]["execution_state"] == "idle"
