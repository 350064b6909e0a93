"""Client leases: sandboxes that end with the connection of the client that asked for them."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import structlog

from cove.core.audit import AuditTrail
from cove.core.background import Background
from cove.core.clock import Clock
from cove.core.delegated_keys import DelegatedKeys
from cove.core.endings import Endings
from cove.core.principal import Principal
from cove.core.storage import Store
from cove.models.errors import CoveError, error
from cove.models.sandboxes import EndReason
from cove.models.scopes import EVERY_NAMESPACE
from cove.models.stored import SandboxQuery

MAX_LEASES = 1000
MAX_LEASES_OF_KEY = 200

_MOST_SANDBOXES = 100_000
_ENDED_AT_ONCE = 16
_ID_BYTES = 12


@dataclass(frozen=True, slots=True)
class ClientLease:
    """One that is open.

    Attributes:
        api_key: opens what the credential opens that the lease was asked for with, but sees sandboxes of the lease
            only.
        ending: set when the server wants the client to go.
    """

    id: str
    api_key: str = field(repr=False)
    ending: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


class ClientLeases:
    """Those that this server holds. They do not survive it: the reconciler ends what belongs to any other."""

    def __init__(
        self,
        store: Store,
        endings: Endings,
        keys: DelegatedKeys,
        background: Background,
        audit: AuditTrail,
        *,
        clock: Clock,
    ) -> None:
        self._audit = audit
        self._clock = clock
        self._store = store
        self._endings = endings
        self._keys = keys
        self._background = background
        self._open: dict[str, tuple[ClientLease, str]] = {}
        self._closed = False
        self._changed = asyncio.Event()
        self._log = structlog.get_logger("cove.leases")

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    async def change(self) -> None:
        """Wait until the next one is opened or has ended."""
        await self._changed.wait()

    def is_open(self, lease_id: str) -> bool:
        """Whether its client is there."""
        return lease_id in self._open

    @asynccontextmanager
    async def open(self, principal: Principal) -> AsyncGenerator[ClientLease]:
        """A lease for as long as the block lasts. At its end the key is withdrawn, then all its sandboxes are killed,
        also those that are being made; that goes on if the caller is cancelled.

        Raises:
            CoveError: FORBIDDEN for a key of a lease; RESOURCE_LIMIT_EXCEEDED; HOST_UNAVAILABLE while the server ends.
        """
        lease = self._admit(principal)
        self._audit.note(principal.event("lease.opened", lease.id, at=self._clock()))
        try:
            yield lease
        finally:
            self._keys.withdraw(lease.api_key)
            self._audit.note(principal.event("lease.ended", lease.id, at=self._clock()))
            del self._open[lease.id]
            self._note_change()
            await self._background.finish(self._end_sandboxes(lease.id), name=f"end client lease {lease.id}")

    def close(self) -> None:
        """Have all clients go, and take no more. Their leases end when their connections do."""
        self._closed = True
        for lease, _ in self._open.values():
            lease.ending.set()

    def _admit(self, principal: Principal) -> ClientLease:
        if self._closed:
            raise error("HOST_UNAVAILABLE", "The server is ending.")
        if principal.client_lease:
            raise error("FORBIDDEN", "A key of a client lease opens no other.", remedy="Use the key it was made with.")
        of_key = sum(actor == principal.actor for _, actor in self._open.values())
        for most, taken, whose in ((MAX_LEASES_OF_KEY, of_key, "API key"), (MAX_LEASES, len(self._open), "server")):
            if taken >= most:
                raise error(
                    "RESOURCE_LIMIT_EXCEEDED",
                    f"This {whose} has reached its limit of {most} client leases.",
                    remedy="Close the connections of clients that are not needed any more.",
                    limit=most,
                    current=taken,
                    available=0,
                )
        lease_id = f"lease_{secrets.token_hex(_ID_BYTES)}"
        lease = ClientLease(lease_id, self._keys.issue(replace(principal, client_lease=lease_id)))
        self._open[lease_id] = lease, principal.actor
        self._note_change()
        return lease

    async def _end_sandboxes(self, lease_id: str) -> None:
        """What fails here is repeated by the reconciler."""
        query = SandboxQuery(namespace=EVERY_NAMESPACE, client_lease=lease_id, limit=_MOST_SANDBOXES)
        try:
            rows = await self._store.read(lambda work: work.sandboxes.page(query))
        except CoveError as failure:
            self._log.warning("lease_not_ended", lease=lease_id, error=str(failure))
            return
        turns = asyncio.Semaphore(_ENDED_AT_ONCE)

        async def end(sandbox_id: str) -> None:
            async with turns:
                try:
                    await self._endings.end(sandbox_id, reason=EndReason.KILLED)
                except CoveError as failure:
                    self._log.warning("lease_not_ended", lease=lease_id, sandbox_id=sandbox_id, error=str(failure))

        await asyncio.gather(*(end(row.id) for row in rows))
        self._log.info("lease_ended", lease=lease_id, sandboxes=len(rows))

    def _note_change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
