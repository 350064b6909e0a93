"""How sandboxes end. The store hears of it first, so that whatever fails afterwards is repeated until it is done."""

import asyncio

import structlog

from cove.core.clock import Clock
from cove.core.deadlines import Deadlines
from cove.core.directory import LiveDirectory
from cove.core.ports import Host
from cove.core.principal import NO_REQUEST, SYSTEM_ACTOR, Origin
from cove.core.quotas import Quotas
from cove.core.storage import Store, UnitOfWork
from cove.models.errors import error
from cove.models.sandboxes import EndReason
from cove.models.stored import StoredEvent, StoredSandbox

_DESTROY_SECONDS = 10.0
_LONGEST_LIMIT = 64


class Endings:
    """Ends sandboxes, exactly once each."""

    def __init__(
        self, host: Host, store: Store, directory: LiveDirectory, deadlines: Deadlines, quotas: Quotas, *, clock: Clock
    ) -> None:
        self._host = host
        self._store = store
        self._directory = directory
        self._deadlines = deadlines
        self._quotas = quotas
        self._clock = clock
        self._left: set[str] = set()
        self._log = structlog.get_logger("cove.endings")

    async def end(
        self,
        sandbox_id: str,
        *,
        reason: EndReason,
        limit: str = "",
        actor: str = SYSTEM_ACTOR,
        due: float | None = None,
        namespace: str | None = None,
        client_lease: str | None = None,
    ) -> StoredSandbox | None:
        """As `bury`, then free what the host holds.

        Returns:
            As `bury`.

        Raises:
            CoveError: the store's, then nothing has changed; or the host's, then the sandbox has ended for
                everyone and the reconciler goes on trying to remove the rest.
        """
        ended = await self.bury(
            sandbox_id,
            reason=reason,
            limit=limit,
            actor=actor,
            due=due,
            namespace=namespace,
            client_lease=client_lease,
        )
        if ended is not None:
            await self.remove(sandbox_id)
        return ended

    async def bury(
        self,
        sandbox_id: str,
        *,
        reason: EndReason,
        limit: str = "",
        actor: str = SYSTEM_ACTOR,
        origin: Origin = NO_REQUEST,
        due: float | None = None,
        namespace: str | None = None,
        client_lease: str | None = None,
    ) -> StoredSandbox | None:
        """Write the tombstone and let nobody through any more: it has ended for everyone, and is to be removed.

        Args:
            limit: the one that it ran into, if that is known.

        Returns:
            The tombstone, or None when the sandbox was not live (with `due`: or its deadline is later than that;
            with `namespace` or `client_lease`: or it is in another one).

        Raises:
            CoveError: the store's, then nothing has changed.
        """
        now = self._clock()

        def change(work: UnitOfWork) -> StoredSandbox | None:
            ended = work.sandboxes.end(
                sandbox_id,
                reason=reason,
                at=now,
                limit=limit[:_LONGEST_LIMIT],
                due=due,
                namespace=namespace,
                client_lease=client_lease,
            )
            if ended is not None:
                work.events.add(_event(ended, actor, origin, now))
            return ended

        ended = await self._store.write(change)
        if ended is None:
            return None
        if limit:
            self._directory.note_limit(sandbox_id, limit[:_LONGEST_LIMIT])
        self._directory.remove(sandbox_id)
        self._deadlines.forget(sandbox_id)
        self._quotas.release(sandbox_id)
        self._log.info("sandbox_ended", sandbox_id=sandbox_id, reason=reason.value, limit=ended.end_limit or None)
        self._left.add(sandbox_id)
        return ended

    def is_left(self, sandbox_id: str) -> bool:
        """Whether it has ended, but the host could not be told yet."""
        return sandbox_id in self._left

    async def remove(self, sandbox_id: str) -> None:
        """Free what the host holds of a sandbox that is in no use. Idempotent.

        Raises:
            CoveError: the host's; HOST_UNAVAILABLE when it does not answer in time.
        """
        try:
            async with asyncio.timeout(_DESTROY_SECONDS):
                await self._host.destroy(sandbox_id)
        except TimeoutError:
            raise error("HOST_UNAVAILABLE", f"The host did not remove {sandbox_id} in time.") from None
        self._left.discard(sandbox_id)

    def settle(self, present: frozenset[str]) -> None:
        """Forget leftovers that the host does not have (any more)."""
        self._left &= present


def _event(ended: StoredSandbox, actor: str, origin: Origin, at: float) -> StoredEvent:
    return StoredEvent(
        at=at,
        namespace=ended.namespace,
        actor=actor,
        action="sandbox.ended",
        subject=ended.id,
        details={
            "reason": ended.end_reason and ended.end_reason.value,
            **({"limit": ended.end_limit} if ended.end_limit else {}),
        },
        request_id=origin.request_id,
        address=origin.address,
    )
