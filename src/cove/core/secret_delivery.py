"""Bringing what the vault keeps to the hosts of the sandboxes that use it, whenever it changes."""

import asyncio
from collections.abc import Iterable

import structlog

from cove.core.locks import KeyedLocks
from cove.core.ports import Host
from cove.core.storage import Store
from cove.core.vault import Vault
from cove.models.errors import CoveError, error
from cove.models.sandboxes import SandboxStatus
from cove.models.secrets import EgressSecret

_HOST_SECONDS = 10.0
_AGAIN_SECONDS = 1.0
_AT_ONCE = 8
_POINTLESS = frozenset({"SANDBOX_NOT_FOUND", "INTERNAL_ERROR"})
"""The sandbox is gone, or the value cannot be read: neither gets better by itself."""


class SecretDelivery:
    """Each delivery brings all as it is then, under the sandbox's lock: so the last one is always right."""

    def __init__(self, host: Host, store: Store, vault: Vault, locks: KeyedLocks) -> None:
        self._host = host
        self._store = store
        self._vault = vault
        self._locks = locks
        self._behind: set[str] = set()
        self._wanted = asyncio.Event()
        self._log = structlog.get_logger("cove.secrets")

    async def renew(self, sandbox_ids: Iterable[str]) -> int:
        """Bring these sandboxes up to date.

        Returns:
            How many are not: their host did not answer. It is tried until they are.
        """
        turns = asyncio.Semaphore(_AT_ONCE)

        async def renew(sandbox_id: str) -> bool:
            async with turns:
                return await self._renew(sandbox_id)

        done = await asyncio.gather(*(renew(sandbox_id) for sandbox_id in sandbox_ids))
        return done.count(False)

    async def give(self, sandbox_id: str, changed: tuple[EgressSecret, ...], removed: tuple[str, ...] = ()) -> None:
        """Have a sandbox's host take these, bounded in time.

        Raises:
            CoveError: what `Host.set_secrets` raises.
        """
        try:
            async with asyncio.timeout(_HOST_SECONDS):
                await self._host.set_secrets(sandbox_id, changed, removed)
        except TimeoutError:
            raise error("HOST_UNAVAILABLE", "The host did not answer in time.") from None

    def owe(self, sandbox_id: str) -> None:
        """Bring this sandbox up to date soon, and until that is done."""
        self._behind.add(sandbox_id)
        self._wanted.set()

    async def run(self) -> None:
        """Go on with those that are behind. The server may have ended between a change and its delivery, so at first
        all are."""
        rows = await self._store.read(lambda work: work.sandboxes.with_secrets())
        self._behind.update(
            row.id for row in rows if any(secret.from_vault or secret.withdrawn for secret in row.secrets.values())
        )
        while True:
            if self._behind:
                await self.renew(tuple(self._behind))
            if not self._behind:
                self._wanted.clear()
                await self._wanted.wait()
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _renew(self, sandbox_id: str) -> bool:
        try:
            await self._deliver(sandbox_id)
        except CoveError as failure:
            self._log.warning("secrets_not_delivered", sandbox_id=sandbox_id, code=failure.code, error=str(failure))
            if failure.code not in _POINTLESS:
                self.owe(sandbox_id)
                return False
        self._behind.discard(sandbox_id)
        return True

    async def _deliver(self, sandbox_id: str) -> None:
        async with self._locks.hold(sandbox_id):
            row = await self._store.read(lambda work: work.sandboxes.get(sandbox_id))
            if row is None or row.status is SandboxStatus.DELETED:
                return
            changed, removed = await self._vault.current(row)
            if changed or removed:
                await self.give(sandbox_id, changed, removed)
