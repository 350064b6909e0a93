"""Agents that hand over connections to ports, honest and otherwise, and programs that listen on them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from tests.server.gateway.conftest import Handler, Harness

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: cove-socket\r\n\r\n"
CARRYING = SWITCHING.replace(b"cove-socket", b"cove-stream")
REFUSED = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\n{}"

_ASKED = re.compile(rb"GET /ports/([0-9]+)/socket HTTP/1.1\r\n.*\r\n\r\n", re.DOTALL)


def send(writer: asyncio.StreamWriter, data: bytes, descriptors: Sequence[int]) -> None:
    """Sends bytes with descriptors."""
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as channel:
        socket.send_fds(channel, [data], descriptors)


async def honest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What the real agent does."""
    asked = _ASKED.fullmatch(await reader.readuntil(b"\r\n\r\n"))
    assert asked
    with socket.socket() as sock:
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(asked[1])))
        except OSError:
            writer.write(REFUSED)
            await writer.drain()
        else:
            send(writer, SWITCHING, [sock.fileno()])


async def carrying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What the real agent does that shares no kernel with the gateway."""
    asked = _ASKED.fullmatch(await reader.readuntil(b"\r\n\r\n"))
    assert asked
    try:
        from_program, to_program = await asyncio.open_connection("127.0.0.1", int(asked[1]))
    except OSError:
        writer.write(REFUSED)
        await writer.drain()
        return
    writer.write(CARRYING)
    try:
        async with asyncio.TaskGroup() as ways:
            ways.create_task(_carry(reader, to_program))
            ways.create_task(_carry(from_program, writer))
    finally:
        to_program.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def handing(data: bytes, make: Callable[[], Sequence[socket.socket | int]]) -> Handler:
    """An agent that sends `data` with whatever `make` makes, and closes its own copies."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        made = make()
        try:
            send(writer, data, [item if isinstance(item, int) else item.fileno() for item in made])
        finally:
            for item in made:
                os.close(item) if isinstance(item, int) else item.close()
        await reader.read()

    return handler


async def program(gw: Harness, handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> int:
    """Starts a program that does what `handler` does with each connection; its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await handler(reader, writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        except BaseException:
            writer.transport.abort()
            raise

    server = await asyncio.start_server(serve, "127.0.0.1", 0)

    async def stop() -> None:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    gw.stack.push_async_callback(stop)
    return server.sockets[0].getsockname()[1]


async def application(gw: Harness, app: ASGIApp) -> int:
    """Starts `app` in uvicorn; its port."""
    config = uvicorn.Config(app, lifespan="off", log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]  # signals belong to pytest
    sock = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[sock]))

    async def stop() -> None:
        server.should_exit = True
        await task
        sock.close()

    gw.stack.push_async_callback(stop)
    return sock.getsockname()[1]
