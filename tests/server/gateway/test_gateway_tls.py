"""TLS and plain HTTP on one port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from tests.certificates import Signed, encrypt, sign
from tests.server.gateway.conftest import WAIT, Client

from cove.models.errors import InvalidRequest
from cove.server.gateway import ServerCertificate

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Harness, Start

pytestmark = pytest.mark.anyio

NAME = "boxes.test"
REQUEST = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
A = "1763382095aaaaaaaa"
MIB = 1024 * 1024


def application() -> Starlette:
    """A control plane, and an agent."""

    async def seen(request: Request) -> Response:
        return JSONResponse(request.headers.get("x-forwarded-proto"))

    async def much(request: Request) -> Response:
        return Response(bytes(8 * MIB))

    async def echo(ws: WebSocket) -> None:
        await ws.accept()
        async for message in ws.iter_bytes():
            await ws.send_bytes(message)

    return Starlette(routes=[Route("/v1/x", seen), Route("/v1/much", much), WebSocketRoute("/terminal", echo)])


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return sign(tmp_path, NAME, f"*.{NAME}")


@pytest.fixture
async def gw(start: Start, signed: Signed) -> Harness:
    gw = await start(certificate=ServerCertificate(signed.certificate, signed.key), handshake_seconds=0.5)
    await gw.asgi(gw.control, application())
    await gw.asgi(gw.agent(A), application())
    return gw


@pytest.fixture
def trusting(signed: Signed) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(signed.authority))


@contextlib.asynccontextmanager
async def encrypted(gw: Harness, context: ssl.SSLContext) -> AsyncGenerator[Client]:
    """A client connection by TLS."""
    async with asyncio.timeout(WAIT):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", gw.port, ssl=context, server_hostname=f"3000-{A}.{NAME}"
        )
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(WAIT):
                await writer.wait_closed()


async def test_both_are_served_in_turn(gw: Harness, trusting: ssl.SSLContext) -> None:
    async with encrypted(gw, trusting) as secret:
        for _ in range(3):
            plain = await gw.connect()
            for client, scheme in ((plain, "http"), (secret, "https"), (plain, "http")):
                await client.send(REQUEST)
                assert json.loads((await client.reply()).body) == scheme
        assert secret.writer.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
        assert secret.writer.get_extra_info("ssl_object").selected_alpn_protocol() in (None, "http/1.1")


async def test_a_large_answer_arrives_whole_before_the_close(gw: Harness, trusting: ssl.SSLContext) -> None:
    async with encrypted(gw, trusting) as client:
        await client.send(b"GET /v1/much HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert len((await client.reply()).body) == 8 * MIB
        assert await client.rest() == b""


async def test_websockets(gw: Harness, trusting: ssl.SSLContext) -> None:
    async with (
        asyncio.timeout(30),
        websockets.connect(
            f"wss://127.0.0.1:{gw.port}/terminal",
            ssl=trusting,
            server_hostname=NAME,
            additional_headers={"Authorization": f"Bearer ok.{A}.s"},
            max_size=2 * MIB,
        ) as ws,
    ):
        await ws.send(bytes(MIB))
        assert await ws.recv() == bytes(MIB)


async def test_old_versions_are_refused(gw: Harness, trusting: ssl.SSLContext) -> None:
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    trusting.minimum_version = ssl.TLSVersion.TLSv1_2
    async with encrypted(gw, trusting) as client:
        await client.send(REQUEST)
        assert (await client.reply()).status == 200
    # A ClientHello of TLS 1.0, as it is on the wire (RFC 2246 §7.4.1.2): answered with an alert, not a ServerHello.
    hello = b"\x03\x01" + bytes(32) + b"\x00" + b"\x00\x04\x00\x2f\x00\x35" + b"\x01\x00"
    handshake = b"\x01" + len(hello).to_bytes(3, "big") + hello
    old = await gw.connect()
    await old.send(b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake)
    assert (await old.rest())[:1] in (b"\x15", b"")


@pytest.mark.parametrize("begin", [b"", b"\x16", b"\x16\x03\x01\x00\xff"])
async def test_a_stalled_greeting_ends_in_time_and_hinders_nobody(gw: Harness, begin: bytes) -> None:
    stalled = [await gw.connect() for _ in range(20)]
    for client in stalled:
        await client.send(begin)
    assert (await gw.ask(REQUEST)).status == 200
    for client in stalled:
        assert await client.rest() == b""


async def test_clients_that_go_at_once_leave_nothing(gw: Harness) -> None:
    for _ in range(20):
        (await gw.connect()).writer.transport.abort()
    assert (await gw.ask(REQUEST)).status == 200
    await gw.until(lambda: gw.gateway.counters.connections_open <= 1)


async def test_bytes_that_are_neither(gw: Harness) -> None:
    client = await gw.connect()
    await client.send(b"\x17\x03\x03 hello\r\n\r\n")
    assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_renewed_certificate_is_for_new_connections(
    start: Start, signed: Signed, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    certificate = ServerCertificate(signed.certificate, signed.key)
    gw = await start(certificate=certificate)
    await gw.asgi(gw.control, application())
    async with encrypted(gw, trusting) as first:
        renewed = sign(tmp_path, NAME, f"*.{NAME}")
        certificate.reload()
        await first.send(REQUEST)
        assert (await first.reply()).status == 200
        with pytest.raises(ssl.SSLError):
            async with encrypted(gw, trusting):
                pass
        async with encrypted(gw, ssl.create_default_context(cafile=str(renewed.authority))) as second:
            await second.send(REQUEST)
            assert (await second.reply()).status == 200
        renewed.key.write_text("broken")
        with pytest.raises(InvalidRequest):
            certificate.reload()
        async with encrypted(gw, ssl.create_default_context(cafile=str(renewed.authority))) as third:
            await third.send(REQUEST)
            assert (await third.reply()).status == 200


def _broken(files: Signed, how: str, directory: Path) -> Iterator[str]:
    match how:
        case "missing":
            files.certificate.unlink()
            yield str(files.certificate)
        case "a directory":
            files.key.unlink()
            files.key.mkdir()
            yield str(files.key)
        case "empty":
            files.certificate.write_bytes(b"")
            yield "BEGIN CERTIFICATE"
        case "swapped":
            certificate, key = files.certificate.read_bytes(), files.key.read_bytes()
            files.certificate.write_bytes(key)
            files.key.write_bytes(certificate)
            yield "PEM"
        case "another key":
            other = directory / "other"
            other.mkdir()
            files.key.write_bytes(sign(other, NAME).key.read_bytes())
            yield "is not the key of the certificate"
        case _:
            encrypt(files.key, b"secret")
            yield "openssl pkey"


@pytest.mark.parametrize("how", ["missing", "a directory", "empty", "swapped", "another key", "encrypted"])
async def test_files_that_cannot_be_used_are_named(signed: Signed, tmp_path: Path, how: str) -> None:
    for expected in _broken(signed, how, tmp_path):
        with pytest.raises(InvalidRequest) as failure:
            ServerCertificate(signed.certificate, signed.key)
        assert failure.value.remedy
        assert expected in str(failure.value)
