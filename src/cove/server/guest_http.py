"""HTTP requests of the server's own to agents, over their unix sockets. Nothing that an agent answers is trusted:
sizes and times are bounded, and only answers of the plainest form are understood (RFC 9112)."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

from cove.core.slots import KeyedSlots

_MAX_HEAD_BYTES = 16 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})( [^\r\n]*)?\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*\r\n", re.IGNORECASE)
_FREE_BYTES = 64 * 1024

FAILURES = (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError)
"""What a request raises when there was no answer that could be understood in time."""


class LargeBodies:
    """Where large answers wait for each other, so that many sandboxes together cannot fill the server's memory; of one
    tenant's only one is read at a time, so that slow ones of his do not keep others waiting."""

    def __init__(self, *, at_once: int, max_bytes: int, read_seconds: float = 10.0) -> None:
        self.max_bytes = max_bytes
        self._read_seconds = read_seconds
        self._tenants = KeyedSlots(1)
        self._slots = asyncio.Semaphore(at_once)

    async def read(self, reader: asyncio.StreamReader, size: int, owner: str) -> bytes:
        """That many bytes.

        Raises:
            EOFError, OSError, TimeoutError: they did not come.
        """
        async with self._tenants.hold(owner), self._slots, asyncio.timeout(self._read_seconds):
            return await reader.readexactly(size)


@dataclass(frozen=True, slots=True)
class GuestAnswer:
    """Status and body. `oversized` says that the body was larger than is read, and is left out."""

    status: int
    body: bytes = b""
    oversized: bool = False


async def ask(
    socket_path: str | Path,
    method: str,
    path: str,
    body: bytes,
    *,
    large: LargeBodies | None = None,
    owner: str = "",
) -> GuestAnswer:
    """One request on a connection of its own; the caller bounds the time. Without `large` the answer's body is not
    read. Status 0 stands for an answer that is not HTTP. `owner` is the tenant whose sandbox it is.

    Raises:
        OSError, EOFError, asyncio.LimitOverrunError: there was no answer.
    """
    reader, writer = await asyncio.open_unix_connection(socket_path, limit=_MAX_HEAD_BYTES)
    try:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        answered = await reader.readuntil(b"\r\n\r\n")
        line = _STATUS_LINE.match(answered)
        status = int(line.group(1)) if line else 0
        return GuestAnswer(status) if large is None else await _with_body(reader, status, answered, large, owner)
    finally:
        writer.transport.abort()


async def _with_body(
    reader: asyncio.StreamReader, status: int, head: bytes, large: LargeBodies, owner: str
) -> GuestAnswer:
    announced = _LENGTH.search(head)
    size = int(announced.group(1)) if announced else 0
    if size > large.max_bytes:
        return GuestAnswer(status, oversized=True)
    if size <= _FREE_BYTES:
        return GuestAnswer(status, await reader.readexactly(size))
    return GuestAnswer(status, await large.read(reader, size, owner))
