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

import structlog

from cove.core.clock import Clock, rfc3339
from cove.core.principal import Principal
from cove.core.storage import Store, UnitOfWork
from cove.models.errors import CoveError, error
from cove.models.stored import DEFAULT_NAMESPACE, StoredEvent, StoredKey

_KEY = re.compile(r"hopx_live_([A-Za-z0-9]{12})\.[A-Za-z0-9_-]{43}")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
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
        self, name: str, *, namespace: str = DEFAULT_NAMESPACE, lifetime_seconds: float | None = None
    ) -> NewKey:
        """Make a key.

        Raises:
            CoveError: INVALID_REQUEST for a name or a namespace that will not do.
        """
        _check_name(name, namespace, lifetime_seconds)
        now = self._clock()
        key_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARACTERS))
        key = f"hopx_live_{key_id}.{secrets.token_urlsafe(_SECRET_BYTES)}"
        expires = None if lifetime_seconds is None else now + lifetime_seconds
        stored = StoredKey(
            id=key_id, name=name, namespace=namespace, digest=_digest(key), created_at=now, expires_at=expires
        )
        await self._store.write(lambda work: _add(work, stored))
        return NewKey(key, stored)

    async def list(self, *, namespace: str | None = None) -> tuple[StoredKey, ...]:
        """All keys, revoked ones too, oldest first."""
        return await self._store.read(lambda work: work.keys.all(namespace=namespace))

    async def revoke(self, reference: str) -> StoredKey:
        """Revoke the key with this id, or with this name if only one that is in force has it.

        Raises:
            CoveError: RESOURCE_NOT_FOUND; CONFLICT when several keys have the name.
        """
        now = self._clock()
        stored = await self._store.write(lambda work: _revoke(work, reference, now))
        self._verdicts.clear()
        return stored

    async def verify(self, key: str) -> Principal:
        """Whoever holds the key.

        Raises:
            CoveError: AUTHENTICATION_REQUIRED when it is malformed, unknown, revoked or expired (which of them is
                said only of keys that were right once).
        """
        shape = _KEY.fullmatch(key)
        if shape is None:
            raise _refused("The API key is malformed.")
        digest = _digest(key)
        verdict = self._verdicts.get(digest)
        if verdict is None or verdict.trusted_until <= time.monotonic():
            verdict = await self._look_up(shape.group(1), digest)
        self._check_in_force(verdict.stored)
        self._note_use(verdict.stored.id)
        return verdict.principal

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

    async def _look_up(self, key_id: str, digest: bytes) -> _Verdict:
        self._verdicts.pop(digest, None)
        stored = await self._store.read(lambda work: work.keys.get(key_id))
        if stored is None or not hmac.compare_digest(stored.digest, digest):
            raise _refused("The API key is not known here.")
        verdict = _Verdict(stored, Principal(stored.namespace, stored.id), time.monotonic() + _TRUSTED_SECONDS)
        self._verdicts[digest] = verdict
        if len(self._verdicts) > _CACHED:
            self._verdicts.popitem(last=False)
        return verdict

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


def _check_name(name: str, namespace: str, lifetime_seconds: float | None) -> None:
    if not name.strip() or len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
        raise error("INVALID_REQUEST", f"A key's name is 1 to {_MAX_NAME_CHARACTERS} printable characters.")
    if _NAMESPACE.fullmatch(namespace) is None:
        raise error("INVALID_REQUEST", "A namespace is 1 to 63 lower-case letters, digits and inner hyphens.")
    if lifetime_seconds is not None and not 0 < lifetime_seconds < float("inf"):
        raise error("INVALID_REQUEST", "A key's lifetime is a positive number of seconds.")


def _add(work: UnitOfWork, stored: StoredKey) -> None:
    work.keys.add(stored)
    work.events.add(_event(stored, "key.created", stored.created_at))


def _revoke(work: UnitOfWork, reference: str, now: float) -> StoredKey:
    matches = [key for key in work.keys.all() if key.revoked_at is None and reference in (key.id, key.name)]
    exact = [key for key in matches if key.id == reference] or matches
    if not exact:
        raise error("RESOURCE_NOT_FOUND", f"No key in force has the id or name {reference!r}.")
    if len(exact) > 1:
        raise error("CONFLICT", f"{len(exact)} keys are named {reference!r}.", remedy="Give the key's id instead.")
    stored = work.keys.revoke(exact[0].id, at=now)
    if stored is None:
        raise error("RESOURCE_NOT_FOUND", f"The key {reference!r} was revoked meanwhile.")
    work.events.add(_event(stored, "key.revoked", now))
    return stored


def _event(stored: StoredKey, action: str, at: float) -> StoredEvent:
    return StoredEvent(
        at=at,
        namespace=stored.namespace,
        actor="system",
        action=action,
        subject=stored.id,
        details={"name": stored.name},
    )
