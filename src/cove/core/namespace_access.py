"""Which namespace a request is about: its key's own, or another one that it may enter."""

import re
import time
from collections import OrderedDict
from dataclasses import dataclass, replace

from cove.core.clock import Clock
from cove.core.principal import Principal
from cove.core.storage import Store, UnitOfWork
from cove.models.errors import CoveError, error
from cove.models.quotas import UNLIMITED
from cove.models.sandboxes import NAME_PATTERN
from cove.models.scopes import NAMESPACE_HEADER
from cove.models.stored import StoredNamespace

MAX_NAMESPACES = 10_000
"""As far as requests make them; `cove keys create` may make more."""

_NAME = re.compile(NAME_PATTERN)
_CACHED = 1024
_TRUSTED_SECONDS = 1.0
"""How long what was read is used again: new quotas hold no later than this."""


@dataclass(frozen=True, slots=True)
class _Read:
    stored: StoredNamespace | None
    trusted_until: float


class NamespaceAccess:
    """Places principals in namespaces."""

    def __init__(self, store: Store, *, clock: Clock = time.time) -> None:
        self._store = store
        self._clock = clock
        self._read: OrderedDict[str, _Read] = OrderedDict()

    async def enter(self, principal: Principal, name: str, *, making: bool) -> Principal:
        """The principal in the namespace that it names, which comes to be if need be (with `making`).

        Raises:
            CoveError: FORBIDDEN, INVALID_REQUEST, RESOURCE_LIMIT_EXCEEDED.
        """
        if name == principal.namespace:
            return principal
        if not principal.enters_any_namespace:
            raise no_entry(name)
        check_namespace(name)
        return await self.placed(principal, name, making=making)

    async def placed(self, principal: Principal, name: str, *, making: bool) -> Principal:
        """The principal in a namespace that it is known to belong to.

        Raises:
            CoveError: RESOURCE_LIMIT_EXCEEDED.
        """
        stored = await self._stored(name)
        if stored is None and making:
            now = self._clock()
            stored = await self._store.write(lambda work: _ensure(work, name, now))
            self._remember(name, stored)
        return replace(
            principal,
            namespace=name,
            organization_id=0 if stored is None else stored.id,
            namespace_quota=UNLIMITED if stored is None else stored.quota,
        )

    async def _stored(self, name: str) -> StoredNamespace | None:
        known = self._read.get(name)
        if known is not None and known.trusted_until > time.monotonic():
            return known.stored
        stored = await self._store.read(lambda work: work.namespaces.get(name))
        self._remember(name, stored)
        return stored

    def _remember(self, name: str, stored: StoredNamespace | None) -> None:
        self._read[name] = _Read(stored, time.monotonic() + _TRUSTED_SECONDS)
        self._read.move_to_end(name)
        if len(self._read) > _CACHED:
            self._read.popitem(last=False)


def check_namespace(name: str) -> None:
    """Refuse what is no name of a namespace (INVALID_REQUEST)."""
    if _NAME.fullmatch(name) is None:
        raise error(
            "INVALID_REQUEST",
            "A namespace is 1 to 63 letters, digits, hyphens and underscores, and begins with a letter or digit.",
            remedy="Give another name.",
            field="namespace",
        )


def no_entry(name: str) -> CoveError:
    """The refusal for a key that is not of the namespace."""
    return error(
        "FORBIDDEN",
        f"This API key may not enter the namespace {name[:64]!r}.",
        remedy=f"Leave {NAMESPACE_HEADER} out, or use a key of that namespace, or of all (`cove keys create"
        " --namespace '*'`).",
    )


def _ensure(work: UnitOfWork, name: str, now: float) -> StoredNamespace:
    found = work.namespaces.get(name)
    if found is not None:
        return found
    count = work.namespaces.count()
    if count >= MAX_NAMESPACES:
        raise error(
            "RESOURCE_LIMIT_EXCEEDED",
            f"This server has reached its limit of {MAX_NAMESPACES} namespaces.",
            remedy="Use one that exists: `cove namespaces list`.",
            limit=MAX_NAMESPACES,
            current=count,
            available=0,
        )
    return work.namespaces.ensure(name, at=now)
