"""Work that is done for one client and for nobody else."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

ResultT = TypeVar("ResultT")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result of `work`, which is cancelled when the client goes away: nobody would read it.

    The body of the request must have been read.

    Raises:
        ClientDisconnect: the client went away.
    """
    watch = _Watch(receive, asyncio.current_task())
    watching = asyncio.create_task(watch.run())
    try:
        return await work
    except asyncio.CancelledError:
        if watch.gone:
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()


class _Watch:
    # One task beside the one that works, which is what makes it cheaper than waiting for two.

    def __init__(self, receive: Receive, task: "asyncio.Task[Any] | None") -> None:
        self._receive = receive
        self._task = task
        self.gone = False

    async def run(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self.gone = True
        if self._task is not None:
            self._task.cancel()
