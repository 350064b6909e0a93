"""What a namespace used, day by day."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cove.core.clock import Clock, utc
from cove.core.retention import DEFAULT_AUDIT_DAYS, TOMBSTONE_SECONDS
from cove.core.storage import Store, UnitOfWork
from cove.models.stored import StoredUsage

DAY_SECONDS = 86400
MAX_DAYS = 90
RESOURCE_DAYS = int(TOMBSTONE_SECONDS) // DAY_SECONDS
"""How far back resources are known: rows of sandboxes that ended are kept so long."""


@dataclass(frozen=True, slots=True)
class Day:
    """One day, UTC. `start` is its midnight, in unix seconds."""

    start: float

    @property
    def end(self) -> float:
        """The next midnight."""
        return self.start + DAY_SECONDS

    @property
    def date(self) -> str:
        """For example `2026-11-22`."""
        return utc(self.start).date().isoformat()


class UsageReport:
    """Reads it from the store; nothing is kept for it alone.

    Args:
        event_days: how far back events are known.
    """

    def __init__(self, store: Store, *, clock: Clock, event_days: int = DEFAULT_AUDIT_DAYS) -> None:
        self._event_days = event_days
        self._store = store
        self._clock = clock

    async def sandboxes(self, namespace: str, *, live: int, days: int) -> Mapping[Day, int]:
        """How many sandboxes existed at some time of each day, as far back as events are known.

        Args:
            live: how many exist now, from where the events are counted back.
        """
        asked = self.days(min(days, self._event_days))
        return await self._store.read(lambda work: _existed(work, namespace, live, asked))

    async def resources(self, namespace: str, *, days: int) -> Mapping[Day, StoredUsage]:
        """Limits times hours on each day, as far back as they are known."""
        asked = self.days(min(days, RESOURCE_DAYS))
        now = self._clock()

        def read(work: UnitOfWork) -> Mapping[Day, StoredUsage]:
            return {day: work.usage.between(namespace, start=day.start, end=min(day.end, now)) for day in asked}

        return await self._store.read(read)

    def days(self, count: int) -> tuple[Day, ...]:
        """The last days, oldest first; today is the last."""
        today = self._clock() // DAY_SECONDS * DAY_SECONDS
        return tuple(Day(today - ago * DAY_SECONDS) for ago in range(count - 1, -1, -1))


def _existed(work: UnitOfWork, namespace: str, live: int, days: tuple[Day, ...]) -> Mapping[Day, int]:
    existed: dict[Day, int] = {}
    at_end = live
    for day in reversed(days):
        began = work.usage.count_events(namespace, "sandbox.created", start=day.start, end=day.end)
        ended = work.usage.count_events(namespace, "sandbox.ended", start=day.start, end=day.end)
        existed[day] = at_end + ended
        at_end += ended - began
    return MappingProxyType({day: max(0, existed[day]) for day in days})
