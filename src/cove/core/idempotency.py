"""Creates that may be sent twice: with the same idempotency key they make one sandbox
(draft-ietf-httpapi-idempotency-key-header).

A create that failed is not remembered: the same key tries again. One that went well is remembered for a day, in the
same transaction as its sandbox, so that no crash can part the two.
"""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from cove.core.background import Background
from cove.core.clock import Clock
from cove.core.creation import Creation, Creator, IdempotencyKey
from cove.core.known_creates import KnownCreates
from cove.core.principal import Principal
from cove.core.states import LIVE
from cove.core.storage import Store
from cove.core.tokens import AgentTokens
from cove.keys.sealing import Sealer
from cove.models.errors import CoveError, error
from cove.models.sandboxes import CreateSandbox

REMEMBERED_SECONDS = 24 * 3600.0
MAX_REMEMBERED = 10_000
"""Creates remembered for each namespace; the oldest go first."""

_TRIM_EVERY = 500
_MARGIN_SECONDS = 10.0
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

Gone = Callable[[], Awaitable[bool]]
"""Tells whether the client that asked is still there."""


@dataclass(slots=True)
class _UnderWay:
    fingerprint: bytes
    done: asyncio.Event = field(default_factory=asyncio.Event)
    sandbox_id: str | None = None
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a create came to. `replayed` says that the sandbox was made by an earlier request with the same key."""

    creation: Creation
    replayed: bool = False


class RepeatableCreates:
    """Creates sandboxes, once for each idempotency key.

    Args:
        create_seconds: how long a create may take: a repetition waits so long for the first, and a little more.
    """

    def __init__(
        self,
        creator: Creator,
        store: Store,
        tokens: AgentTokens,
        background: Background,
        *,
        sealer: Sealer,
        create_seconds: float,
        clock: Clock,
    ) -> None:
        self._creator = creator
        self._store = store
        self._tokens = tokens
        self._background = background
        self._sealer = sealer
        self._wait_seconds = create_seconds + _MARGIN_SECONDS
        self._clock = clock
        self._known = KnownCreates(store, background, remembered_seconds=REMEMBERED_SECONDS, clock=clock)
        self._under_way: dict[bytes, _UnderWay] = {}
        self._untrimmed: Counter[str] = Counter()
        self._log = structlog.get_logger("cove.idempotency")

    async def create(
        self, principal: Principal, request: CreateSandbox, *, key: str | None, gone: Gone
    ) -> Outcome | None:
        """A sandbox; the one that the key has made already, if it has. None when the client went away meanwhile: what
        was made has ended then, unless another request with the same key took it.

        Raises:
            CoveError: what `Creator.create` raises; INVALID_REQUEST for what is no key; CONFLICT when the key was used
                for another request, or its sandbox has ended; TIMEOUT when the first request takes too long.
        """
        if key is None:
            creation = await self._creator.create(principal, request)
            return await self._delivered(creation, gone)
        once = _identify(principal, request, key, self._sealer)
        while (first := self._under_way.get(once.scope)) is not None:
            _check_same(first.fingerprint, once)
            first.joined = True
            sandbox_id = await self._outcome_of(first)
            if sandbox_id is not None:
                return await self._replay(principal, sandbox_id)
        return await self._first(principal, request, once, gone)

    async def _first(
        self, principal: Principal, request: CreateSandbox, once: IdempotencyKey, gone: Gone
    ) -> Outcome | None:
        entry = self._under_way[once.scope] = _UnderWay(once.fingerprint)
        try:
            if self._known.may_have(once.scope):
                entry.sandbox_id = await self._remembered(once)
            if entry.sandbox_id is not None:
                return await self._replay(principal, entry.sandbox_id)
            self._known.note(once.scope)
            creation = await self._creator.create(principal, request, once=once)
            outcome = await self._delivered(creation, gone, entry)
            self._count(principal.namespace)
            return outcome
        finally:
            del self._under_way[once.scope]
            entry.done.set()

    async def _delivered(self, creation: Creation, gone: Gone, entry: _UnderWay | None = None) -> Outcome | None:
        try:
            left = await gone()
        except BaseException:
            self._background.spawn(self._creator.abandon(creation), name="undo create sandbox")
            raise
        if left and not (entry is not None and entry.joined):
            await self._creator.abandon(creation)
            return None
        if entry is not None:
            entry.sandbox_id = creation.sandbox.id
        return Outcome(creation)

    async def _outcome_of(self, first: _UnderWay) -> str | None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await first.done.wait()
        except TimeoutError:
            raise error(
                "TIMEOUT", "Another create with the same idempotency key has been under way too long."
            ) from None
        return first.sandbox_id

    async def _remembered(self, once: IdempotencyKey) -> str | None:
        found = await self._store.read(lambda work: work.creates.get(once.scope))
        if found is None:
            return None
        if found.created_at <= self._clock() - REMEMBERED_SECONDS:
            await self._store.write(lambda work: work.creates.forget(once.scope))
            return None
        _check_same(found.fingerprint, once)
        return found.sandbox_id

    async def _replay(self, principal: Principal, sandbox_id: str) -> Outcome:
        row = await self._store.read(lambda work: work.sandboxes.get(sandbox_id))
        if row is None or not principal.sees(row) or row.status not in LIVE:
            raise error(
                "CONFLICT",
                f"This idempotency key has made the sandbox {sandbox_id}, which has ended.",
                remedy="Use a new key for a new sandbox.",
                sandbox_id=sandbox_id,
            )
        return Outcome(Creation(row, self._tokens.issue(sandbox_id, actor=principal.actor)), replayed=True)

    def _count(self, namespace: str) -> None:
        """Drop what is too much, now and then; not while the client waits."""
        self._untrimmed[namespace] += 1
        if self._untrimmed[namespace] >= _TRIM_EVERY:
            del self._untrimmed[namespace]
            self._background.spawn(self._trim(namespace), name="trim idempotency keys")

    async def _trim(self, namespace: str) -> None:
        try:
            await self._store.write(lambda work: work.creates.trim(namespace, keep=MAX_REMEMBERED))
        except CoveError as failure:
            self._log.warning("trim_failed", error=str(failure))


def _identify(principal: Principal, request: CreateSandbox, key: str, sealer: Sealer) -> IdempotencyKey:
    if _KEY.fullmatch(key) is None:
        raise error(
            "INVALID_REQUEST",
            "The Idempotency-Key is not 1 to 255 visible ASCII characters.",
            remedy="Send a random one, for example a UUID.",
            field="Idempotency-Key",
        )
    if request.env_vars:
        request = request.model_copy(update={"env_vars": dict(sorted(request.env_vars.items()))})
    if request.secrets:
        request = request.model_copy(update={"secrets": dict(sorted(request.secrets.items()))})
    asked = request.model_dump_json(exclude_none=True)
    # What holds secrets is hashed with a key: it could be guessed from the rest of it otherwise.
    fingerprint = sealer.digest(asked.encode()) if request.secrets else _hash(asked)
    return IdempotencyKey(_hash(*_whose(principal), key), fingerprint)


def _whose(principal: Principal) -> tuple[str, ...]:
    whose = (principal.namespace, principal.actor)
    return (*whose, principal.client_lease) if principal.client_lease else whose


def _hash(*parts: str) -> bytes:
    """Of parts that hold no NUL, or only one."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=32).digest()


def _check_same(fingerprint: bytes, once: IdempotencyKey) -> None:
    if fingerprint != once.fingerprint:
        raise error(
            "CONFLICT",
            "This idempotency key was used for another request.",
            remedy="Use a new key for each sandbox; repeat a request with its own key and an unchanged body.",
        )
