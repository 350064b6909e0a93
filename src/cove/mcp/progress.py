"""Telling the client that a program still runs, and what it printed last."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from mcp.shared.exceptions import MCPError

from cove.mcp.tool import Call

_EVERY_SECONDS = 1.0
_MAX_LINE = 200
_MAX_HELD = 4 * _MAX_LINE


class LastLine:
    """The last line of a text that comes in pieces; only as much of it as is shown."""

    def __init__(self) -> None:
        self._held = ""

    def take(self, piece: str) -> None:
        """The next piece."""
        self._held = (self._held + piece[-_MAX_HELD:])[-_MAX_HELD:]

    @property
    def text(self) -> str:
        """The line, without what is not printable; empty before the first one."""
        lines = self._held.split("\n")
        line = next((line for line in reversed(lines) if line.strip()), "")
        return "".join(character for character in line if character.isprintable())[-_MAX_LINE:]


@asynccontextmanager
async def reported(
    call: Call, what: str, *, seconds: float | None = None
) -> AsyncGenerator[Callable[[str], None] | None]:
    """While the block runs, the client hears every second how long it has taken.

    Yields what takes output as it comes, or None where the client does not listen.

    Args:
        what: for people, for example `python`.
        seconds: how many it may take.
    """
    if not call.wants_progress:
        yield None
        return
    line = LastLine()
    ticking = asyncio.create_task(_tick(call, what, line, seconds))
    try:
        yield line.take
    finally:
        ticking.cancel()


async def _tick(call: Call, what: str, line: LastLine, seconds: float | None) -> None:
    begun = time.monotonic()
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        passed = round(time.monotonic() - begun, 1)
        text = f": {line.text}" if line.text else ""
        try:
            await call.report(passed, seconds, f"{what} runs for {passed:g} s{text}")
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, MCPError):
            # Nobody listens any more. If the client has gone, the call is cancelled by the transport.
            return
