"""Serve a host on a unix socket."""

import asyncio
import contextlib
import functools
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from pathlib import Path
from typing import Any, Final, cast

import pydantic
import structlog

from cove.core.ports import Host
from cove.hostd import wire
from cove.models.errors import CoveError, error

_CALLS_AT_ONCE: Final = 1024
_CONNECTIONS: Final = 64
READ_SECONDS = 60.0
"""So long an answer may wait for who asked to read."""
_LARGEST_ID: Final = 2**53
_PEER: Final = struct.Struct("=3i")
_log = structlog.get_logger(__name__)


class Daemon:
    """Accepts connections and carries out their calls on a host.

    Who calls need not be trusted with more than the calls: at most 64 connections, 1024 calls at once, 2 MiB a call;
    who does not read answers for a minute is hung up on.
    """

    def __init__(self, host: Host, *, server_uid: int | None = None) -> None:
        """`server_uid`: the user, beside root and this process' own, who may call."""
        self._host = host
        self._server_uid = server_uid
        self._users = frozenset({0, os.geteuid()} if server_uid is None else {0, os.geteuid(), server_uid})
        self._calls = _Calls()
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def listen(self, path: Path, *, mode: int = 0o600) -> None:
        """Listen at `path`; a socket that a dead daemon left there is replaced."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        mask = os.umask(0o777 & ~mode)
        try:
            self._server = await asyncio.start_unix_server(self._serve, path, limit=wire.MAX_REQUEST)
            self._path = path
        finally:
            os.umask(mask)
        if self._server_uid is not None and self._server_uid != os.geteuid():
            os.chown(path, self._server_uid, -1, follow_symlinks=False)

    async def close(self) -> None:
        """Stop accepting, end running calls, hang up, remove the socket."""
        if self._server:
            self._server.close()
        if self._path:
            self._path.unlink(missing_ok=True)
        await self._calls.cancel()
        for writer in self._connections:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not _is_one_of(writer, self._users) or len(self._connections) >= _CONNECTIONS:
            _log.warning("caller_refused", connections=len(self._connections))
            writer.close()
            return
        self._connections.add(writer)
        try:
            await _Connection(self._host, self._calls, reader, writer).run()
        except (OSError, ValueError, asyncio.CancelledError):
            # A line over the limit, or a broken connection: whoever was there is not there any more.
            pass
        finally:
            self._connections.discard(writer)
            writer.close()


class _Calls:
    """Those under way, of all connections: they go on when their caller hangs up, until the daemon ends."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Waits until there is room for it."""
        await self._free.acquire()
        task = asyncio.create_task(call())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def cancel(self) -> None:
        """All of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free.release()


class _Connection:
    """One caller: many calls at once, answers one after the other."""

    def __init__(self, host: Host, calls: _Calls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._calls = calls
        self._reader = reader
        self._writer = writer
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Until the caller hangs up."""
        while line := await self._reader.readline():
            await self._calls.begin(functools.partial(self._answer, line))

    async def _answer(self, line: bytes) -> None:
        identifier = 0
        try:
            identifier, call, raw = _request(line)
            del line
            await self._call(identifier, call, raw)
        except CoveError as problem:
            await self._refuse(identifier, problem)
        except Exception as problem:
            _log.exception("call_failed")
            await self._refuse(
                identifier, error("INTERNAL_ERROR", f"The host daemon failed: {type(problem).__name__}.")
            )

    async def _call(self, identifier: int, call: str, raw: dict[str, Any]) -> None:
        if call not in wire.CALLS:
            raise error("INVALID_REQUEST", f"The host daemon knows no call {call[:64]!r}.")
        try:
            arguments = wire.CALLS[call][0].model_validate(raw)
        except pydantic.ValidationError as problem:
            raise wire.invalid(problem) from problem
        values = {name: getattr(arguments, name) for name in type(arguments).model_fields}
        result = getattr(self._host, call)(*values.values())
        if isinstance(result, AsyncIterator):
            async for item in result:  # pyright: ignore[reportUnknownVariableType]
                await self._write(call, identifier, "item", item)
            await self._send(wire.encode({"id": identifier, "ok": None}))
            return
        await self._write(call, identifier, "ok", await result)

    async def _write(self, call: str, identifier: int, kind: str, value: Any) -> None:
        async with self._writing:  # what waits for its turn is not yet text
            await self._send_next(wire.encode_value(call, identifier, kind, value))

    async def _refuse(self, identifier: int, problem: CoveError) -> None:
        await self._send(wire.encode({"id": identifier, "error": wire.error_to_wire(problem)}))

    async def _send(self, line: bytes) -> None:
        async with self._writing:
            await self._send_next(line)

    async def _send_next(self, line: bytes) -> None:
        if self._writer.is_closing():
            return
        self._writer.write(line)
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._writer.drain()
        except TimeoutError:
            _log.warning("caller_does_not_read")
            self._writer.transport.abort()
        except OSError:
            return


def _request(line: bytes) -> tuple[int, str, dict[str, Any]]:
    """
    Raises:
        CoveError: INVALID_REQUEST.
    """
    try:
        message = json.loads(line)
        identifier, call = message["id"], message["call"]
        raw: Any = message.get("args") or {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise error("INVALID_REQUEST", f"Not a call: {type(problem).__name__}.") from problem
    number = type(identifier) is int and 0 <= identifier <= _LARGEST_ID
    if not number or not isinstance(call, str) or not isinstance(raw, dict):
        raise error("INVALID_REQUEST", "Not a call: it has an id, a name, and an object of arguments.")
    return identifier, call, cast("dict[str, Any]", raw)


def _is_one_of(writer: asyncio.StreamWriter, users: Collection[int]) -> bool:
    """Whether the other side belongs to one of these users, as the kernel says (unix(7), SO_PEERCRED)."""
    peer: socket.socket = writer.get_extra_info("socket")
    _, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return uid in users
