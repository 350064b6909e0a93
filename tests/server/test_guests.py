"""Setting variables inside a sandbox whose agent may answer anything, or nothing."""

import asyncio
import json
from pathlib import Path

import pytest

from cove.models.errors import CoveError
from cove.models.hosts import HostState, SandboxRecord
from cove.models.isolation import Isolation
from cove.models.limits import Limits
from cove.server.guests import AgentEnvironment

pytestmark = pytest.mark.anyio


def record(path: Path) -> SandboxRecord:
    return SandboxRecord(
        sandbox_id="1763382095i648uu1o",
        template="base",
        isolation=Isolation.FAKE,
        limits=Limits(),
        state=HostState.RUNNING,
        socket_path=str(path),
        pid=1,
        pid_started=0,
        created=0.0,
    )


class Agent:
    """Answers each connection with the same bytes and notes what it was sent."""

    def __init__(self, path: Path, answer: bytes | None) -> None:
        self.path = path
        self.answer = answer
        self.body: object = None
        self.server: asyncio.Server | None = None

    async def __aenter__(self) -> "Agent":
        self.server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.server is not None
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.body = json.loads(await reader.readexactly(length) or b"null")
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


async def test_variables_arrive_as_they_are(socket_dir: Path) -> None:
    variables = {"A": "1", "EMPTY": "", "ODD": 'ü "quoted"\nline'}
    async with Agent(socket_dir / "a", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as agent:
        await AgentEnvironment().merge(record(agent.path), variables)
    assert agent.body == {"env_vars": variables}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 500 Oh\r\n\r\n",
        b"HTTP/1.1 302 Go\r\nLocation: http://169.254.169.254/\r\n\r\n",
        b"HTTP/1.1 200",
        b"garbage\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
        b"A" * 1_000_000,
        None,
    ],
)
async def test_anything_but_a_plain_yes_is_a_no_within_bounds(socket_dir: Path, answer: bytes | None) -> None:
    async with Agent(socket_dir / "a", answer) as agent, asyncio.timeout(5):
        with pytest.raises(CoveError) as caught:
            await AgentEnvironment(call_seconds=0.3).merge(record(agent.path), {"A": "hush"})
    assert caught.value.code == "AGENT_UNREACHABLE"
    assert "hush" not in str(caught.value)


async def test_an_agent_that_is_not_there(socket_dir: Path) -> None:
    with pytest.raises(CoveError) as caught:
        await AgentEnvironment().merge(record(socket_dir / "nobody"), {"A": "1"})
    assert caught.value.code == "AGENT_UNREACHABLE"


def says(body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body)


async def test_variables_are_read_as_they_are(socket_dir: Path) -> None:
    variables = {"A": "1", "EMPTY": "", "ODD": 'ü "quoted"\nline', "BIG": "\x01" * 100_000}
    async with Agent(socket_dir / "a", says(json.dumps({"env_vars": variables, "count": 3}).encode())) as agent:
        assert await AgentEnvironment().variables(agent.path) == variables


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b'HTTP/1.1 500 Oh\r\nContent-Length: 15\r\n\r\n{"env_vars": {}}',
        says(b"{"),
        says(b"[]"),
        says(b'{"env_vars": {"A": 1}}'),
        says(b'{"env_vars": {"A=B": "x"}}'),
        says(b'{"env_vars": {"A": "\\u0000"}}'),
        says(json.dumps({"env_vars": {f"A{number}": "" for number in range(1001)}}).encode()),
        says(json.dumps({"env_vars": {"A": "x" * 300_000}}).encode()),
        says(b"", length=10**11),
        says(b"{", length=100),
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
        None,
    ],
)
async def test_variables_that_a_client_could_not_set_are_not_taken(socket_dir: Path, answer: bytes | None) -> None:
    async with Agent(socket_dir / "a", answer) as agent, asyncio.timeout(5):
        with pytest.raises(CoveError) as caught:
            await AgentEnvironment(call_seconds=0.3).variables(agent.path)
    assert caught.value.code == "AGENT_UNREACHABLE"
