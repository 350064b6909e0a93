"""Namespaces, as whoever runs the server sees them: all of them, with their quotas."""

import time

from cove.core.clock import Clock
from cove.core.principal import OPERATOR_ACTOR
from cove.core.storage import Store, UnitOfWork
from cove.models.errors import error
from cove.models.quotas import Quota
from cove.models.stored import StoredEvent, StoredNamespace


class Namespaces:
    """List them and set their quotas. They come to be with their first key."""

    def __init__(self, store: Store, *, clock: Clock = time.time) -> None:
        self._store = store
        self._clock = clock

    async def list(self) -> tuple[StoredNamespace, ...]:
        """Every namespace, by number."""
        return await self._store.read(lambda work: work.namespaces.all())

    async def get(self, name: str) -> StoredNamespace:
        """One of them.

        Raises:
            CoveError: RESOURCE_NOT_FOUND.
        """
        return await self._store.read(lambda work: _get(work, name))

    async def set_quota(self, name: str, quota: Quota) -> StoredNamespace:
        """Replace all ceilings of one. Sandboxes that are above them already stay; a server notices within a second.

        Raises:
            CoveError: RESOURCE_NOT_FOUND.
        """
        now = self._clock()
        return await self._store.write(lambda work: _set_quota(work, name, quota, now))


def _get(work: UnitOfWork, name: str) -> StoredNamespace:
    found = work.namespaces.get(name)
    if found is None:
        raise error(
            "RESOURCE_NOT_FOUND",
            f"There is no namespace {name[:64]!r}.",
            remedy="`cove keys create NAME --namespace NAMESPACE` makes one with its first key.",
        )
    return found


def _set_quota(work: UnitOfWork, name: str, quota: Quota, now: float) -> StoredNamespace:
    _get(work, name)
    work.events.add(
        StoredEvent(
            at=now,
            namespace=name,
            actor=OPERATOR_ACTOR,
            action="namespace.limited",
            subject=name,
            details=quota.model_dump(exclude_none=True),
        )
    )
    return work.namespaces.set_quota(name, quota)
