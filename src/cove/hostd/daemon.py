"""Serve a host on a unix socket."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pydantic
import structlog

from cove.core.ports import Host
from cove.hostd import wire
from cove.models.errors import CoveError, error

_CALLS_AT_ONCE: Final = 1024
_log = structlog.get_logger(__name__)


class Daemon:
    """Accepts connections and carries out their calls on a host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def listen(self, path: Path, *, mode: int = 0o600) -> None:
        """Listen at `path`; a socket that a dead daemon left there is replaced."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        mask = os.umask(0o777 & ~mode)
        try:
            self._server = await asyncio.start_unix_server(self._serve, path, limit=wire.MAX_LINE)
            self._path = path
        finally:
            os.umask(mask)

    async def close(self) -> None:
        """Stop accepting, end running calls, hang up, remove the socket."""
        if self._server:
            self._server.close()
        if self._path:
            self._path.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._connections:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        free = asyncio.Semaphore(_CALLS_AT_ONCE)
        try:
            while line := await reader.readline():
                await free.acquire()
                task = asyncio.create_task(self._answer(line, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                task.add_done_callback(lambda _: free.release())
        except (OSError, ValueError, asyncio.CancelledError):
            # A line over the limit, or a broken connection: whoever was there is not there any more.
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        identifier = 0
        try:
            message = json.loads(line)
            identifier = int(message["id"])
            await self._call(identifier, str(message["call"]), message.get("args") or {}, writer)
        except CoveError as problem:
            _write(writer, wire.encode({"id": identifier, "error": wire.error_to_wire(problem)}))
        except (ValueError, KeyError, TypeError) as problem:
            refused = error("INVALID_REQUEST", f"Not a call: {problem}")
            _write(writer, wire.encode({"id": identifier, "error": wire.error_to_wire(refused)}))
        except Exception as problem:
            _log.exception("call_failed")
            failed = error("INTERNAL_ERROR", f"The host daemon failed: {type(problem).__name__}.")
            _write(writer, wire.encode({"id": identifier, "error": wire.error_to_wire(failed)}))

    async def _call(self, identifier: int, call: str, raw: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if call not in wire.CALLS:
            raise error("INVALID_REQUEST", f"The host daemon knows no call {call!r}.")
        try:
            arguments = wire.CALLS[call][0].model_validate(raw)
        except pydantic.ValidationError as problem:
            raise wire.invalid(problem) from problem
        values = {name: getattr(arguments, name) for name in type(arguments).model_fields}
        result = getattr(self._host, call)(*values.values())
        if isinstance(result, AsyncIterator):
            async for item in result:  # pyright: ignore[reportUnknownVariableType]
                _write(writer, wire.encode_value(call, identifier, "item", item))
                await writer.drain()
            _write(writer, wire.encode({"id": identifier, "ok": None}))
            return
        _write(writer, wire.encode_value(call, identifier, "ok", await result))


def _write(writer: asyncio.StreamWriter, line: bytes) -> None:
    if not writer.is_closing():
        writer.write(line)
