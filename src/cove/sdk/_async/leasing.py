"""Client leases: sandboxes that live no longer than this program.

There is no blocking form: a lease is a connection that has to be read beside everything else.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
from pydantic import ValidationError

from cove.models.client_leases import LEASE_EVENT, LEASE_PATH, LeaseOpened
from cove.models.errors import CoveError, error
from cove.sdk._async.control import AsyncControlPlane
from cove.sdk._async.wire import AsyncWire
from cove.sdk._requests import Call

STALL_SECONDS = 20.0
"""The server says every 5 s that it is there."""

_MAX_EVENT_BYTES = 64 * 1024


class AsyncLeasedControlPlane(AsyncControlPlane):
    """A control plane that sees only what was made with it. All of that ends when the lease does.

    Attributes:
        lease_id: of the lease.
    """

    def __init__(self, lease_id: str, wire: AsyncWire) -> None:
        super().__init__(wire=wire)
        self.lease_id = lease_id
        self._lost = asyncio.Event()

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone: every call is refused then."""
        return self._lost.is_set()

    async def wait_lost(self) -> None:
        """Return when the connection is gone: the server has ended, or does not answer any more."""
        await self._lost.wait()

    async def watch(self, lines: AsyncGenerator[bytes]) -> None:
        """Read on, so that the server can go on saying that it is there; at the end the lease is lost."""
        try:
            with suppress(CoveError, httpx2.TransportError):
                async for _ in lines:
                    pass
        finally:
            self._lost.set()
            await lines.aclose()


@asynccontextmanager
async def leased(control: AsyncControlPlane) -> AsyncGenerator[AsyncLeasedControlPlane]:
    """See `AsyncControlPlane.lease`.

    Raises:
        CoveError: the server gives no lease.
    """
    call = Call(method="POST", path=LEASE_PATH, timeout=math.inf, stall=STALL_SECONDS)
    async with control.stream(call) as pieces:
        lines = _lines(pieces)
        opened = await _opened(lines)
        held = AsyncLeasedControlPlane(opened.id, control.wire.another(api_key=opened.api_key))
        watching = asyncio.create_task(held.watch(lines), name=f"client lease {opened.id}")
        try:
            async with held:
                yield held
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


async def _opened(lines: AsyncGenerator[bytes]) -> LeaseOpened:
    try:
        event = LEASE_EVENT.validate_json(await anext(lines))
    except (StopAsyncIteration, ValidationError):
        event = None
    if not isinstance(event, LeaseOpened):
        raise error("INTERNAL_ERROR", "The server did not begin its answer with a lease.")
    return event


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > _MAX_EVENT_BYTES:
            raise error("INTERNAL_ERROR", "The server sent an event without end.")
        for line in whole:
            yield line
