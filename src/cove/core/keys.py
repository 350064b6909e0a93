"""API keys: made once, shown once, stored as a hash."""

import asyncio
import hashlib
import hmac
import re
import secrets
import string
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

import structlog

from cove.core.clock import Clock, rfc3339
from cove.core.namespace_access import check_namespace
from cove.core.principal import NO_REQUEST, OPERATOR_ACTOR, Origin, Principal
from cove.core.storage import Store, UnitOfWork
from cove.models.errors import CoveError, error
from cove.models.quotas import UNLIMITED, Quota
from cove.models.scopes import ALL_SCOPES, EVERY_NAMESPACE, Scope
from cove.models.stored import DEFAULT_NAMESPACE, StoredEvent, StoredKey, StoredNamespace

PREFIX: Final = "hopx_live_"
"""What keys of our own begin with, since a client checks it."""

MICROSANDBOX_PREFIX: Final = "msb_"
"""What clients of microsandbox want. The hash is of the whole key, so no prefix can stand for another."""

_SHAPE = re.compile(rf"(?:{PREFIX}|{MICROSANDBOX_PREFIX})([A-Za-z0-9]{{12}})\.[A-Za-z0-9_-]{{43}}")
_ID = re.compile(r"[A-Za-z0-9]{12}")
_ALPHABET = string.ascii_letters + string.digits
_ID_CHARACTERS = 12
_SECRET_BYTES = 32
_MAX_NAME_CHARACTERS = 200
_CACHED = 1024
_TRUSTED_SECONDS = 1.0
"""How long a verdict is used again: a revocation, also by another process, takes effect no later than this."""
_NOTE_SECONDS = 60.0
"""`last_used_at` is as exact as this; noting each use would make a write of every read."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `key` is the only copy there is."""

    key: str
    stored: StoredKey


@dataclass(frozen=True, slots=True)
class _Verdict:
    stored: StoredKey
    principal: Principal
    trusted_until: float


class ApiKeys:
    """Create, list, revoke, verify."""

    def __init__(self, store: Store, *, clock: Clock = time.time) -> None:
        self._store = store
        self._clock = clock
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._noted: OrderedDict[str, float] = OrderedDict()
        self._used: dict[str, float] = {}
        self._log = structlog.get_logger("cove.keys")

    async def create(
        self,
        name: str,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        lifetime_seconds: float | None = None,
        quota: Quota = UNLIMITED,
        scopes: frozenset[Scope] = ALL_SCOPES,
        prefix: Literal["hopx_live_", "msb_"] = PREFIX,
        most: int | None = None,
        actor: str = OPERATOR_ACTOR,
        origin: Origin = NO_REQUEST,
    ) -> NewKey:
        """Make a key.

        Args:
            namespace: `*` for a key that is of the first namespace, and may enter any.
            quota: what sandboxes made with it may use together.
            scopes: what it may do.
            prefix: what it begins with, which some clients check.
            most: how many keys the namespace may have, revoked ones that are kept for a while included.

        Raises:
            CoveError: INVALID_REQUEST for a name or a namespace that will not do; RESOURCE_LIMIT_EXCEEDED.
        """
        check_name(name)
        _check(namespace, lifetime_seconds, scopes)
        now = self._clock()
        key_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARACTERS))
        key = f"{prefix}{key_id}.{secrets.token_urlsafe(_SECRET_BYTES)}"
        stored = StoredKey(
            id=key_id,
            name=name,
            namespace=namespace,
            digest=_digest(key),
            created_at=now,
            expires_at=None if lifetime_seconds is None else now + lifetime_seconds,
            quota=quota,
            scopes=scopes,
            prefix=prefix,
        )
        await self._store.write(lambda work: _add(work, stored, most, actor, origin))
        return NewKey(key, stored)

    async def list(self, *, namespace: str | None = None) -> tuple[StoredKey, ...]:
        """All keys, revoked ones too, oldest first."""
        return await self._store.read(lambda work: work.keys.all(namespace=namespace))

    async def revoke(
        self,
        reference: str,
        *,
        namespace: str | None = None,
        actor: str = OPERATOR_ACTOR,
        origin: Origin = NO_REQUEST,
    ) -> StoredKey:
        """Revoke the key with this id, or with this name if only one that is in force has it.

        With `namespace`, only by its id and only in that one: a key of another is as unknown as one that never was.

        Raises:
            CoveError: RESOURCE_NOT_FOUND; CONFLICT when several keys have the name.
        """
        now = self._clock()
        stored = await self._store.write(lambda work: _revoke(work, reference, namespace, actor, origin, now))
        self.distrust()
        return stored

    def distrust(self) -> None:
        """Look every key up again at its next use: something about them has changed."""
        self._verdicts.clear()

    async def verify(self, key: str) -> Principal:
        """Whoever holds the key.

        Raises:
            CoveError: AUTHENTICATION_REQUIRED when it is malformed, unknown, revoked or expired (which of them is
                said only of keys that were right once).
        """
        key_id = _public_part(key)
        if key_id is None:
            raise _refused("The API key is malformed.")
        verdict = await self._verdict(key_id, _digest(key))
        self._note_use(verdict.stored.id)
        return verdict.principal

    async def principal_of(self, key_id: str) -> Principal:
        """Whoever holds the key with this id: for those who have shown by other means that they do.

        Raises:
            CoveError: AUTHENTICATION_REQUIRED as for `verify`.
        """
        return (await self._verdict(key_id, None)).principal

    async def run(self) -> None:
        """Write down when keys were used, until cancelled."""
        while True:
            await asyncio.sleep(_NOTE_SECONDS / 4)
            try:
                await self.flush()
            except CoveError as failure:
                self._log.warning("key_use_not_noted", error=str(failure))

    async def flush(self) -> None:
        """Write down when keys were used, now."""
        used, self._used = self._used, {}
        if used:
            await self._store.write(lambda work: work.keys.touch(used))

    async def _verdict(self, key_id: str, digest: bytes | None) -> _Verdict:
        """What is known of the key, which is in force; with `digest`, if it is the hash of the right one."""
        remembered = digest or key_id.encode()
        verdict = self._verdicts.get(remembered)
        if verdict is None or verdict.trusted_until <= time.monotonic():
            self._verdicts.pop(remembered, None)
            verdict = await self._look_up(key_id, digest)
            self._verdicts[remembered] = verdict
            if len(self._verdicts) > _CACHED:
                self._verdicts.popitem(last=False)
        self._check_in_force(verdict.stored)
        return verdict

    async def _look_up(self, key_id: str, digest: bytes | None) -> _Verdict:
        found = await self._store.read(lambda work: _with_namespace(work, key_id))
        if found is None or (digest is not None and not hmac.compare_digest(found[0].digest, digest)):
            raise _refused("The API key is not known here.")
        return _Verdict(found[0], _principal(*found), time.monotonic() + _TRUSTED_SECONDS)

    def _check_in_force(self, stored: StoredKey) -> None:
        if stored.revoked_at is not None:
            raise _refused(f"The API key {stored.id} was revoked at {rfc3339(stored.revoked_at)}.")
        if stored.expires_at is not None and stored.expires_at <= self._clock():
            raise _refused(f"The API key {stored.id} expired at {rfc3339(stored.expires_at)}.")

    def _note_use(self, key_id: str) -> None:
        now = self._clock()
        if now - self._noted.get(key_id, float("-inf")) < _NOTE_SECONDS:
            return
        self._noted[key_id] = self._used[key_id] = now
        if len(self._noted) > _CACHED:
            self._noted.popitem(last=False)


def _digest(key: str) -> bytes:
    """256 random bits need no slow hash: there is nothing to guess."""
    return hashlib.blake2b(key.encode(), digest_size=32).digest()


def _refused(message: str) -> CoveError:
    return error("AUTHENTICATION_REQUIRED", message)


def check_name(name: str) -> None:
    """Refuse what is no name of a key or an organization (INVALID_REQUEST)."""
    if not name.strip() or len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
        raise error(
            "INVALID_REQUEST",
            f"The name is not 1 to {_MAX_NAME_CHARACTERS} printable characters.",
            remedy="Give another name.",
            field="name",
        )


def is_key_id(text: str) -> bool:
    """Whether it may be the id of an API key; nobody else is called so."""
    return _ID.fullmatch(text) is not None


def _check(namespace: str, lifetime_seconds: float | None, scopes: frozenset[Scope]) -> None:
    if namespace != EVERY_NAMESPACE:
        check_namespace(namespace)
    if not scopes:
        raise error("INVALID_REQUEST", "A key without any scope is of no use.", field="scopes")
    if lifetime_seconds is not None and not 0 < lifetime_seconds < float("inf"):
        raise error("INVALID_REQUEST", "A key's lifetime is a positive number of seconds.")


def _public_part(key: str) -> str | None:
    found = _SHAPE.fullmatch(key)
    return None if found is None else found[1]


def _own_namespace(stored: StoredKey) -> str:
    return DEFAULT_NAMESPACE if stored.namespace == EVERY_NAMESPACE else stored.namespace


def _with_namespace(work: UnitOfWork, key_id: str) -> tuple[StoredKey, StoredNamespace | None] | None:
    stored = work.keys.get(key_id)
    return None if stored is None else (stored, work.namespaces.get(_own_namespace(stored)))


def _principal(stored: StoredKey, namespace: StoredNamespace | None) -> Principal:
    return Principal(
        _own_namespace(stored),
        stored.id,
        organization_id=0 if namespace is None else namespace.id,
        namespace_quota=UNLIMITED if namespace is None else namespace.quota,
        key_quota=stored.quota,
        expires_at=stored.expires_at,
        scopes=stored.scopes,
        enters_any_namespace=stored.namespace == EVERY_NAMESPACE,
    )


def _add(work: UnitOfWork, stored: StoredKey, most: int | None, actor: str, origin: Origin) -> None:
    kept = 0 if most is None else work.keys.count(namespace=stored.namespace)
    if most is not None and kept >= most:
        raise error(
            "RESOURCE_LIMIT_EXCEEDED",
            f"This namespace has reached its limit of {most} API keys.",
            remedy="Revoked and expired keys count for 90 days; `cove keys create` on the server makes more.",
            limit=most,
            current=kept,
            available=0,
        )
    work.namespaces.ensure(_own_namespace(stored), at=stored.created_at)
    work.keys.add(stored)
    work.events.add(_event(stored, "key.created", stored.created_at, actor, origin))


def _revoke(
    work: UnitOfWork, reference: str, namespace: str | None, actor: str, origin: Origin, now: float
) -> StoredKey:
    in_force = [key for key in work.keys.all(namespace=namespace) if key.revoked_at is None]
    exact = [key for key in in_force if key.id == reference]
    if not exact and namespace is None:
        exact = [key for key in in_force if key.name == reference]
    if not exact:
        raise error(
            "RESOURCE_NOT_FOUND",
            f"No key in force has the id or name {reference[:_MAX_NAME_CHARACTERS]!r}.",
            remedy="`cove keys list`, or GET /auth/api-keys, shows those that there are.",
        )
    if len(exact) > 1:
        raise error("CONFLICT", f"{len(exact)} keys are named {reference!r}.", remedy="Give the key's id instead.")
    stored = work.keys.revoke(exact[0].id, at=now)
    if stored is None:
        raise error("RESOURCE_NOT_FOUND", f"The key {reference!r} was revoked meanwhile.")
    work.events.add(_event(stored, "key.revoked", now, actor, origin))
    return stored


def _event(stored: StoredKey, action: str, at: float, actor: str, origin: Origin) -> StoredEvent:
    details: dict[str, object] = {"name": stored.name, "scopes": sorted(stored.scopes)}
    if stored.namespace == EVERY_NAMESPACE:
        details["namespace"] = stored.namespace
    if not stored.quota.is_open:
        details["quota"] = stored.quota.model_dump(exclude_none=True)
    if stored.expires_at is not None:
        details["expires_at"] = rfc3339(stored.expires_at)
    return StoredEvent(
        at=at,
        namespace=_own_namespace(stored),
        actor=actor,
        action=action,
        subject=stored.id,
        details=details,
        request_id=origin.request_id,
        address=origin.address,
    )
