"""Hostile clients, hostile agents, and upstreams that are not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Harness, Start

pytestmark = pytest.mark.anyio

A = "1763382095aaaaaaaa"
GET = f"GET /execute HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ok.{A}.s\r\n".encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 500 + b"\r\n", 431),
        (b"GET / HTTP/1.1\n\n", 400),
        (b"\x16\x03\x01\x00\x05hello", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
)
async def test_a_broken_request_is_answered_and_the_connection_ends(gw: Harness, raw: bytes, status: int) -> None:
    client = await gw.connect()
    await client.send(raw + GET + b"\r\n")
    reply = await client.reply()
    assert reply.status == status
    assert reply.headers["connection"] == "close"
    assert json.loads(reply.body)["error"]["code"] in ("INVALID_REQUEST", "HEADERS_TOO_LARGE")
    assert await client.rest() == b""


async def test_a_broken_chunk_never_becomes_a_second_request(gw: Harness) -> None:
    received: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            received.append(data)

    await gw.raw(gw.agent(A), record)
    smuggled = b"0\r\n\r\nGET /files/read HTTP/1.1\r\nHost: x\r\n\r\n"
    client = await gw.connect()
    await client.send(GET + b"Transfer-Encoding: chunked\r\n\r\n1\n" + smuggled)
    assert (await client.reply()).status == 400
    assert await client.rest() == b""
    assert b"/files/read" not in b"".join(received)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (OK + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 502),
        (OK + b"x", 502),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", 502),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", 502),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", 0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok", 502),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", 502),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 502),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 502),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 101 + OK, 502),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100 + OK, 200),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 502),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502),
        (b"HTTP/1.1 999 X\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nSet-Cookie: a\x00b\r\n\r\n", 502),
    ],
)
async def test_anything_but_one_wellformed_answer_is_not_passed_on(gw: Harness, answer: bytes, status: int) -> None:
    async def reply_and_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if not status:
            return
        await reader.read()

    await gw.raw(gw.agent(A), reply_and_leave)
    client = await gw.connect()
    await client.send(GET + b"\r\n")
    if not status:  # the head has gone out: only breaking off is left
        with contextlib.suppress(ConnectionError):
            assert not (await client.rest()).endswith(b"0\r\n\r\n")
        return
    reply = await client.reply()
    assert reply.status == status
    if status == 502:
        body = json.loads(reply.body)
        assert body["code"] == "AGENT_UNREACHABLE"
        assert isinstance(body["error"], str)
    # The connection is still good, and what the agent sent after its answer is gone.
    await client.send(b"GET /execute HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await client.reply()).status == 401


async def test_bytes_that_come_after_the_answer_never_become_another_answer(gw: Harness) -> None:
    sent = asyncio.Event()
    turn = 0

    async def poison(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        mine = turn
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % mine)
        await writer.drain()
        if mine == 1:
            await sent.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
            await writer.drain()
        await reader.read()
        sent.clear()

    await gw.raw(gw.agent(A), poison)
    client = await gw.connect()
    await client.send(GET + b"\r\n")
    assert (await client.reply()).body == b"1"
    sent.set()
    await gw.until(lambda: not sent.is_set())  # the gateway has dropped that connection
    await client.send(GET + b"\r\n")
    assert (await client.reply()).body == b"2"


async def test_an_idle_agent_cannot_answer_a_request_to_the_control_plane(gw: Harness) -> None:
    speak, gone = asyncio.Event(), asyncio.Event()

    async def poison(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await speak.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await reader.read()
        gone.set()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        speak.set()
        await gone.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue")
        await reader.read()

    await gw.raw(gw.agent(A), poison)
    await gw.raw(gw.control, control)
    client = await gw.connect()
    await client.send(GET + b"\r\n")
    assert (await client.reply()).body == b"ok"
    await client.send(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await client.reply()).body == b"true"


async def test_a_switch_of_protocol_needs_both_sides(gw: Harness) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    await gw.answering(gw.agent(A), switch)
    for upgrade in (b"h2c", b"websocket", b"websocket, h2c"):
        reply = await gw.ask(GET + b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n")
        assert reply.status == 502


async def test_a_splice_hands_on_what_came_early_and_both_halves_of_the_close(gw: Harness) -> None:
    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Upgrade: websocket" in head
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\nfirst")
        data = await reader.read()
        writer.write(b"got " + data)
        await writer.drain()

    await gw.raw(gw.agent(A), switch)
    client = await gw.connect()
    await client.send(GET + b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
    assert (await client.reply()).status == 101
    async with asyncio.timeout(10):
        assert await client.reader.readexactly(5) == b"first"
    client.writer.write(b" late")
    client.writer.write_eof()
    assert await client.rest() == b"got early late"
    await gw.until(lambda: gw.gateway.counters.connections_open == 0)


async def test_what_an_agent_says_before_it_hangs_up_on_a_flood_is_heard(gw: Harness) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.readexactly(1)
        writer.write(b"too much")
        await writer.drain()

    await gw.raw(gw.agent(A), refuse)
    for _ in range(20):
        client = await gw.connect()
        await client.send(GET + b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await client.reply()).status == 101
        client.writer.write(b"x" * 8_000_000)
        assert await client.rest() == b"too much"


async def test_a_missing_agent_and_a_missing_control_plane(gw: Harness) -> None:
    gw.agent(A)
    client = await gw.connect()
    await client.send(GET + b"Content-Length: 5\r\n\r\nhello")
    reply = await client.reply()
    assert (reply.status, json.loads(reply.body)["code"]) == (502, "AGENT_UNREACHABLE")
    await client.send(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    reply = await client.reply()
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (503, "HOST_UNAVAILABLE")
    assert gw.gateway.counters.upstream_failures == 2


async def test_a_sandbox_that_ends_during_a_request_is_not_found_rather_than_repeated(gw: Harness) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        gw.directory.clear()

    await gw.raw(gw.agent(A), die)
    reply = await gw.ask(GET + b"\r\n")
    assert (reply.status, json.loads(reply.body)["code"]) == (404, "SANDBOX_NOT_FOUND")


async def test_a_body_over_the_limit_is_refused_at_the_head_or_while_counting(start: Start) -> None:
    gw = await start(max_agent_body_bytes=1000, max_control_body_bytes=10)
    received = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        while data := await reader.read(65536):
            received += len(data)

    await gw.raw(gw.agent(A), count)
    reply = await gw.ask(GET + b"Content-Length: 1001\r\n\r\n")
    assert (reply.status, json.loads(reply.body)["code"]) == (413, "REQUEST_TOO_LARGE")
    reply = await gw.ask(b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n" + b"x" * 11)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (413, "REQUEST_TOO_LARGE")
    assert received == 0
    for parts in (3, 500):
        client = await gw.connect()
        await client.send(GET + b"Transfer-Encoding: chunked\r\n\r\n" + b"190\r\n%b\r\n" % (b"x" * 400) * parts)
        reply = await client.reply()
        assert (reply.status, json.loads(reply.body)["code"]) == (413, "REQUEST_TOO_LARGE")
        assert await client.rest() == b""
    assert received < 3000


async def settled(gw: Harness) -> None:
    """Waits until no more bytes move."""
    same, last = 0, -1
    async with asyncio.timeout(30):
        while same < 10:
            now = gw.gateway.counters.bytes_to_clients + gw.gateway.counters.bytes_from_clients
            same, last = (same + 1, now) if now == last and now > 0 else (0, now)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["length", "chunked", "close", "splice"])
async def test_a_client_that_does_not_read_costs_bounded_memory(gw: Harness, kind: str) -> None:
    total, block = 200 * 1024 * 1024, b"x" * (1 << 20)
    heads = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total,
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\n",
        "splice": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    }
    produced = 0

    async def produce(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal produced
        await reader.readuntil(b"\r\n\r\n")
        writer.write(heads[kind])
        while produced < total:
            writer.write(b"100000\r\n%b\r\n" % block if kind == "chunked" else block)
            await writer.drain()
            produced += len(block)
        writer.write(b"0\r\n\r\n" if kind == "chunked" else b"")
        await writer.drain()

    await gw.raw(gw.agent(A), produce)
    before = resident_bytes()
    client = await gw.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(GET + (b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n" if kind == "splice" else b"\r\n"))
    await settled(gw)
    assert produced < 40 * 1024 * 1024
    assert resident_bytes() - before < 24 * 1024 * 1024
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    received = 0
    async with asyncio.timeout(30):
        await client.reader.readuntil(b"\r\n\r\n")
        while received < total and (data := await client.reader.read(1 << 20)):
            received += len(data)
    assert received >= total
    assert resident_bytes() - before < 48 * 1024 * 1024


async def test_an_agent_that_does_not_read_makes_the_client_wait(gw: Harness) -> None:
    release = asyncio.Event()
    received = 0

    async def reluctant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        while received < total:
            received += len(await reader.read(1 << 20))
        writer.write(OK)
        await reader.read()

    total, block = 100 * 1024 * 1024, b"x" * (1 << 20)
    await gw.raw(gw.agent(A), reluctant)
    before = resident_bytes()
    client = await gw.connect()
    await client.send(GET + b"Content-Length: %d\r\n\r\n" % total)

    async def send() -> None:
        for _ in range(total // len(block)):
            client.writer.write(block)
            await client.writer.drain()

    sending = asyncio.create_task(send())
    await settled(gw)
    assert gw.gateway.counters.bytes_from_clients < 20 * 1024 * 1024
    assert resident_bytes() - before < 24 * 1024 * 1024
    release.set()
    assert (await client.reply()).body == b"ok"
    await sending
    assert received == total


async def test_a_flood_of_small_requests_is_held_back(gw: Harness) -> None:
    client = await gw.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    request = b"GET /execute HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = resident_bytes()

    async def flood() -> None:
        while True:
            client.writer.write(request * 20_000)
            await client.writer.drain()

    flooding = asyncio.create_task(flood())
    await settled(gw)
    assert resident_bytes() - before < 24 * 1024 * 1024
    flooding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flooding


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /v1/x HT", 408),
        (b"", 0),
        (GET + b"Content-Length: 5\r\n\r\nab", 408),
        (b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab", 408),
        (GET + b"\r\n", 504),
    ],
)
async def test_every_wait_has_an_end(start: Start, sent: bytes, status: int) -> None:
    gw = await start(head_seconds=0.2, idle_seconds=0.2, body_seconds=0.2, response_seconds=0.4)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await gw.raw(gw.agent(A), silent)
    await gw.raw(gw.control, silent)
    client = await gw.connect()
    await client.send(sent)
    if status:
        assert (await client.reply()).status == status
    await gw.until(lambda: status == 504 or gw.gateway.counters.connections_open == 0)


async def test_a_dripped_head_is_cut_off_at_the_deadline(start: Start) -> None:
    gw = await start(head_seconds=0.3)
    client = await gw.connect()

    async def drip() -> None:
        await client.send(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                await client.send(b"X: y\r\n")
                await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    assert (await client.reply()).status == 408
    dripping.cancel()
    await gw.until(lambda: gw.gateway.counters.connections_open == 0)


async def test_a_stalled_reader_is_cut_off(start: Start) -> None:
    gw = await start(stall_seconds=0.3, linger_seconds=0.1)

    async def produce(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    await gw.raw(gw.agent(A), produce)
    client = await gw.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(GET + b"\r\n")
    await gw.until(lambda: gw.gateway.counters.bytes_to_clients > 0)
    await gw.until(lambda: gw.gateway.counters.connections_open == 0)


async def test_connections_beyond_the_bound_are_turned_away(start: Start) -> None:
    gw = await start(max_connections=2)
    kept = [await gw.connect(), await gw.connect()]
    await gw.until(lambda: gw.gateway.counters.connections_open == 2)
    third = await gw.connect()
    assert (await third.reply()).status == 503
    assert await third.rest() == b""
    kept[0].writer.close()
    await gw.until(lambda: gw.gateway.counters.connections_open == 1)
    fourth = await gw.ask(b"GET /execute HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert fourth.status == 401
