"""What the holder of an API key may see and change of its own namespace."""

from dataclasses import dataclass

from cove.core.clock import Clock, rfc3339
from cove.core.keys import ApiKeys, NewKey, check_name
from cove.core.principal import Principal
from cove.core.storage import Store, UnitOfWork
from cove.models.errors import error
from cove.models.scopes import Scope
from cove.models.stored import StoredKey, StoredNamespace

MAX_KEYS = 1000
"""Of a namespace, as far as its keys may make more."""

_DAY_SECONDS = 86400.0
LIFETIME_DAYS = {"1month": 30, "3months": 91, "6months": 183, "1year": 365}


@dataclass(frozen=True, slots=True)
class Me:
    """The key of a principal; None with `--dev`, where there is none."""

    principal: Principal
    key: StoredKey | None


class Accounts:
    """Everything is confined to the principal's namespace. A key with a quota of its own sees itself only."""

    def __init__(self, store: Store, keys: ApiKeys, *, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    async def me(self, principal: Principal) -> Me:
        """Who asks."""
        return Me(principal, await self._store.read(lambda work: work.keys.get(principal.actor)))

    async def rename_me(self, principal: Principal, name: str) -> StoredKey:
        """Give the key another name.

        Raises:
            CoveError: INVALID_REQUEST; UNSUPPORTED where there is no key.
        """
        check_name(name)
        now = self._clock()
        renamed = await self._store.write(lambda work: _rename_key(work, principal, name, now))
        if renamed is None:
            raise error(
                "UNSUPPORTED",
                "A server with --dev knows nobody, so there is no profile to change.",
                remedy="Make a key with `cove keys create NAME`, and run the server without --dev.",
            )
        return renamed

    async def organization(self, principal: Principal) -> StoredNamespace:
        """The namespace."""
        now = self._clock()
        found = await self._store.read(lambda work: work.namespaces.get(principal.namespace))
        return found or await self._store.write(lambda work: work.namespaces.ensure(principal.namespace, at=now))

    async def rename_organization(self, principal: Principal, name: str) -> StoredNamespace:
        """What people call the namespace; keys go on naming it as before.

        Raises:
            CoveError: FORBIDDEN, INVALID_REQUEST.
        """
        _refuse_confined(principal, "rename the organization")
        check_name(name)
        return await self._store.write(lambda work: _rename(work, principal, name, self._clock()))

    async def keys(self, principal: Principal) -> tuple[StoredKey, ...]:
        """The namespace's keys that were not revoked, oldest first."""
        found = await self._keys.list(namespace=principal.namespace)
        return tuple(key for key in found if key.revoked_at is None and _visible(principal, key))

    async def key(self, principal: Principal, key_id: str) -> StoredKey:
        """One key, also when it was revoked.

        Raises:
            CoveError: RESOURCE_NOT_FOUND.
        """
        found = await self._store.read(lambda work: work.keys.get(key_id))
        if found is None or not _visible(principal, found):
            remedy = "GET /auth/api-keys lists those that there are."
            raise error("RESOURCE_NOT_FOUND", f"There is no API key {key_id[:64]!r}.", remedy=remedy)
        return found

    async def create_key(
        self, principal: Principal, name: str, lifetime: str, scopes: frozenset[Scope] | None = None
    ) -> NewKey:
        """Another key of the same namespace, with the scopes of the one that makes it or some of them.

        Raises:
            CoveError: FORBIDDEN for a key with a quota of its own or of a client lease, for one that would be
                outlived, and for scopes that it does not have; INVALID_REQUEST; RESOURCE_LIMIT_EXCEEDED.
        """
        _refuse_confined(principal, "make keys")
        scopes = principal.scopes if scopes is None else scopes
        _refuse_more_scopes(principal, scopes)
        days = LIFETIME_DAYS.get(lifetime)
        seconds = None if days is None else days * _DAY_SECONDS
        ends = float("inf") if seconds is None else self._clock() + seconds
        if principal.expires_at is not None and ends > principal.expires_at:
            raise error(
                "FORBIDDEN",
                f"A key makes no key that outlives it, and this one expires at {rfc3339(principal.expires_at)}.",
                remedy="Choose a shorter expiry, or use a key that does not expire.",
            )
        return await self._keys.create(
            name,
            namespace=principal.namespace,
            lifetime_seconds=seconds,
            scopes=scopes,
            most=MAX_KEYS,
            actor=principal.actor,
            origin=principal.origin,
        )

    async def revoke_key(self, principal: Principal, key_id: str) -> StoredKey:
        """Make a key of the namespace useless; also the one that asks.

        Raises:
            CoveError: RESOURCE_NOT_FOUND.
        """
        found = await self.key(principal, key_id)
        return await self._keys.revoke(
            key_id, namespace=found.namespace, actor=principal.actor, origin=principal.origin
        )


def _visible(principal: Principal, key: StoredKey) -> bool:
    """Its own, and those of its namespace unless it is confined."""
    return key.id == principal.actor or (key.namespace == principal.namespace and not principal.is_confined)


def _refuse_confined(principal: Principal, what: str) -> None:
    if principal.client_lease:
        raise error(
            "FORBIDDEN",
            f"A key of a client lease may not {what}: that would outlive the lease.",
            remedy="Use the key that the lease was opened with.",
        )
    if principal.is_confined:
        raise error(
            "FORBIDDEN",
            f"A key with limits of its own may not {what}.",
            remedy="Use a key of the namespace that has none.",
        )


def _refuse_more_scopes(principal: Principal, scopes: frozenset[Scope]) -> None:
    more = scopes - principal.scopes
    if more:
        raise error(
            "FORBIDDEN",
            f"A key makes no key that may more than it, and this one lacks: {', '.join(sorted(more))}.",
            remedy="Ask for fewer scopes, or use a key that has them.",
        )


def _rename_key(work: UnitOfWork, principal: Principal, name: str, now: float) -> StoredKey | None:
    renamed = work.keys.rename(principal.actor, name)
    if renamed is not None:
        work.events.add(principal.event("key.renamed", renamed.id, at=now, details={"name": name}))
    return renamed


def _rename(work: UnitOfWork, principal: Principal, name: str, now: float) -> StoredNamespace:
    work.namespaces.ensure(principal.namespace, at=now)
    work.events.add(principal.event("namespace.renamed", principal.namespace, at=now, details={"name": name}))
    return work.namespaces.rename(principal.namespace, name)
