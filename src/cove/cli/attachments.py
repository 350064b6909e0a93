"""Servers as `cove mcp` reaches them: one that was named, or the one of this machine, held by a client lease."""

import asyncio
from pathlib import Path
from typing import Final, Self

from cove.cli.local_server import START_SECONDS, Start, find
from cove.mcp.attached_caller import Attach, Attachment
from cove.mcp.patient_control import PatientControlPlane
from cove.models.errors import CoveError, error
from cove.sdk import AsyncControlPlane

_ATTEMPT_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.1
_OPEN_SECONDS: Final = 10.0
_ENDING: Final = frozenset({"NETWORK_ERROR", "HOST_UNAVAILABLE", "AUTHENTICATION_REQUIRED"})
"""How a server answers that is about to end."""


class NamedAttachment:
    """A server that somebody else looks after."""

    def __init__(self, control: AsyncControlPlane) -> None:
        self.control = control

    @property
    def lost(self) -> bool:
        """Never: each call finds out anew."""
        return False

    async def aclose(self) -> None:
        """Close the connections; sandboxes stay until their deadlines."""
        await self.control.aclose()


def attach_named(url: str, key: str | None) -> Attach:
    """For the server with this URL. Nothing is asked of it here: each call says what is wrong with it or the key."""

    async def attach() -> Attachment:
        return NamedAttachment(PatientControlPlane(base_url=url, api_key=key))

    return attach


class LeasedAttachment:
    """A server that ends what was made here when this process goes away, however it does."""

    def __init__(self, base_url: str, key: str) -> None:
        self._owner = AsyncControlPlane(base_url=base_url, api_key=key)
        self._opened: asyncio.Future[AsyncControlPlane] = asyncio.get_running_loop().create_future()
        # In a task of its own: the call that attaches ends long before the lease does.
        self._holding = asyncio.create_task(self._hold(), name="client lease")

    async def opened(self) -> Self:
        """Return when there is a lease.

        Raises:
            CoveError: the server gives none, or not in time.
        """
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                await asyncio.shield(self._opened)
        except TimeoutError:
            await self.aclose()
            raise error("HOST_UNAVAILABLE", "The local server did not answer in time.") from None
        except BaseException:
            await self.aclose()
            raise
        return self

    @property
    def control(self) -> AsyncControlPlane:
        """With the key of the lease."""
        return self._opened.result()

    @property
    def lost(self) -> bool:
        """Whether the connection is gone that the lease stands on."""
        return self._holding.done()

    async def aclose(self) -> None:
        """End the lease, and with it all sandboxes that were made over it."""
        self._holding.cancel()
        await asyncio.gather(self._holding, return_exceptions=True)
        if not self._opened.done():
            self._opened.cancel()
        await self._owner.aclose()

    async def _hold(self) -> None:
        try:
            async with self._owner.lease() as leased:
                self._opened.set_result(PatientControlPlane(wire=leased.wire))
                await leased.wait_lost()
        except CoveError as problem:
            if not self._opened.done():
                self._opened.set_exception(problem)


class LocalAttacher:
    """Finds the server of a data directory, or starts one."""

    def __init__(self, data_dir: Path, begun: Start | CoveError | None) -> None:
        """`begun` is what came of beginning a start already. It is seen to at once, as nobody else can start a server
        meanwhile, although it may take long until the first call."""
        self._data_dir = data_dir
        self._begun = asyncio.create_task(_over(begun), name="start of the local server")

    async def attach(self) -> Attachment:
        """
        Raises:
            CoveError: there is none to be had.
        """
        problem = await asyncio.shield(self._begun)
        if problem is not None:
            self._begun = asyncio.create_task(_over(None))
            raise problem
        loop = asyncio.get_running_loop()
        last: float | None = None
        while True:
            address = await find(self._data_dir)
            try:
                return await LeasedAttachment(address.base_url, address.key).opened()
            except CoveError as problem:
                last = last or loop.time() + _ATTEMPT_SECONDS
                if problem.code not in _ENDING or loop.time() > last:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)


async def _over(begun: Start | CoveError | None) -> CoveError | None:
    """What kept it from starting, if anything did."""
    if not isinstance(begun, Start):
        return begun
    try:
        await begun.over(START_SECONDS)
    except CoveError as problem:
        return problem
    return None
