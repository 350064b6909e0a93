"""Hears of sandboxes that end by themselves as it happens; whatever is missed, the reconciler finds."""

import asyncio

import structlog

from cove.core.ports import Host
from cove.core.reconciler import Reconciler
from cove.models.errors import CoveError, error
from cove.models.hosts import HostChanges

_ASK_SECONDS = 25.0
_ANSWER_SECONDS = 10.0
_AGAIN_SECONDS = 0.5


class HostWatcher:
    """Asks the host what ended, one long question after the other."""

    def __init__(self, host: Host, reconciler: Reconciler) -> None:
        self._host = host
        self._reconciler = reconciler
        self._log = structlog.get_logger("cove.host_watcher")

    async def run(self) -> None:
        """Until cancelled; while the host does not answer, its endings are the reconciler's matter."""
        cursor = ""
        while True:
            try:
                changes = await self._ask(cursor)
                cursor = changes.cursor
                if changes.complete:
                    await self._reconciler.hear(changes.ended, changes.reasons)
                    continue
                await self._reconciler.try_pass()
            except CoveError as failure:
                self._log.debug("host_changes_failed", code=failure.code, error=str(failure))
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _ask(self, cursor: str) -> HostChanges:
        try:
            async with asyncio.timeout(_ASK_SECONDS + _ANSWER_SECONDS):
                return await self._host.changes(cursor, _ASK_SECONDS)
        except TimeoutError:
            raise error("HOST_UNAVAILABLE", "The host did not say in time what has changed.") from None
