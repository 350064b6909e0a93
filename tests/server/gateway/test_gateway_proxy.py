"""Requests through a gateway to well-behaved upstreams."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from cove.server.gateway.client_side import ClientSide

if TYPE_CHECKING:
    from conftest import Harness, Start

pytestmark = pytest.mark.anyio

A = "1763382095aaaaaaaa"
B = "1763382095bbbbbbbb"
TOKEN_A = f"Authorization: Bearer ok.{A}.s\r\n"
TOKEN_B = f"Authorization: Bearer ok.{B}.s\r\n"


def application(name: str, **answer_headers: str) -> Starlette:
    """Tells what it received."""

    async def echo(request: Request) -> Response:
        body = await request.body()
        seen = {
            "name": name,
            "method": request.method,
            "target": request.scope["raw_path"].decode() + "?" + request.scope["query_string"].decode(),
            "headers": [[k.decode(), v.decode("latin-1")] for k, v in request.scope["headers"]],
            "body": body.decode("latin-1"),
        }
        return JSONResponse(seen, headers=answer_headers)

    async def size(request: Request) -> Response:
        total = 0
        async for part in request.stream():
            total += len(part)
        return PlainTextResponse(str(total))

    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            for index in range(int(request.query_params["n"])):
                yield f"{name}{index};"

        return StreamingResponse(parts())

    async def early(request: Request) -> Response:
        return PlainTextResponse("no", status_code=413)

    async def empty(request: Request) -> Response:
        return Response(status_code=int(request.query_params["status"]))

    async def socket(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_json({"name": name, "headers": [[k.decode(), v.decode()] for k, v in ws.scope["headers"]]})
        async for message in ws.iter_text():
            if message == "bye":
                await ws.close(4000)
                return
            await ws.send_text(name + message)

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return Starlette(
        routes=[
            Route("/size", size, methods=methods),
            Route("/stream", stream),
            Route("/early", early, methods=methods),
            Route("/empty", empty),
            WebSocketRoute("/terminal", socket),
            Route("/{rest:path}", echo, methods=methods),
        ]
    )


@pytest.fixture
async def world(gw: Harness) -> Harness:
    """A control plane and two sandboxes."""
    await gw.asgi(gw.control, application("control"))
    await gw.asgi(gw.agent(A), application("a"))
    await gw.asgi(gw.agent(B), application("b"))
    return gw


async def test_one_connection_carries_requests_for_different_upstreams(world: Harness) -> None:
    client = await world.connect()
    for _ in range(3):
        for target, extra, name in (
            (f"/sandboxes/{A}/x%2Fy?q=%20", TOKEN_A, "a"),
            ("/v1/sandboxes", "X-API-Key: k\r\n", "control"),
            ("/files/list", TOKEN_B, "b"),
        ):
            await client.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())
            seen = json.loads((await client.reply()).body)
            assert seen["name"] == name
            assert seen["target"].startswith(target.removeprefix(f"/sandboxes/{A}"))
    counters = world.gateway.counters
    assert (counters.connections, counters.requests, counters.to_agents, counters.to_control_plane) == (1, 9, 6, 3)


async def test_pipelined_requests_are_answered_in_order(world: Harness) -> None:
    client = await world.connect()
    wire = b""
    for index in range(20):
        body = f"body{index}"
        sandbox, token = ((A, TOKEN_A), (B, TOKEN_B), ("", TOKEN_A))[index % 3]
        prefix = f"/sandboxes/{A}" if index % 3 == 2 else f"/sandboxes/{sandbox}"
        bearer = "" if index % 5 == 4 else token
        head = f"POST {prefix}/{index} HTTP/1.1\r\nHost: localhost\r\n{bearer}"
        if index % 2:
            wire += f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        else:
            wire += f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n".encode()
    await client.send(wire)
    for index in range(20):
        reply = await client.reply()
        if index % 5 == 4:
            assert reply.status == 401
            if index % 2 == 0:  # a chunked body is not read away: the connection ends
                assert reply.headers["connection"] == "close"
                assert await client.rest() == b""
                return
            continue
        seen = json.loads(reply.body)
        assert (seen["target"], seen["body"]) == (f"/{index}?", f"body{index}")


async def test_credentials_never_reach_an_agent(world: Harness) -> None:
    secrets = (
        "Cookie: session=SECRET\r\nX-API-Key: SECRET\r\nX-API-Secret: SECRET\r\nProxy-Authorization: SECRET\r\n"
        "Referer: http://x/?SECRET\r\nX-Forwarded-For: SECRET\r\nForwarded: for=SECRET\r\nx-api-key: SECRET2\r\n"
        "Connection: keep-alive, X-Hop\r\nX-Hop: SECRET\r\nTE: trailers\r\nKeep-Alive: SECRET\r\nUpgrade: h2c\r\n"
        "HTTP2-Settings: SECRET\r\nAccept: */*\r\n"
    )
    head = f"POST /execute HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}{secrets}Transfer-Encoding: chunked\r\n\r\n"
    reply = await world.ask(head.encode() + b"1\r\nx\r\n0\r\nX-API-Key: SECRET\r\n\r\n")
    assert "SECRET" not in reply.body.decode()
    assert f"ok.{A}.s" not in reply.body.decode()
    names = {name for name, _ in json.loads(reply.body)["headers"]}
    assert names == {"host", "accept", "x-request-id", "transfer-encoding"}


async def test_the_control_plane_learns_the_client_from_the_gateway_only(world: Harness) -> None:
    reply = await world.ask(
        b"GET /v1/x HTTP/1.1\r\nHost: localhost:1\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nAuthorization: Bearer key\r\n"
        b"Cookie: c=1\r\nX-API-Key: k\r\nConnection: X-Forwarded-For, Host, Content-Length\r\n\r\n"
    )
    headers = dict(json.loads(reply.body)["headers"])
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == headers["host"] == "localhost:1"
    assert (headers["authorization"], headers["cookie"], headers["x-api-key"]) == ("Bearer key", "c=1", "k")
    assert "forwarded" not in headers
    assert "x-real-ip" not in headers


async def test_the_control_plane_gets_keys_that_are_sent_as_to_a_proxy(world: Harness) -> None:
    reply = await world.ask(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nProxy-Authorization: msb_key\r\n\r\n")
    assert dict(json.loads(reply.body)["headers"])["proxy-authorization"] == "msb_key"


@pytest.mark.parametrize("how", ["half-close", "close", "abort"])
async def test_an_answer_without_end_is_prompt_and_its_loss_too(gw: Harness, how: str) -> None:
    go_on, lost = asyncio.Event(), asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
        await go_on.wait()
        writer.write(b"7\r\nsecond\n\r\n")
        try:
            await reader.read()
        finally:
            lost.set()

    await gw.raw(gw.control, endless)
    client = await gw.connect()
    await client.send(b"POST /v1/client-leases HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(2):
        await client.reader.readuntil(b"first\n")
        go_on.set()
        await client.reader.readuntil(b"second\n")
        assert not lost.is_set()
        match how:
            case "half-close":
                client.writer.write_eof()
            case "close":
                client.writer.close()
            case _:
                client.writer.transport.abort()
        await lost.wait()


async def test_a_client_that_vanished_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    made = ClientSide.__init__

    def noting(side: ClientSide, transport: asyncio.BaseTransport, *rest: Any) -> None:
        made(side, transport, *rest)
        taken = transport.get_extra_info("socket")
        seen.append(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))

    monkeypatch.setattr(ClientSide, "__init__", noting)
    gw = await start(stall_seconds=7.0)
    await gw.answering(gw.control, b"HTTP/1.1 204 No Content\r\n\r\n")
    await gw.ask(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert seen == [7000]


async def test_agent_answers_cannot_act_on_the_servers_origin(gw: Harness) -> None:
    bad = {
        "Set-Cookie": "a=b",
        "Clear-Site-Data": '"*"',
        "Strict-Transport-Security": "max-age=1",
        "Content-Security-Policy": "default-src *",
        "NEL": "{}",
        "Service-Worker-Allowed": "/",
        "X-Content-Type-Options": "sniff",
        "X-Good": "yes",
        "X-Request-ID": "forged",
    }
    await gw.asgi(gw.agent(A), application("a", **bad))
    await gw.asgi(gw.control, application("control", **{"Set-Cookie": "a=b"}))
    request_line = "GET /x HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: mine-1\r\n"
    reply = await gw.ask(f"{request_line}{TOKEN_A}\r\n".encode())
    assert reply.headers["x-good"] == "yes"
    assert reply.headers["content-security-policy"] == "sandbox"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-request-id"] == "mine-1"
    assert reply.head.lower().count(b"content-security-policy") == 1
    for name in ("set-cookie", "clear-site-data", "strict-transport-security", "nel", "service-worker-allowed"):
        assert name not in reply.headers
    control = await gw.ask(f"{request_line}\r\n".encode())
    assert control.headers["set-cookie"] == "a=b"
    assert control.headers["x-request-id"] == "mine-1"


async def test_a_malformed_request_id_is_replaced(world: Harness) -> None:
    raw = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: a b;c\r\n\r\n"
    reply = await world.ask(raw)
    sent = [v for k, v in json.loads(reply.body)["headers"] if k == "x-request-id"]
    assert sent == [reply.headers["x-request-id"]]
    assert sent[0].startswith("req_")


@pytest.mark.parametrize("length", [0, 1, 70_000, 3_000_000])
@pytest.mark.parametrize("chunked", [True, False])
async def test_bodies_of_any_size_pass(world: Harness, length: int, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
    client = await world.connect()
    await client.send(f"POST /sandboxes/{A}/size HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}{framing}\r\n\r\n".encode())
    left = length
    while left:
        part = min(left, 65_536)
        await client.send(b"%x\r\n%b\r\n" % (part, b"x" * part) if chunked else b"x" * part)
        left -= part
    if chunked:
        await client.send(b"0\r\n\r\n")
    assert (await client.reply()).body == str(length).encode()
    await client.send(f"GET /ping HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}\r\n".encode())
    assert (await client.reply()).status == 200


async def test_a_stream_arrives_chunked_and_for_an_old_client_until_close(world: Harness) -> None:
    expected = b"".join(b"a%d;" % index for index in range(50))
    reply = await world.ask(f"GET /stream?n=50 HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}\r\n".encode())
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.body == expected
    old = await world.ask(f"GET /stream?n=50 HTTP/1.0\r\n{TOKEN_A}\r\n".encode())
    assert "transfer-encoding" not in old.headers
    assert old.headers["connection"] == "close"
    assert old.body == expected


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_keep_the_connection(world: Harness, status: int) -> None:
    client = await world.connect()
    for _ in range(3):
        await client.send(f"GET /empty?status={status} HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}\r\n".encode())
        assert (await client.reply()).status == status
        await client.send(f"HEAD /stream?n=9 HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}\r\n".encode())
        assert (await client.reply(method="HEAD")).status == 200


async def test_a_client_that_waits_for_100_continue_gets_it(world: Harness) -> None:
    client = await world.connect()
    head = f"POST /size HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    await client.send(head.encode())
    assert (await client.reply()).status == 100
    await client.send(b"hello")
    assert (await client.reply()).body == b"5"


async def test_an_early_answer_ends_the_connection_and_is_readable(world: Harness) -> None:
    client = await world.connect()
    head = f"POST /early HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}Content-Length: 50000000\r\n\r\n"
    await client.send(head.encode() + b"x" * 100_000)
    reply = await client.reply()
    assert (reply.status, reply.body) == (413, b"no")
    assert reply.headers["connection"] == "close"
    assert await client.rest() == b""


async def test_upstream_connections_are_reused_for_one_client_and_shared_by_none(start: Start) -> None:
    gw = await start()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()

    await gw.raw(gw.agent(A), answer)
    one, two = await gw.connect(), await gw.connect()
    for _ in range(5):
        for client in (one, two):
            await client.send(f"GET / HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}\r\n".encode())
            assert (await client.reply()).body == b"ok"
    assert gw.accepted == {f"{A}.sock": 2}


async def websocket(gw: Harness, path: str, sandbox: str) -> websockets.ClientConnection:
    token = {"Authorization": f"Bearer ok.{sandbox}.s", "Cookie": "SECRET"}
    return await websockets.connect(f"ws://127.0.0.1:{gw.port}{path}", additional_headers=token)


@pytest.mark.parametrize("path", ["/terminal", f"/sandboxes/{A}/terminal", "HOST"])
async def test_websockets_pass_both_ways(world: Harness, path: str) -> None:
    if path == "HOST":
        uri = f"ws://7777-{A}.example.org:{world.port}/.vms.hopx.dev/terminal"
        token = {"Authorization": f"Bearer ok.{A}.s"}
        ws = await websockets.connect(uri, additional_headers=token, host="127.0.0.1", port=world.port)
    else:
        ws = await websocket(world, path, A)
    async with asyncio.timeout(10), ws:
        hello = json.loads(await ws.recv())
        assert hello["name"] == "a"
        assert not {"authorization", "cookie"} & {name for name, _ in hello["headers"]}
        for size in (1, 1000, 300_000):
            await ws.send("x" * size)
            assert await ws.recv() == "a" + "x" * size
        assert world.gateway.counters.websockets_open == 1
        await ws.send("bye")
        await ws.wait_closed()
        assert ws.close_code == 4000
    await world.until(lambda: world.gateway.counters.websockets_open == 0)


async def test_a_websocket_ends_when_the_client_goes(world: Harness) -> None:
    async with asyncio.timeout(10):
        ws = await websocket(world, "/terminal", B)
        assert json.loads(await ws.recv())["name"] == "b"
        await ws.close()
    await world.until(lambda: world.gateway.counters.connections_open == 0)
    assert world.gateway.counters.websockets_open == 0


async def test_a_websocket_without_a_token_is_refused(world: Harness) -> None:
    with pytest.raises(websockets.InvalidStatus) as caught:
        await websockets.connect(f"ws://127.0.0.1:{world.port}/terminal")
    assert caught.value.response.status_code == 401


async def test_many_clients_at_once_get_their_own_answers(world: Harness) -> None:
    async def client(number: int) -> None:
        sandbox, name = ((A, "a"), (B, "b"))[number % 2]
        headers = {"Authorization": f"Bearer ok.{sandbox}.s"}
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{world.port}", headers=headers, timeout=30, verify=False
        ) as http:
            for turn in range(5):
                marker = f"client{number}-{turn}-" + "m" * (number * 97)
                reply = await http.post(f"/sandboxes/{sandbox}/execute", content=marker)
                seen = reply.json()
                assert (seen["name"], seen["body"]) == (name, marker)
                control = (await http.post(f"/v1/x{number}", content=marker)).json()
                assert (control["name"], control["body"]) == ("control", marker)

    async with asyncio.timeout(45):
        await asyncio.gather(*(client(number) for number in range(50)))
    await world.until(lambda: world.gateway.counters.connections_open == 0)


async def test_a_client_that_leaves_ends_what_runs_for_it(gw: Harness) -> None:
    began, gone = asyncio.Event(), asyncio.Event()

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        began.set()
        await reader.read()
        gone.set()

    await gw.raw(gw.agent(A), work)
    client = await gw.connect()
    await client.send(f"GET /execute HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}\r\n".encode())
    async with asyncio.timeout(10):
        await began.wait()
        client.writer.close()
        await gone.wait()


async def test_closing_lets_an_exchange_end_and_then_breaks_off(start: Start) -> None:
    gw = await start()
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/never" in head:
            await reader.read()
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        await reader.read()

    await gw.raw(gw.agent(A), slow)
    idle, waiting, never = await gw.connect(), await gw.connect(), await gw.connect()
    await waiting.send(f"GET /execute HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}\r\n".encode())
    await never.send(f"GET /never HTTP/1.1\r\nHost: localhost\r\n{TOKEN_A}\r\n".encode())
    await gw.until(lambda: gw.accepted.get(f"{A}.sock") == 2)
    closing = asyncio.create_task(gw.gateway.close(0.5))
    assert await idle.rest() == b""
    release.set()
    reply = await waiting.reply()
    assert (reply.body, reply.headers["connection"]) == (b"ok", "close")
    assert await never.rest() == b""
    async with asyncio.timeout(10):
        await closing
    assert gw.gateway.counters.connections_open == 0
    with pytest.raises(OSError):
        await gw.connect()


async def test_gateway_answers_carry_what_clients_need(world: Harness) -> None:
    reply = await world.ask(f"POST /sandboxes/{A}/execute HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    body = json.loads(reply.body)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.headers["x-request-id"] == body["request_id"]
    assert isinstance(body["error"], str)
    head = await world.ask(b"HEAD /execute HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", method="HEAD")
    assert head.status == 401
    assert int(head.headers["content-length"]) > 0
    assert world.gateway.counters.refusals == {"UNAUTHORIZED": 2}
