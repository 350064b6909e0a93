"""How long the store remembers what is over."""

import asyncio

import structlog

from cove.core.clock import Clock
from cove.core.idempotency import REMEMBERED_SECONDS
from cove.core.storage import Store, UnitOfWork
from cove.models.errors import CoveError

TOMBSTONE_SECONDS = 7 * 24 * 3600.0
EXECUTION_SECONDS = 7 * 24 * 3600.0
DEFAULT_AUDIT_DAYS = 90
OLD_KEY_SECONDS = 90 * 24 * 3600.0
_EVERY_SECONDS = 3600.0
_DAY_SECONDS = 24 * 3600.0


class Retention:
    """Drops tombstones, asynchronous executions and events that are old."""

    def __init__(self, store: Store, *, clock: Clock, audit_days: int = DEFAULT_AUDIT_DAYS) -> None:
        self._store = store
        self._event_seconds = audit_days * _DAY_SECONDS
        self._clock = clock
        self._log = structlog.get_logger("cove.retention")

    async def run(self) -> None:
        """Once an hour, until cancelled."""
        while True:
            try:
                await self.prune()
            except CoveError as failure:
                self._log.warning("prune_failed", error=str(failure))
            await asyncio.sleep(_EVERY_SECONDS)

    async def prune(self) -> int:
        """Drop what is old now; how many rows."""
        now = self._clock()
        return await self._store.write(lambda work: _prune(work, now, self._event_seconds))


def _prune(work: UnitOfWork, now: float, event_seconds: float) -> int:
    tombstones = work.sandboxes.prune(ended_before=now - TOMBSTONE_SECONDS)
    executions = work.executions.prune(ended_before=now - EXECUTION_SECONDS)
    creates = work.creates.prune(before=now - REMEMBERED_SECONDS)
    keys = work.keys.prune(over_before=now - OLD_KEY_SECONDS)
    return tombstones + executions + creates + keys + work.events.prune(before=now - event_seconds)
