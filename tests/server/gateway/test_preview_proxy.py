"""Requests through a gateway to programs in sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

import pytest
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from tests.server.gateway import ports

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Harness, Start

pytestmark = pytest.mark.anyio

A = "1763382095aaaaaaaa"
B = "1763382095bbbbbbbb"
DOMAIN = "boxes.test"
MIB = 1024 * 1024


def web_application() -> Starlette:
    """A program as people write them."""

    async def echo(request: Request) -> Response:
        seen = {
            "method": request.method,
            "target": request.scope["raw_path"].decode(),
            "headers": [[k.decode(), v.decode("latin-1")] for k, v in request.scope["headers"]],
            "client": list(request.scope["client"]),
        }
        answer = JSONResponse(seen)
        answer.raw_headers += [
            (b"set-cookie", b"a=1; Domain=boxes.test; Path=/"),
            (b"set-cookie", b"b=2; domain=.boxes.test"),
            (b"set-cookie", b"__Host-cove-preview=of-the-program; Secure; Path=/"),
            (b"content-security-policy", b"default-src 'self'"),
            (b"clear-site-data", b'"cookies"'),
            (b"service-worker-allowed", b"/"),
            (b"location", b"/login"),
            (b"x-own", b"kept"),
        ]
        return answer

    async def size(request: Request) -> Response:
        return JSONResponse(sum([len(part) async for part in request.stream()]))

    async def empty(request: Request) -> Response:
        return Response(status_code=int(request.query_params["status"]), headers={"etag": '"x"'})

    async def events(request: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            yield "data: first\n\n"
            await asyncio.Event().wait()

        return StreamingResponse(parts(), media_type="text/event-stream")

    async def chat(ws: WebSocket) -> None:
        await ws.accept()
        async for message in ws.iter_bytes():
            await ws.send_bytes(message)

    return Starlette(
        routes=[
            Route("/size", size, methods=["POST"]),
            Route("/empty", empty),
            Route("/events", events),
            WebSocketRoute("/chat", chat),
            Route("/{rest:path}", echo, methods=["GET", "POST"]),
        ]
    )


@pytest.fixture(params=[ports.honest, ports.carrying], ids=["handed", "carried"])
async def world(start: Start, request: pytest.FixtureRequest) -> Harness:
    """A gateway with a domain, and a sandbox with an honest agent, of either kind."""
    gw = await start(domain=DOMAIN, max_agent_body_bytes=MIB)
    await gw.raw(gw.agent(A), request.param)
    return gw


@pytest.fixture
async def app(world: Harness) -> int:
    """Port of a web application in the sandbox."""
    return await ports.application(world, web_application())


def by_path(port: int, path: str = "/", *fields: str, method: str = "GET") -> bytes:
    lines = [f"{method} /sandboxes/{A}/ports/{port}{path} HTTP/1.1", "Host: localhost", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def by_host(port: int, path: str = "/", *fields: str, method: str = "GET") -> bytes:
    return (
        "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {port}-{A}.{DOMAIN}:8443", *fields]) + "\r\n\r\n"
    ).encode()


CREDENTIALS = (
    f"Authorization: Bearer ok.{A}.s",
    "X-API-Key: hopx_live_abcdefghijkl.mnop",
    "X-Forwarded-For: 6.6.6.6",
    "X-Forwarded-Host: evil",
    "Cookie: c=1",
    "X-Real-IP: 6.6.6.6",
)


async def test_a_program_at_a_host_name_of_its_own(world: Harness, app: int) -> None:
    reply = await world.ask(by_host(app, "/.vms.hopx.dev/a%20b?c", *CREDENTIALS))
    seen = json.loads(reply.body)
    headers = dict(seen["headers"])
    assert (reply.status, seen["target"]) == (200, "/a%20b")
    assert headers["host"] == headers["x-forwarded-host"] == f"{app}-{A}.{DOMAIN}:8443"
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert headers["cookie"] == "c=1"
    assert not {"authorization", "x-api-key", "x-real-ip", "x-forwarded-prefix"} & headers.keys()
    cookies = [line for line in reply.head.decode().split("\r\n") if line.lower().startswith("set-cookie")]
    assert [cookie.partition(": ")[2] for cookie in cookies] == ["a=1; Path=/", "b=2"]
    assert reply.headers["content-security-policy"] == "default-src 'self'"
    assert (reply.headers["location"], reply.headers["x-own"]) == ("/login", "kept")
    assert "clear-site-data" not in reply.headers


async def test_a_program_below_a_path(world: Harness, app: int) -> None:
    reply = await world.ask(by_path(app, "/x?y", *CREDENTIALS))
    seen = json.loads(reply.body)
    headers = dict(seen["headers"])
    assert (seen["target"], headers["x-forwarded-prefix"]) == ("/x", f"/sandboxes/{A}/ports/{app}")
    assert not {"authorization", "x-api-key", "cookie"} & headers.keys()
    assert not {"set-cookie", "clear-site-data", "service-worker-allowed"} & reply.headers.keys()
    policies = [line for line in reply.head.decode().split("\r\n") if line.lower().startswith("content-security-po")]
    assert len(policies) == 2
    assert "sandbox allow-scripts" in policies[1]
    assert "allow-same-origin" not in policies[1]
    assert reply.headers["location"] == f"/sandboxes/{A}/ports/{app}/login"


async def test_a_link_opens_a_preview_and_never_reaches_the_program(world: Harness, app: int) -> None:
    for request in (by_host, by_path):
        token = f"link.{A}-{app}.sig"
        opened = await world.ask(request(app, f"/x?cove_preview_token={token}", "Accept: text/html"))
        assert opened.status == 303
        cookie = opened.headers["set-cookie"].partition(";")[0]
        assert cookie == f"cove-preview={token}"
        referer = f"Referer: http://h/?cove_preview_token={token}"
        for fields in ((f"Cookie: c=1; {cookie}",), (f"X-Cove-Preview-Token: {token}", referer)):
            reply = await world.ask(request(app, f"/x?cove_preview_token={token}", *fields))
            assert reply.status == 200
            assert b"link." not in reply.body
            assert b"of-the-program" not in reply.head
        seen = json.loads((await world.ask(request(app, "/", f"Cookie: {cookie}; c=1"))).body)
        kept = [value for name, value in seen["headers"] if name == "cookie"]
        assert kept == (["c=1"] if request is by_host else [])


async def test_credentials_of_the_program_reach_it(world: Harness, app: int) -> None:
    for request in (by_host, by_path):
        reply = await world.ask(request(app, "/", "Authorization: Basic eDp5", "X-API-Key: mine"))
        headers = dict(json.loads(reply.body)["headers"])
        assert (headers["authorization"], headers["x-api-key"]) == ("Basic eDp5", "mine")


async def test_a_connection_is_kept_and_never_lent(world: Harness, app: int) -> None:
    one, two = await world.connect(), await world.connect()
    for client, dials in ((one, 1), (one, 1), (two, 2), (one, 2)):
        await client.send(by_path(app))
        assert (await client.reply()).status == 200
        assert world.accepted == {f"{A}.sock": dials}


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(world: Harness, app: int, status: int) -> None:
    client = await world.connect()
    for method in ("GET", "HEAD", "GET"):
        await client.send(by_host(app, f"/empty?status={status}", method=method))
        reply = await client.reply(method=method)
        assert (reply.status, reply.headers["etag"]) == (status, '"x"')


async def test_bodies_of_any_size_reach_the_program(world: Harness, app: int) -> None:
    size = 8 * MIB
    client = await world.connect()
    await client.send(by_path(app, "/size", f"Content-Length: {size}", method="POST") + bytes(size))
    assert json.loads((await client.reply()).body) == size
    chunk = b"%x\r\n%b\r\n" % (MIB, bytes(MIB))
    await client.send(by_path(app, "/size", "Transfer-Encoding: chunked", method="POST") + chunk * 8 + b"0\r\n\r\n")
    assert json.loads((await client.reply()).body) == size


async def test_the_first_event_comes_at_once(world: Harness, app: int) -> None:
    client = await world.connect()
    began = time.perf_counter()
    await client.send(by_host(app, "/events", "Accept: text/event-stream"))
    async with asyncio.timeout(10):
        await client.reader.readuntil(b"data: first\n\n")
    assert time.perf_counter() - began < 1.0, "it is not held back; how soon it comes is for the benchmark"


async def test_websockets_in_both_directions(world: Harness, app: int) -> None:
    message = os.urandom(MIB)
    url = f"ws://127.0.0.1:{world.port}/sandboxes/{A}/ports/{app}/chat"
    async with asyncio.timeout(30), websockets.connect(url, max_size=2 * MIB) as ws:
        for _ in range(3):
            await ws.send(message)
            assert await ws.recv() == message
    assert world.gateway.counters.to_ports == 1


async def test_other_protocols_and_half_closed_connections(world: Harness) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b"upgrade: shouting/2\r\n" in head
        assert b"connection: upgrade\r\n" in head
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: Shouting/2\r\n\r\nready;")
        heard = await reader.read()
        writer.write(heard.upper())
        await writer.drain()

    port = await ports.program(world, shout)
    client = await world.connect()
    await client.send(by_path(port, "/", "Connection: Upgrade", "Upgrade: shouting/2", method="POST") + b"early ")
    reply = await client.reply()
    assert (reply.status, reply.headers["upgrade"].lower()) == (101, "shouting/2")
    await client.send(b"late")
    client.writer.write_eof()
    assert await client.rest() == b"ready;EARLY LATE"


@pytest.mark.parametrize("upgrade", ["h2c", "websocket, h2c", "a b"])
async def test_upgrades_that_are_not_passed_on(world: Harness, app: int, upgrade: str) -> None:
    reply = await world.ask(by_path(app, "/", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}"))
    headers = dict(json.loads(reply.body)["headers"])
    assert reply.status == 200
    assert not {"upgrade", "http2-settings", "connection"} & headers.keys()


async def test_a_switch_that_nobody_asked_for(world: Harness) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.read()

    reply = await world.ask(by_path(await ports.program(world, rude)))
    assert (reply.status, json.loads(reply.body)["code"]) == (502, "BAD_RESPONSE")


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", b"HTTP/1.1 2"],
)
async def test_programs_that_do_not_speak_http(world: Harness, answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    reply = await world.ask(by_path(await ports.program(world, speak)))
    assert (reply.status, json.loads(reply.body)["code"]) == (502, "BAD_RESPONSE")


async def test_a_program_that_breaks_off(world: Harness) -> None:
    async def part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        await writer.drain()

    client = await world.connect()
    await client.send(by_path(await ports.program(world, part)))
    assert (await client.rest()).endswith(b"only this")


async def test_a_slow_reader_makes_the_program_wait(world: Harness) -> None:
    sent = 0
    blocked = asyncio.Event()
    size = 100 * MIB

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        part = bytes(MIB)
        while sent < size:
            writer.write(part)
            sent += MIB
            drained = asyncio.ensure_future(writer.drain())
            await asyncio.wait([drained], timeout=0.5)
            if not drained.done():
                blocked.set()
            await drained

    client = await world.connect()
    await client.send(by_path(await ports.program(world, flood)))
    async with asyncio.timeout(10):
        await blocked.wait()
    # Socket buffers on four ends (some MiB each, as the kernel likes), and 256 KiB twice in the gateway.
    assert sent < 40 * MIB
    async with asyncio.timeout(30):
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head
        left = size
        while left:
            left -= len(await client.reader.read(MIB))


async def test_nothing_listens(world: Harness) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        reply = await world.ask(by_path(port))
        page = await world.ask(by_host(port, "/<script>", "Accept: text/html,*/*;q=0.8"))
    body = json.loads(reply.body)
    assert (reply.status, body["code"]) == (502, "PORT_NOT_OPEN")
    assert f"port {port}" in body["message"]
    assert "0.0.0.0" in body["remedy"]
    assert (page.status, page.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert f"port {port}" in page.body.decode()
    assert b"<script" not in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_refusals_do_not_tell_whether_a_sandbox_exists(start: Start) -> None:
    gw = await start(domain=DOMAIN, previews_need_token=True)
    await gw.raw(gw.agent(A), ports.honest)
    answers: list[tuple[int, object]] = []
    for sandbox_id in (A, B):
        for fields in ((), (f"Authorization: Bearer ok.{'1763382095cccccccc'}.s",)):
            request = by_path(3000, "/", *fields).replace(A.encode(), sandbox_id.encode())
            reply = await gw.ask(request)
            answers.append((reply.status, json.loads(reply.body)["message"]))
    assert answers[:2] == answers[2:]


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def _one_of(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    pair[1].close()
    return pair[0]


def _end_of_pipe() -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


HOSTILE: dict[str, tuple[bytes, Callable[[], Sequence[socket.socket | int]]]] = {
    "a pipe": (ports.SWITCHING, lambda: [_end_of_pipe()]),
    "a file": (ports.SWITCHING, lambda: [os.open("/etc/hostname", os.O_RDONLY)]),
    "a directory": (ports.SWITCHING, lambda: [os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)]),
    "a unix socket": (ports.SWITCHING, lambda: [_one_of(socket.socketpair())]),
    "UDP": (ports.SWITCHING, lambda: [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]),
    "netlink": (ports.SWITCHING, lambda: [socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)]),
    "TCP that is not connected": (ports.SWITCHING, lambda: [socket.socket()]),
    "TCP that listens": (ports.SWITCHING, lambda: [socket.create_server(("127.0.0.1", 0))]),
    "two connections": (ports.SWITCHING, lambda: list(_tcp_pair())),
    "three": (ports.SWITCHING, lambda: [*_tcp_pair(), socket.socket()]),
    "two hundred": (ports.SWITCHING, lambda: [os.open("/etc/hostname", os.O_RDONLY) for _ in range(200)]),
    "nothing": (ports.SWITCHING, list),
    "a connection with a refusal": (ports.REFUSED, lambda: [_one_of(_tcp_pair())]),
    "a connection with another status": (b"HTTP/1.1 200 OK\r\n\r\n", lambda: [_one_of(_tcp_pair())]),
    "no HTTP": (b"x", lambda: [_one_of(_tcp_pair())]),
}


def _descriptors() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.mark.parametrize("name", HOSTILE)
async def test_an_agent_that_hands_over_something_else(start: Start, name: str) -> None:
    gw = await start(domain=DOMAIN)
    before = _descriptors()
    data, make = HOSTILE[name]
    await gw.raw(gw.agent(A), ports.handing(data, make))
    client = await gw.connect()
    await client.send(by_path(3000))
    reply = await client.reply()
    assert (reply.status, json.loads(reply.body)["code"]) == (502, "AGENT_UNREACHABLE")

    def kept() -> set[str]:
        fresh = {link for number, link in _descriptors().items() if before.get(number) != link}
        return {link for link in fresh if link.startswith("/etc")}

    with contextlib.suppress(TimeoutError):
        await gw.until(lambda: not kept())
    assert kept() == set()


async def test_an_agent_that_says_nothing(start: Start) -> None:
    gw = await start(domain=DOMAIN)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await gw.raw(gw.agent(A), silent)
    began = time.monotonic()
    reply = await gw.ask(by_path(3000))
    assert (reply.status, json.loads(reply.body)["code"]) == (502, "AGENT_UNREACHABLE")
    assert time.monotonic() - began < 5


async def test_a_client_that_goes_while_the_agent_is_asked(start: Start) -> None:
    gw = await start(domain=DOMAIN)
    asked, gone = asyncio.Event(), asyncio.Event()
    one, other = _tcp_pair()
    with one, other:

        async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await gone.wait()
            with contextlib.suppress(OSError):
                ports.send(writer, ports.SWITCHING, [one.fileno()])
            one.close()

        await gw.raw(gw.agent(A), late)
        client = await gw.connect()
        await client.send(by_path(3000))
        async with asyncio.timeout(10):
            await asked.wait()
        client.writer.transport.abort()
        await gw.until(lambda: gw.gateway.counters.connections_open == 0)
        gone.set()
        other.setblocking(False)
        async with asyncio.timeout(10):
            assert await asyncio.get_running_loop().sock_recv(other, 100) == b"", "its descriptor was closed"


async def test_a_connection_that_the_sandbox_makes_blocking_blocks_nobody(start: Start) -> None:
    """The sandbox keeps the same open file, so it can switch O_NONBLOCK off (fcntl(2)) and stop reading."""
    gw = await start(domain=DOMAIN)
    await gw.answering(gw.control, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    ours, theirs = _tcp_pair()
    with ours, theirs:

        async def meddling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            ports.send(writer, ports.SWITCHING, [ours.fileno()])
            await reader.read()

        await gw.raw(gw.agent(A), meddling)
        client = await gw.connect()
        await client.send(by_path(3000, "/", f"Content-Length: {64 * MIB}", method="POST"))
        await gw.until(lambda: bool(select_readable(theirs)))
        for _ in range(100):
            fcntl.fcntl(ours, fcntl.F_SETFL, fcntl.fcntl(ours, fcntl.F_GETFL) & ~os.O_NONBLOCK)
            client.writer.write(bytes(MIB))
            reply = await gw.ask(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert reply.status == 200
            if client.writer.transport.get_write_buffer_size() > 8 * MIB:
                break
        else:
            pytest.fail("the program never stopped taking bytes")
        # Bytes that are announced and then taken by somebody else must not make a read wait either.
        theirs.send(b"x" * 1000)
        with contextlib.suppress(BlockingIOError):
            ours.recv(1000, socket.MSG_DONTWAIT)
        assert (await gw.ask(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 200


def select_readable(sock: socket.socket) -> bytes:
    """What can be read now, without taking it."""
    with contextlib.suppress(BlockingIOError):
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return b""


async def test_descriptors_that_agents_attach_to_their_answers_are_refused_or_dropped(start: Start) -> None:
    gw = await start()
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    refused: list[bool] = []

    async def attaching(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        descriptor = _end_of_pipe()
        try:
            ports.send(writer, body, [descriptor])
        except PermissionError:
            refused.append(True)
            writer.write(body)
        finally:
            os.close(descriptor)
        await reader.read()

    await gw.raw(gw.agent(A), attaching)
    request = f"GET /sandboxes/{A}/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ok.{A}.s\r\n\r\n"
    reply = await gw.ask(request.encode())
    assert (reply.status, reply.body) == (200, b"ok")
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 16):
        assert refused == [True]
