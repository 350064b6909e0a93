"""`POST /v1/client-leases`: an answer without end, and sandboxes that live no longer than its connection."""

import asyncio
from contextlib import suppress

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cove.core.client_leases import ClientLease, ClientLeases
from cove.core.principal import Principal
from cove.models.base import Contract
from cove.models.client_leases import LEASE_PATH, LeaseAlive, LeaseOpened
from cove.server.api.context import principal_of

ALIVE_SECONDS = 5.0
_CONTENT_TYPE = "application/x-ndjson"


def lease_routes(leases: ClientLeases) -> APIRouter:
    """The route, over these leases."""
    router = APIRouter(tags=["sandboxes"])

    @router.post(LEASE_PATH, response_class=Response)
    async def open_client_lease(request: Request) -> Response:
        """Hold sandboxes for as long as this answer is being read: a `lease` event with a key, then `alive` events.

        Sandboxes that are made with the key are killed when the connection is lost, for whatever reason.
        """
        return _LeaseStream(leases, principal_of(request.scope))

    return router


class _LeaseStream(Response):
    """Sends events until the client has gone, or is to go. Whatever ends it ends the lease."""

    def __init__(self, leases: ClientLeases, principal: Principal) -> None:
        super().__init__(media_type=_CONTENT_TYPE)
        del self.headers["content-length"]
        self._leases = leases
        self._principal = principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        async with self._leases.open(self._principal) as lease:
            gone = asyncio.create_task(_gone(receive))
            ending = asyncio.create_task(_set(lease.ending))
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._events(lease, {gone, ending}, send)
                if not gone.done():
                    await send({"type": "http.response.body", "body": b""})
            finally:
                for task in (gone, ending):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task

    async def _events(self, lease: ClientLease, ends: set[asyncio.Task[None]], send: Send) -> None:
        event: Contract = LeaseOpened(id=lease.id, api_key=lease.api_key)
        done: set[asyncio.Task[None]] = set()
        while not done:
            line = event.model_dump_json().encode() + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})
            done, _ = await asyncio.wait(ends, timeout=ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            event = LeaseAlive()


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _gone(receive: Receive) -> None:
    """Wait until the client has closed. Whatever it still sends is of no interest."""
    while (await receive())["type"] != "http.disconnect":
        pass
