"""The audit log, as far as it is not written together with the changes that it tells of.

What changes a sandbox, a key or a namespace is noted in the transaction of the change (`UnitOfWork.events`). What goes
to agents, and what is refused, is noted here: in memory, in a fixed time, and written in batches a moment later. What
does not fit is counted, and that becomes an entry too.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import replace
from typing import Final

import structlog

from cove.core.aggregation import Aggregation
from cove.core.clock import Clock
from cove.core.principal import ANONYMOUS_ACTOR, SYSTEM_ACTOR, Origin, Principal
from cove.core.storage import Store, UnitOfWork
from cove.models.errors import CoveError
from cove.models.scopes import EVERY_NAMESPACE
from cove.models.stored import DEFAULT_NAMESPACE, StoredEvent

MAX_WAITING: Final = 10_000
"""Entries in memory that are not written yet."""

MAX_STREAMS: Final = 8192
MAX_REFUSED_STREAMS: Final = 1024
MAX_ANONYMOUS_STREAMS: Final = 64
"""Addresses that fail to authenticate and are told apart; the others share an entry."""

BURST: Final = 60
BURST_ANONYMOUS: Final = 3
_PER_SECOND: Final = 0.1
_ANONYMOUS_PER_SECOND: Final = 0.01
_EVERY_SECONDS: Final = 0.5
_BATCH: Final = 500
_KNOWN: Final = 4096

_SANDBOX = ""
"""Namespace of entries about a sandbox, until it has been looked up."""


class AuditTrail:
    """Takes entries at any rate, and writes them."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: deque[StoredEvent] = deque()
        self._traffic = Aggregation(most=MAX_STREAMS, burst=BURST, per_second=_PER_SECOND)
        self._refused = Aggregation(most=MAX_REFUSED_STREAMS, burst=BURST, per_second=_PER_SECOND)
        self._anonymous = Aggregation(
            most=MAX_ANONYMOUS_STREAMS, burst=BURST_ANONYMOUS, per_second=_ANONYMOUS_PER_SECOND
        )
        self._crowd = Aggregation(most=8, burst=1, per_second=_ANONYMOUS_PER_SECOND)
        self._namespaces: OrderedDict[str, str] = OrderedDict()
        self._gap = 0
        self._lost = 0
        self._log = structlog.get_logger("cove.audit")

    @property
    def lost(self) -> int:
        """Entries that were not written, since the start."""
        return self._lost

    def note(self, event: StoredEvent) -> None:
        """Write an entry soon."""
        if len(self._waiting) >= MAX_WAITING:
            self._lose(1)
        else:
            self._waiting.append(event)

    def server(self, action: str, **details: object) -> None:
        """Note what the server itself does."""
        event = StoredEvent(
            at=self._clock(),
            namespace=DEFAULT_NAMESPACE,
            actor=SYSTEM_ACTOR,
            action=action,
            subject="server",
            details=details,
        )
        self.note(event)

    def repeated(self, event: StoredEvent) -> None:
        """As `note`, for what one principal may do to one thing very often."""
        self._take(self._traffic, (event.subject, event.actor, event.action), event)

    def to_agent(self, sandbox_id: str, actor: str, action: str, route: str, size: int, origin: Origin) -> None:
        """A request went to the agent of a sandbox.

        Args:
            actor: whom its token was made for.
            size: announced bytes of the body.
        """
        event = StoredEvent(
            at=self._clock(),
            namespace=_SANDBOX,
            actor=actor,
            action=action,
            subject=sandbox_id,
            details={"route": route},
            request_id=origin.request_id,
            address=origin.address,
        )
        self._take(self._traffic, (sandbox_id, actor, route), event, size)

    def refused(self, principal: Principal | None, route: str, subject: str, code: str, origin: Origin) -> None:
        """A request was refused.

        Args:
            principal: None for one that was not authenticated.
            subject: what it was about; of those that are counted together the first is named.
        """
        event = StoredEvent(
            at=self._clock(),
            namespace=_namespace_of(principal),
            actor=ANONYMOUS_ACTOR if principal is None else principal.actor,
            action="request.refused",
            subject=subject,
            details={"route": route},
            outcome=code,
            request_id=origin.request_id,
            address=origin.address,
        )
        if principal is not None:
            self._take(self._refused, (event.namespace, event.actor, code), event)
        elif self._anonymous.admits(key := (origin.address, code)):
            self._take(self._anonymous, key, event)
        else:
            self._take(self._crowd, code, event)

    async def run(self) -> None:
        """Write what has come, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            await self.flush()

    async def flush(self, *, everything: bool = False) -> None:
        """Write what has come, now; with `everything` also what is still being counted."""
        now = self._clock()
        for streams in (self._traffic, self._refused, self._anonymous, self._crowd):
            for event in streams.due(now=now, everything=everything):
                self.note(event)
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            if not await self._write(batch):
                return
            if self._gap and not self._waiting:
                self._waiting.append(self._missing(now))

    def _take(self, streams: Aggregation, key: Hashable, event: StoredEvent, size: int = 0) -> None:
        single = streams.take(key, event, size)
        if single is not None:
            self.note(single)

    def _lose(self, count: int) -> None:
        self._gap += count
        self._lost += count

    async def _write(self, batch: list[StoredEvent]) -> bool:
        try:
            await self._learn({event.subject for event in batch if event.namespace == _SANDBOX})
            events = [self._placed(event) for event in batch]
            await self._store.write(lambda work: work.events.extend(events))
        except CoveError as failure:
            self._log.error("audit_not_written", entries=len(batch), error=str(failure))
            room = MAX_WAITING - len(self._waiting)
            self._waiting.extendleft(reversed(batch[:room]))
            self._lose(len(batch[room:]))
            return False
        return True

    def _missing(self, now: float) -> StoredEvent:
        """Says that entries are missing, next to where they would be."""
        missing, self._gap = self._gap, 0
        self._log.error("audit_gap", entries=missing)
        return StoredEvent(
            at=now,
            namespace=DEFAULT_NAMESPACE,
            actor=SYSTEM_ACTOR,
            action="audit.gap",
            subject="audit",
            details={"count": missing},
        )

    async def _learn(self, sandbox_ids: set[str]) -> None:
        """Whose sandboxes these are: that never changes."""
        unknown = sandbox_ids - self._namespaces.keys()
        if not unknown:
            return
        found = await self._store.read(lambda work: _namespaces(work, unknown))
        self._namespaces.update(found)
        while len(self._namespaces) > _KNOWN:
            self._namespaces.popitem(last=False)

    def _placed(self, event: StoredEvent) -> StoredEvent:
        if event.namespace != _SANDBOX:
            return event
        return replace(event, namespace=self._namespaces.get(event.subject, DEFAULT_NAMESPACE))


def _namespace_of(principal: Principal | None) -> str:
    if principal is None or principal.namespace == EVERY_NAMESPACE:
        return DEFAULT_NAMESPACE
    return principal.namespace


def _namespaces(work: UnitOfWork, sandbox_ids: set[str]) -> dict[str, str]:
    rows = [work.sandboxes.get(sandbox_id) for sandbox_id in sandbox_ids]
    return {row.id: row.namespace for row in rows if row is not None}
