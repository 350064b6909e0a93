"""Which idempotency keys may be known to the store: kept in memory, so that a new key, as most are, need not be looked
up before its sandbox is made.
"""

import structlog

from cove.core.background import Background
from cove.core.clock import Clock
from cove.core.storage import Store
from cove.models.errors import CoveError

_MOST = 50_000
_MARK_BYTES = 8
_AGAIN_SECONDS = 600.0


class KnownCreates:
    """A filter that errs on one side only: what it does not know is not in the store.

    It is read at the first use, while the store is asked for each key; so it is when there are too many keys.
    """

    def __init__(self, store: Store, background: Background, *, remembered_seconds: float, clock: Clock) -> None:
        self._store = store
        self._background = background
        self._remembered_seconds = remembered_seconds
        self._clock = clock
        self._known: set[int] | None = None
        self._meanwhile: set[int] | None = None
        self._not_before = float("-inf")
        self._log = structlog.get_logger("cove.idempotency")

    def may_have(self, scope: bytes) -> bool:
        """Whether the store may know this create."""
        if self._known is not None:
            return _mark(scope) in self._known
        if self._meanwhile is None and self._clock() >= self._not_before:
            self._meanwhile = set()
            self._background.spawn(self._load(), name="read idempotency keys")
        return True

    def note(self, scope: bytes) -> None:
        """The store is about to learn it."""
        into = self._meanwhile if self._known is None else self._known
        if into is not None:
            into.add(_mark(scope))
            if len(into) > _MOST:
                self._give_up()

    async def _load(self) -> None:
        since = self._clock() - self._remembered_seconds
        try:
            found = await self._store.read(lambda work: work.creates.scopes(since=since, limit=_MOST + 1))
        except CoveError as failure:
            self._log.warning("keys_not_read", error=str(failure))
            self._give_up()
            return
        if self._meanwhile is None or len(found) > _MOST:
            self._give_up()
            return
        self._known = self._meanwhile.union(map(_mark, found))
        self._meanwhile = None

    def _give_up(self) -> None:
        """For a while: then the oldest keys are forgotten, and there may be fewer."""
        self._known = self._meanwhile = None
        self._not_before = self._clock() + _AGAIN_SECONDS


def _mark(scope: bytes) -> int:
    return int.from_bytes(scope[:_MARK_BYTES])
