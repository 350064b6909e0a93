"""Connections to programs of the sandbox, passed as descriptors."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from tests.agent.http.conftest import RunningAgent

SECONDS = 10.0


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "0.0.0.0")])
def program(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family, address = request.param
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen()
        listener.settimeout(SECONDS)
        yield listener


def _asked(agent: RunningAgent, target: str, *, fields: str = "") -> tuple[bytes, list[int]]:
    """What comes back for a request for a socket; the descriptors are the caller's."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(SECONDS)
        channel.connect(agent.address)
        head = f"GET {target} HTTP/1.1\r\nhost: agent\r\nconnection: upgrade\r\nupgrade: cove-socket\r\n{fields}\r\n"
        channel.sendall(head.encode())
        data, descriptors, _, _ = socket.recv_fds(channel, 4096, 4)
        while more := channel.recv(4096):
            data += more
        return data, list(descriptors)


async def asked(agent: RunningAgent, target: str, *, fields: str = "") -> tuple[bytes, list[int]]:
    return await asyncio.to_thread(_asked, agent, target, fields=fields)


@pytest.mark.anyio
async def test_the_descriptor_is_a_connection_to_the_program(agent: RunningAgent, program: socket.socket) -> None:
    port = program.getsockname()[1]
    answer, descriptors = await asked(agent, f"/ports/{port}/socket")
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert len(descriptors) == 1
    with socket.socket(fileno=descriptors[0]) as ours, contextlib.closing(program.accept()[0]) as theirs:
        ours.settimeout(SECONDS)
        theirs.settimeout(SECONDS)
        ours.sendall(b"question")
        assert theirs.recv(100) == b"question"
        theirs.sendall(b"answer")
        assert ours.recv(100) == b"answer"
        # The agent has kept no copy: the program sees the end of ours.
        ours.close()
        assert theirs.recv(100) == b""


@pytest.mark.anyio
async def test_nothing_listens(agent: RunningAgent) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        answer, descriptors = await asked(agent, f"/ports/{bound.getsockname()[1]}/socket")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b'"code": "PORT_NOT_OPEN"' in answer
    assert descriptors == []


@pytest.mark.anyio
async def test_a_program_that_does_not_accept_is_not_waited_for_long(agent: RunningAgent) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        answer, descriptors = await asked(agent, f"/ports/{listener.getsockname()[1]}/socket")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"does not accept" in answer
    assert descriptors == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "target", ["/ports/0/socket", "/ports/65536/socket", "/ports/080/socket", "/ports/x/socket", "/execute"]
)
async def test_what_names_no_port_is_refused(agent: RunningAgent, target: str) -> None:
    answer, descriptors = await asked(agent, target)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert descriptors == []


@pytest.mark.anyio
async def test_without_the_upgrade_it_is_no_path(agent: RunningAgent) -> None:
    answer = await agent.client.get("/ports/80/socket")
    assert answer.status_code == 404


OWN_KERNEL = pytest.mark.parametrize("agent", ["gvisor"], indirect=True)
CARRYING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: cove-stream\r\n\r\n"


async def carried(agent: RunningAgent, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(agent.address)
    writer.write(
        b"GET /ports/%d/socket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: cove-socket\r\n\r\n" % port
    )
    return reader, writer


@OWN_KERNEL
@pytest.mark.anyio
async def test_behind_its_own_kernel_the_agent_carries_the_bytes(agent: RunningAgent) -> None:
    much = bytes(range(256)) * 20_000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"first")  # before it was asked anything
        writer.write(await reader.read())  # until the asker's end
        writer.close()

    async with asyncio.timeout(SECONDS), await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        reader, writer = await carried(agent, server.sockets[0].getsockname()[1])
        assert await reader.readexactly(len(CARRYING)) == CARRYING
        assert await reader.readexactly(5) == b"first"
        writer.write(much)
        writer.write_eof()
        assert await reader.read() == much
        writer.close()


@OWN_KERNEL
@pytest.mark.anyio
async def test_a_program_sees_the_end_of_an_asker_that_goes(agent: RunningAgent) -> None:
    ended = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    async with asyncio.timeout(SECONDS), await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        reader, writer = await carried(agent, server.sockets[0].getsockname()[1])
        await reader.readexactly(len(CARRYING))
        writer.transport.abort()
        await ended.wait()


@OWN_KERNEL
@pytest.mark.anyio
async def test_an_asker_that_does_not_read_makes_the_program_wait(agent: RunningAgent) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
        writer.close()

    async with asyncio.timeout(SECONDS), await asyncio.start_server(flood, "127.0.0.1", 0) as server:
        reader, writer = await carried(agent, server.sockets[0].getsockname()[1])
        await reader.readexactly(len(CARRYING))
        before = -1
        while before != sent:
            before = sent
            await asyncio.to_thread(_answers, agent.address)  # many turns of the loop
        assert sent < 64 * 1024 * 1024
        writer.transport.abort()


def _answers(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        client.connect(address)
        for _ in range(20):
            client.sendall(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
            client.recv(65536)


@OWN_KERNEL
@pytest.mark.anyio
async def test_nothing_listens_behind_its_own_kernel(agent: RunningAgent) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        answer, _ = await asked(agent, f"/ports/{bound.getsockname()[1]}/socket")
    assert answer.startswith(b"HTTP/1.1 502 ")
