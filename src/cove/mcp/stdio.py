"""The stdio transport: one JSON-RPC message a line, in both directions, until the client closes its end."""

import asyncio
import contextlib
import json
import os
import stat
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from cove.mcp.standard_streams import Wire

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_TOO_LONG: Final = f"A message may have {MAX_MESSAGE_BYTES} bytes."
_READ_BYTES: Final = 64 * 1024
_FLUSH_SECONDS: Final = 2.0
_LAST_SECONDS: Final = 0.5
"""For what can be answered at once when the client says no more, as in `printf ... | cove mcp`."""
_log = structlog.get_logger("cove.mcp.stdio")

Inbound = SessionMessage | Exception


async def serve_stdio(server: Server[Any], wire: Wire, *, on_end: Callable[[], None] = lambda: None) -> None:
    """Serve one client until its end of input, and until what it asked for is cancelled.

    Args:
        on_end: called at the end of input, when what can be answered at once has been.
    """
    requests, for_server = anyio.create_memory_object_stream[Inbound]()
    from_server, answers = anyio.create_memory_object_stream[SessionMessage]()
    async with _streams(wire) as (reader, writer), asyncio.TaskGroup() as group:
        output = _Output(writer, answered=wire.answered)
        reading = group.create_task(_read(reader, requests, output))
        reading.add_done_callback(lambda _: on_end())
        group.create_task(_write(output, answers))
        await server.run(for_server, from_server, server.create_initialization_options())


class _Output:
    """Writes messages, whole and one after the other; drops the library's answer to what has been answered already."""

    def __init__(self, writer: asyncio.StreamWriter, *, answered: bytes | None) -> None:
        self._writer = writer
        self._answered = None if answered is None else json.loads(answered)["id"]
        self._unanswered: set[int | str] = set()
        self._idle = asyncio.Event()

    def expect(self, message: JSONRPCMessage) -> None:
        """The client has sent this."""
        if isinstance(message, JSONRPCRequest):
            self._unanswered.add(message.id)
            self._idle.clear()

    async def finished(self, seconds: float) -> None:
        """Wait until every request has its answer, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds if self._unanswered else 0):
                await self._idle.wait()

    async def send(self, message: JSONRPCMessage) -> None:
        if not self._is_repeated(message):
            await self.send_text(message.model_dump_json(by_alias=True, exclude_unset=True))
        if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
            self._unanswered.discard(message.id)
            if not self._unanswered:
                self._idle.set()

    async def send_text(self, text: str) -> None:
        self._writer.write(text.encode() + b"\n")
        await self._writer.drain()

    def _is_repeated(self, message: JSONRPCMessage) -> bool:
        if self._answered is None or not isinstance(message, JSONRPCResponse | JSONRPCError):
            return False
        if type(message.id) is not type(self._answered) or message.id != self._answered:
            return False
        self._answered = None
        if isinstance(message, JSONRPCError):
            _log.error("greeting_was_wrong", code=message.error.code, reason=message.error.message)
        return True


async def _read(reader: asyncio.StreamReader, requests: MemoryObjectSendStream[Inbound], output: _Output) -> None:
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
        async with requests:
            while (line := await _next_line(reader)) is not None:
                if line.isspace():
                    continue
                message = _parsed(line) if line else _refusal(INVALID_REQUEST, _TOO_LONG)
                if isinstance(message, str):
                    await output.send_text(message)
                else:
                    output.expect(message)
                    await requests.send(SessionMessage(message))
            await output.finished(_LAST_SECONDS)


async def _write(output: _Output, answers: MemoryObjectReceiveStream[SessionMessage]) -> None:
    with contextlib.suppress(ConnectionError):
        async with answers:
            async for answer in answers:
                await output.send(answer.message)


async def _next_line(reader: asyncio.StreamReader) -> bytes | None:
    """The next line; nothing in place of one that is too long; None at the end of input."""
    too_long = False
    while True:
        try:
            line = await reader.readuntil(b"\n")
            return b"" if too_long else line
        except asyncio.LimitOverrunError as over:
            await reader.readexactly(over.consumed)
            too_long = True
        except asyncio.IncompleteReadError as end:
            return end.partial or None


def _parsed(line: bytes) -> JSONRPCMessage | str:
    """The message, or the text of an answer that refuses it."""
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError as problem:
        not_json = problem.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid"
        return _refusal(PARSE_ERROR, "Parse error") if not_json else _refusal(INVALID_REQUEST, "Invalid request")


def _refusal(code: int, text: str) -> str:
    """JSON-RPC 2.0, section 5.1: of a message that cannot be read the id is not known."""
    return json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": text}})


@contextlib.asynccontextmanager
async def _streams(wire: Wire) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The wire as streams. At the end what was written is flushed, bounded in time."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES, loop=loop)
    reader.feed_data(wire.held)
    source, sink = _pollable(wire.source, reads=True), _pollable(wire.sink, reads=False)
    incoming, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), os.fdopen(source.descriptor, "rb", buffering=0)
    )
    outgoing, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(sink.descriptor, "wb", buffering=0)
    )
    outgoing.set_write_buffer_limits(high=0)  # a drain waits until all is written
    try:
        yield reader, asyncio.StreamWriter(outgoing, protocol, None, loop)
    finally:
        incoming.close()
        outgoing.close()
        await asyncio.sleep(0)
        if sink.pump is not None:
            await asyncio.to_thread(sink.pump.join, _FLUSH_SECONDS)


class _Pollable:
    def __init__(self, descriptor: int, pump: threading.Thread | None = None) -> None:
        self.descriptor = descriptor
        self.pump = pump


def _pollable(descriptor: int, *, reads: bool) -> _Pollable:
    """The descriptor itself if it is a pipe or a socket, as all clients give; else a pipe to or from a thread that
    copies: files and terminals are not for the event loop (epoll_ctl(2), EPERM), nor to be made non-blocking."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return _Pollable(descriptor)
    ours, theirs = os.pipe() if reads else reversed(os.pipe())
    ends = (descriptor, theirs) if reads else (theirs, descriptor)
    pump = threading.Thread(target=_copy, args=ends, name="stdio", daemon=True)
    pump.start()
    return _Pollable(ours, pump)


def _copy(source: int, sink: int) -> None:
    with contextlib.suppress(OSError):
        while piece := os.read(source, _READ_BYTES):
            while piece:
                piece = piece[os.write(sink, piece) :]
    with contextlib.suppress(OSError):
        os.close(sink)
