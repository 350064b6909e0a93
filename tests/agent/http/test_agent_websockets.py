"""The WebSocket protocol of the agent: handshakes, frames right and wrong, clients that are gone."""

import asyncio
import json
import os
import re
import select
import shutil
import socket
import time
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.agent.conftest import AgentProcess
from tests.agent.websocket_clients import Client, RawClient, eventually, resident_bytes, websocket
from websockets.exceptions import InvalidStatus
from websockets.frames import Opcode

from cove.agent.app import WEBSOCKETS, build_app
from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.executor import Executor
from cove.agent.execution.reaper import Reaper
from cove.agent.http.server import AgentServer
from cove.agent.http.websocket import Liveness, WebSocket
from cove.agent.http.websocket_routes import MAX_WEBSOCKETS, WebSockets
from cove.agent.state import AgentState
from cove.models.agent import AgentBoot
from cove.models.frames import MAX_FRAME_BYTES, PACE_SECONDS

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
GOOD = f"Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n{KEY}"


@pytest.fixture
def process(shared_process: AgentProcess) -> AgentProcess:
    return shared_process


def asked(address: str, start: str, lines: str, rest: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Status, fields and the rest of what comes for a request, until the agent closes or for an upgrade."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(address)
        head = "\r\n".join([start, "Host: agent", *lines.splitlines(), "", ""])
        sock.sendall(head.encode() + rest)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(65536)
        first, _, tail = answer.partition(b"\r\n\r\n")
        status, *fields = first.decode().split("\r\n")
        named = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        while status.split()[1] != "101" and (data := sock.recv(65536)):
            tail += data
        if status.split()[1] == "101" and rest and not tail:
            tail += sock.recv(65536)
    return int(status.split()[1]), named, tail


def test_the_answer_to_a_handshake(process: AgentProcess) -> None:
    status, fields, _ = asked(process.address, "GET /execute/stream HTTP/1.1", GOOD)
    assert status == 101
    # The example of RFC 6455, section 1.3.
    assert fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert fields["upgrade"] == "websocket"
    assert fields["x-request-id"]


def test_compression_is_not_accepted(process: AgentProcess) -> None:
    lines = GOOD + "\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    status, fields, _ = asked(process.address, "GET /terminal HTTP/1.1", lines)
    assert (status, fields.get("sec-websocket-extensions")) == (101, None)


@pytest.mark.parametrize(
    ("start", "lines", "status", "code"),
    [
        ("GET /no/such HTTP/1.1", GOOD, 404, "RESOURCE_NOT_FOUND"),
        ("GET /execute HTTP/1.1", GOOD, 405, "METHOD_NOT_ALLOWED"),
        ("GET /terminal HTTP/1.1", "Connection: close", 400, "INVALID_REQUEST"),
        ("GET /execute/stream HTTP/1.1", "Connection: close", 400, "INVALID_REQUEST"),
        ("GET /files/watch HTTP/1.1", "Connection: Upgrade\nUpgrade: h2c", 400, "INVALID_REQUEST"),
        ("POST /execute/stream HTTP/1.1", GOOD, 400, "INVALID_REQUEST"),
        ("GET /execute/stream HTTP/1.0", GOOD, 400, "INVALID_REQUEST"),
        ("GET /execute/stream HTTP/1.1", GOOD.replace("13", "8"), 400, "INVALID_REQUEST"),
        ("GET /execute/stream HTTP/1.1", GOOD.replace(KEY, ""), 400, "INVALID_REQUEST"),
        ("GET /execute/stream HTTP/1.1", f"{GOOD}\n{KEY}", 400, "INVALID_REQUEST"),
        ("GET /execute/stream HTTP/1.1", GOOD.replace("dGhl", "####"), 400, "INVALID_REQUEST"),
        ("GET /terminal?cols=0 HTTP/1.1", GOOD, 400, "INVALID_REQUEST"),
        ("GET /terminal?rows=1000000000 HTTP/1.1", GOOD, 400, "INVALID_REQUEST"),
        ("GET /terminal?cols=%C2%B2 HTTP/1.1", GOOD, 400, "INVALID_REQUEST"),
        ("GET /terminal?session=term_none HTTP/1.1", GOOD, 404, "RESOURCE_NOT_FOUND"),
        ("GET /terminal?" + "a=1&" * 21 + " HTTP/1.1", GOOD, 400, "INVALID_REQUEST"),
    ],
)
def test_what_is_refused_is_refused_as_http(
    process: AgentProcess, start: str, lines: str, status: int, code: str
) -> None:
    got, fields, body = asked(process.address, start, lines.replace("\n\n", "\n").strip())
    assert (got, json.loads(body)["code"]) == (status, code), body
    assert fields["content-type"] == "application/json"
    assert json.loads(body)["error"]
    assert fields.get("connection") == "close"
    assert process.client.get("/health").json()["active_streams"] == 0


def test_a_handshake_behind_an_unanswered_request_is_refused(process: AgentProcess) -> None:
    body = b'{"command": "sleep 0.2"}'
    head = f"Content-Type: application/json\nContent-Length: {len(body)}"
    second = "\r\n".join(["GET /terminal HTTP/1.1", "Host: agent", *GOOD.splitlines(), "", ""]).encode()
    status, _, answer = asked(process.address, "POST /commands/run HTTP/1.1", head, body + second)
    assert status == 400
    assert json.loads(answer)["code"] == "INVALID_REQUEST"


def test_frames_right_behind_the_handshake_are_not_lost(process: AgentProcess) -> None:
    frame = bytes([0x89, 0x80 | 4, 0, 0, 0, 0]) + b"ping"
    status, _, rest = asked(process.address, "GET /execute/stream HTTP/1.1", GOOD, frame)
    assert (status, rest) == (101, bytes([0x8A, 4]) + b"ping")


async def test_handshakes_are_counted(process: AgentProcess) -> None:
    before = process.client.get("/metrics/snapshot").json()["total_requests"]
    async with websocket(process.address, "/execute/stream"):
        after = process.client.get("/metrics/snapshot").json()
    assert after["total_requests"] - before == 2


async def test_pings_are_answered(process: AgentProcess) -> None:
    async with websocket(process.address, "/execute/stream") as client, asyncio.timeout(10):
        await (await client.connection.ping(b"are you there?"))


def test_a_close_is_confirmed_with_its_code(process: AgentProcess) -> None:
    with RawClient(process.address, "/files/watch") as client:
        client.send_frame(Opcode.CLOSE, (4321).to_bytes(2, "big") + b"bye")
        client.read_until_closed(obey=False)
        assert client.close_code == 4321


def deflated(text: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(text) + squeeze.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes([0x81, 5]) + b"naked", 1002),  # not masked
        (bytes([0x83, 0x80, 0, 0, 0, 0]), 1002),  # no such opcode
        (bytes([0x80, 0x80, 0, 0, 0, 0]), 1002),  # continues nothing
        (bytes([0x89, 0xFE, 0, 126, 0, 0, 0, 0]) + bytes(126), 1002),  # too long a ping
        (bytes([0xC1, 0x80 | 9, 0, 0, 0, 0]) + deflated(b"a" * 10**6)[:9], 1002),  # compressed
        (bytes([0x81, 0x82, 0, 0, 0, 0, 0xFF, 0xFE]), 1007),  # not UTF-8
        (bytes([0x81, 0xFF]) + (MAX_FRAME_BYTES + 1).to_bytes(8, "big") + bytes(4), 1009),
        (bytes([0x81, 0xFF]) + (2**62).to_bytes(8, "big") + bytes(4), 1009),
    ],
)
def test_broken_frames_close_the_connection(process: AgentProcess, data: bytes, code: int) -> None:
    with RawClient(process.address, "/execute/stream") as client:
        client.socket.sendall(data)
        client.read_until_closed(obey=False)
        assert client.close_code == code


def test_a_message_in_pieces_has_the_same_limit(process: AgentProcess) -> None:
    before = resident_bytes(process.pid)
    with RawClient(process.address, "/execute/stream") as client:
        client.send_frame(Opcode.TEXT, b"x" * (MAX_FRAME_BYTES - MIB), fin=False)
        client.send_frame(Opcode.CONT, b"x" * MIB, fin=False)
        client.send_frame(Opcode.CONT, b"x", fin=True)
        client.read_until_closed(obey=False)
        assert client.close_code == 1009
    assert resident_bytes(process.pid) - before < 80 * MIB


async def test_a_message_in_pieces_is_one(process: AgentProcess) -> None:
    async with websocket(process.address, "/execute/stream") as client:
        await client.connection.send(['{"code": "echo ', "\N{SNOWMAN}", '", "language": "bash"}'])
        assert (await client.receive())["data"] == "\N{SNOWMAN}\n"


async def test_there_is_a_limit_of_open_ones(process: AgentProcess) -> None:
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(websocket(process.address, "/commands/stream"))
            for _ in range(MAX_WEBSOCKETS)
        ]
        assert process.client.get("/health").json()["active_streams"] == MAX_WEBSOCKETS
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(websocket(process.address, "/commands/stream"))
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["code"] == "RESOURCE_LIMIT_EXCEEDED"
        assert process.execute("print(1)")["stdout"] == "1\n"
        await opened[0].connection.close()
        await eventually(lambda: process.client.get("/health").json()["active_streams"] < MAX_WEBSOCKETS)
        await stack.enter_async_context(websocket(process.address, "/commands/stream"))
    await eventually(lambda: process.client.get("/health").json()["active_streams"] == 0)


@asynccontextmanager
async def listening(
    tmp_path: Path, liveness: Liveness, sockets: WebSockets | None = None
) -> AsyncGenerator[tuple[str, AgentState]]:
    """An agent in this process, with less patience."""
    boot = AgentBoot(sandbox_id="1763382095i648uu1o", template="base", isolation="none", workspace=str(tmp_path))
    environment = SandboxEnvironment({"PATH": os.environ["PATH"]}, {})
    reaper = Reaper()
    reaper.start()
    executor = Executor(boot, environment, reaper=reaper)
    app = build_app(boot, executor, environment, reaper=reaper)
    state: AgentState = app.state.agent
    state.sockets = sockets or WebSockets(WEBSOCKETS, liveness=liveness)
    address = f"\0cove-test-{os.getpid()}-{time.monotonic_ns()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(16)
    server = AgentServer(app, listener)
    await server.start()
    try:
        yield address, state
    finally:
        await server.close(grace=5)
        await state.close()
        await executor.close()


async def until_closed(client: RawClient, *, obey: bool) -> None:
    await asyncio.to_thread(client.read_until_closed, obey=obey)


async def test_who_does_not_answer_pings_is_gone(tmp_path: Path) -> None:
    liveness = Liveness(ping_seconds=0.1)
    async with listening(tmp_path, liveness) as (address, state), websocket(address, "/files/watch") as living:
        client = await asyncio.to_thread(RawClient, address, "/files/watch")
        with client:
            began = time.monotonic()
            await until_closed(client, obey=False)
            assert client.close_code == 1011
            assert 0.1 <= time.monotonic() - began < 5
        await eventually(lambda: state.sockets.count == 1)
        # The other one has answered, as often as it was asked.
        assert living.connection.close_code is None
        await (await living.connection.ping())


async def test_who_takes_nothing_is_gone_after_a_while(tmp_path: Path) -> None:
    liveness = Liveness(ping_seconds=0.1, stall_seconds=0.5)
    async with listening(tmp_path, liveness) as (address, state):
        began = time.monotonic()
        client = await asyncio.to_thread(RawClient, address, "/terminal?command=yes")
        with client:
            await eventually(lambda: state.sockets.count == 0)
            assert time.monotonic() - began >= 0.5


async def test_who_cannot_be_heard_is_not_asked(tmp_path: Path) -> None:
    """What a program does not read stays with the client: it cannot answer pings until then, and need not."""
    liveness = Liveness(ping_seconds=0.1)
    async with listening(tmp_path, liveness) as (address, state):
        query = f"/terminal?command=stty raw -echo; until [ -e {tmp_path}/go ]; do sleep 0.02; done; cat >/dev/null"
        async with websocket(address, query.replace(" ", "%20")) as client:
            typing = asyncio.create_task(_type_much(client))
            pending, _ = await asyncio.wait([typing], timeout=0.5)
            assert not pending
            assert state.sockets.count == 1
            (tmp_path / "go").touch()
            async with asyncio.timeout(20):
                await typing


async def _type_much(client: Client) -> None:
    for _ in range(100):
        frame: dict[str, Any] = {"type": "input", "data": "x" * 100_000}
        await client.send(**frame)


class Recorder(asyncio.Transport):
    """Notes when the agent sends a text frame."""

    def __init__(self, transport: asyncio.Transport, sent: list[tuple[float, str]]) -> None:
        super().__init__()
        self._transport = transport
        self._sent = sent

    def write(self, data: Any) -> None:
        now = time.monotonic()
        if data[0] == 0x81:
            self._sent.append((now, re.findall(rb'"type":"(\w+)"', bytes(data))[0].decode()))
        self._transport.write(data)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


class RecordedSockets(WebSockets):
    sent: list[tuple[float, str]]

    def open(self, transport: asyncio.Transport, on_lost: Callable[[WebSocket], None]) -> WebSocket:
        return super().open(Recorder(transport, self.sent), on_lost)


SCRIPT = "for i in {1..150}; do echo $i; echo $i >&2; sleep 0.001; done"


@pytest.mark.parametrize(
    ("path", "first", "ending"),
    [
        ("/execute/stream", {"code": SCRIPT, "language": "bash"}, ["result", "complete"]),
        ("/commands/stream", {"command": SCRIPT}, ["result", "complete"]),
        ("/execute/stream", {"code": "exit 1", "language": "bash"}, ["result", "complete"]),
        ("/execute/stream", {"code": "1", "language": "cobol"}, ["error", "complete"]),
        (f"/terminal?command={quote(SCRIPT)}", {}, ["output", "exit"]),
        ("/terminal?command=exit&session=new", {}, ["session", "exit"]),
        ("/files/watch?ready=1", {"action": "watch", "path": "watched"}, ["change", "change"]),
    ],
)
async def test_frames_keep_their_distance(tmp_path: Path, path: str, first: dict[str, Any], ending: list[str]) -> None:
    """A client exists that loses what arrives together, and then waits for ever."""
    sockets = RecordedSockets(WEBSOCKETS)
    sockets.sent = []
    (tmp_path / "watched").mkdir()
    received: list[dict[str, Any]] = []
    async with listening(tmp_path, Liveness(), sockets) as (address, _), websocket(address, path) as client:
        if first:
            await client.send(**first)
        if first.get("action"):
            received.append(await client.receive())
            for number in range(50):
                (tmp_path / "watched" / str(number)).touch()
            shutil.rmtree(tmp_path / "watched")
        received += await client.rest()
    assert [kind for _, kind in sockets.sent] == [frame["type"] for frame in received]
    assert [kind for _, kind in sockets.sent[-2:]] == ending
    gaps = [after[0] - before[0] for before, after in pairwise(sockets.sent)]
    assert min(gaps) >= PACE_SECONDS


def test_the_end_waits_for_a_client_that_is_slow_to_read(process: AgentProcess) -> None:
    """Its answers to pings say what it has read."""
    with RawClient(process.address, "/execute/stream") as client:
        client.send(code="print(1)")
        kinds: dict[str, float] = {}
        while "complete" not in kinds:
            client.read()
            at, frames = client.arrivals[-1]
            texts = [json.loads(bytes(frame.data)) for frame in frames if frame.opcode is Opcode.TEXT]
            assert len(texts) <= 1
            for frame in texts:
                kinds[frame["type"]] = at
                # A client whose process does not run for a while.
                select.select([], [], [], 0.1)
            client.flush()
        times = list(kinds.values())
        assert list(kinds) == ["stdout", "result", "complete"]
        assert all(after - before >= 0.1 for before, after in pairwise(times))


def test_who_never_answers_is_not_waited_for_long(process: AgentProcess) -> None:
    with RawClient(process.address, "/execute/stream") as client:
        client.send(code="print(1)")
        began = time.monotonic()
        client.read_until_closed(obey=False)
        assert 0.4 < time.monotonic() - began < 10
