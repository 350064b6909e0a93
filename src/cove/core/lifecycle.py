"""What can be done with sandboxes that exist, on behalf of a principal."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TypeVar

import structlog

from cove.core.audit import AuditTrail
from cove.core.background import Background
from cove.core.clock import Clock, rfc3339
from cove.core.creation import GuestEnvironment
from cove.core.deadlines import Deadlines
from cove.core.directory import LiveDirectory
from cove.core.endings import Endings
from cove.core.locks import KeyedLocks
from cove.core.pages import Page, page_of, query_of
from cove.core.ports import Host
from cove.core.principal import Principal
from cove.core.states import TRANSITIONS, Action, way_back
from cove.core.storage import Store, UnitOfWork
from cove.core.tokens import AgentTokens
from cove.core.transitions import transit
from cove.models.errors import CoveError, error
from cove.models.hosts import HostUsage
from cove.models.identifiers import is_sandbox_id
from cove.models.network import EgressPolicy, EgressTotals, NetworkReport
from cove.models.sandboxes import AgentToken, EndReason, SandboxStatus
from cove.models.stored import StoredEvent, StoredSandbox

T = TypeVar("T")

_HOST_SECONDS = 10.0
_STOP_SECONDS = 30.0
_START_SECONDS = 60.0
_MOST_FREED_BEHIND = 32


class Lifecycle:
    """All but the making of sandboxes. A principal finds only what is in its own namespace."""

    def __init__(
        self,
        *,
        host: Host,
        store: Store,
        endings: Endings,
        directory: LiveDirectory,
        deadlines: Deadlines,
        tokens: AgentTokens,
        guests: GuestEnvironment,
        background: Background,
        locks: KeyedLocks,
        clock: Clock,
        audit: AuditTrail,
    ) -> None:
        self._audit = audit
        self._host = host
        self._store = store
        self._endings = endings
        self._directory = directory
        self._guests = guests
        self._deadlines = deadlines
        self._tokens = tokens
        self._background = background
        self._clock = clock
        self._locks = locks
        self._freeing = 0
        self._log = structlog.get_logger("cove.lifecycle")

    async def get(self, principal: Principal, sandbox_id: str) -> StoredSandbox:
        """The sandbox.

        Raises:
            CoveError: SANDBOX_NOT_FOUND, which says why it is gone if it once was there.
        """
        row = await self._row(principal, sandbox_id)
        if row.status is SandboxStatus.DELETED:
            raise _ended(row)
        return row

    async def usage(self, principal: Principal, sandbox_id: str) -> tuple[StoredSandbox, HostUsage]:
        """The sandbox, and what it uses, as its host counts it.

        Raises:
            CoveError: SANDBOX_NOT_FOUND, HOST_UNAVAILABLE.
        """
        row = await self.get(principal, sandbox_id)
        try:
            async with asyncio.timeout(_HOST_SECONDS):
                return row, await self._host.usage(row.id)
        except TimeoutError:
            raise error("HOST_UNAVAILABLE", "The host did not say in time what the sandbox uses.") from None

    async def network_totals(self) -> EgressTotals:
        """Of everybody's sandboxes; see `Host.network_totals`. Not for tenants."""
        return await self._host.network_totals()

    async def network(self, principal: Principal, sandbox_id: str, *, after: int) -> NetworkReport:
        """What it did on the network since it runs; entries with a sequence number above `after`.

        Raises:
            CoveError: SANDBOX_NOT_FOUND, HOST_UNAVAILABLE.
        """
        row = await self.get(principal, sandbox_id)
        return await self._on_host(row.id, self._host.network(row.id, after))

    async def set_network(self, principal: Principal, sandbox_id: str, policy: EgressPolicy | None) -> StoredSandbox:
        """Put a policy in force at once, also for what is connected; None takes the network away.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; UNSUPPORTED where its isolation has no networks; HOST_UNAVAILABLE.
        """
        return await self._background.finish(
            self._set_network(principal, sandbox_id, policy), name=f"network {sandbox_id[:32]}"
        )

    async def list(
        self,
        principal: Principal,
        *,
        limit: int,
        cursor: str | None = None,
        status: SandboxStatus | None = None,
        region: str | None = None,
        name: str | None = None,
    ) -> Page:
        """One page, newest first.

        Raises:
            CoveError: INVALID_REQUEST for a cursor that no page gave out.
        """
        query = query_of(principal, limit=limit, cursor=cursor, status=status, region=region, name=name)
        return page_of(query, await self._store.read(lambda work: work.sandboxes.page(query)))

    async def delete(self, principal: Principal, sandbox_id: str) -> None:
        """End it and free all that it held; done when this returns.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; HOST_UNAVAILABLE, and then another call tries again.
        """
        await self._background.finish(self._delete(principal, sandbox_id, wait=True), name=f"delete {sandbox_id[:32]}")

    async def delete_soon(self, principal: Principal, sandbox_id: str) -> bool:
        """As `delete`, but done when it has ended for everyone; what it held is freed a moment later. Where that is
        going on for many already, it waits all the same.

        Returns:
            Whether all is freed.
        """
        return await self._background.finish(
            self._delete(principal, sandbox_id, wait=False), name=f"delete {sandbox_id[:32]}"
        )

    async def set_timeout(self, principal: Principal, sandbox_id: str, seconds: int) -> StoredSandbox:
        """Let it end so many seconds from now; 0 means never."""
        return await self._background.finish(
            self._set_timeout(principal, sandbox_id, seconds), name=f"timeout {sandbox_id[:32]}"
        )

    async def pause(self, principal: Principal, sandbox_id: str) -> StoredSandbox:
        """Freeze it. Idempotent."""
        return await self._background.finish(
            self._switch(principal, sandbox_id, Action.PAUSE), name=f"pause {sandbox_id[:32]}"
        )

    async def resume(self, principal: Principal, sandbox_id: str) -> StoredSandbox:
        """Let it go on. Idempotent."""
        return await self._background.finish(
            self._switch(principal, sandbox_id, Action.RESUME), name=f"resume {sandbox_id[:32]}"
        )

    async def stop(self, principal: Principal, sandbox_id: str) -> StoredSandbox:
        """End all its processes and keep its disk and its environment. Idempotent. Its deadline goes on.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; UNSUPPORTED where its disk is memory, and then nothing was touched.
        """
        return await self._background.finish(
            self._switch(principal, sandbox_id, Action.STOP), name=f"stop {sandbox_id[:32]}"
        )

    async def start(self, principal: Principal, sandbox_id: str) -> StoredSandbox:
        """Let a stopped one run again; its agent answers when this returns. Idempotent.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; INVALID_STATE for a paused one; TEMPLATE_NOT_BUILT when the version of the
                template that it stands on is no more; what `Host.start` raises. It stays stopped then.
        """
        return await self._background.finish(
            self._switch(principal, sandbox_id, Action.START), name=f"start {sandbox_id[:32]}"
        )

    async def refresh_token(self, principal: Principal, sandbox_id: str) -> AgentToken:
        """A new token for its agent; older ones stay valid until they expire."""
        row = await self.get(principal, sandbox_id)
        self._audit.repeated(principal.event("sandbox.token_issued", row.id, at=self._clock()))
        return self._tokens.issue(row.id, actor=principal.actor)

    async def expire(self, sandbox_id: str) -> None:
        """End it if its deadline has come (it may have been moved meanwhile)."""
        if await self._endings.end(sandbox_id, reason=EndReason.EXPIRED, due=self._clock()) is None:
            row = await self._store.read(lambda work: work.sandboxes.get(sandbox_id))
            if row is not None and row.status is not SandboxStatus.DELETED:
                self._deadlines.schedule(sandbox_id, row.deadline)

    async def _row(self, principal: Principal, sandbox_id: str) -> StoredSandbox:
        row = None
        if is_sandbox_id(sandbox_id):
            row = await self._store.read(lambda work: work.sandboxes.get(sandbox_id))
        if row is None or not principal.sees(row):
            raise error("SANDBOX_NOT_FOUND", f"Sandbox {sandbox_id[:64]!r} was not found.")
        return row

    async def _delete(self, principal: Principal, sandbox_id: str, *, wait: bool) -> bool:
        if is_sandbox_id(sandbox_id) and await self._endings.bury(
            sandbox_id,
            reason=EndReason.KILLED,
            actor=principal.actor,
            origin=principal.origin,
            namespace=principal.namespace,
            client_lease=principal.client_lease or None,
        ):
            if not wait and self._freeing < _MOST_FREED_BEHIND:
                self._freeing += 1
                self._background.spawn(self._free(sandbox_id), name=f"free {sandbox_id}")
                return False
            await self._endings.remove(sandbox_id)
            return True
        row = await self._row(principal, sandbox_id)
        if not self._endings.is_left(sandbox_id):
            raise _ended(row)
        await self._endings.remove(sandbox_id)
        return True

    async def _free(self, sandbox_id: str) -> None:
        """Behind the caller's back. What fails here is repeated by the reconciler."""
        try:
            await self._endings.remove(sandbox_id)
        except CoveError as failure:
            self._log.warning("not_freed_yet", sandbox_id=sandbox_id, error=str(failure))
        finally:
            self._freeing -= 1

    async def _set_timeout(self, principal: Principal, sandbox_id: str, seconds: int) -> StoredSandbox:
        async with self._locks.hold(sandbox_id):
            await self.get(principal, sandbox_id)
            deadline = self._clock() + seconds if seconds else None
            # The host first: it ends sandboxes on its own, so a row must never promise more than it knows.
            await self._on_host(sandbox_id, self._host.set_deadline(sandbox_id, deadline))
            event = principal.event(
                "sandbox.timeout_changed", sandbox_id, at=self._clock(), details={"timeout_seconds": seconds}
            )
            row = await self._store.write(lambda work: _set_deadline(work, sandbox_id, deadline, seconds, event))
            if row is None:
                return await self.get(principal, sandbox_id)
            self._deadlines.schedule(sandbox_id, deadline)
            return row

    async def _set_network(self, principal: Principal, sandbox_id: str, policy: EgressPolicy | None) -> StoredSandbox:
        async with self._locks.hold(sandbox_id):
            row = await self.get(principal, sandbox_id)
            # The host first: the row tells what is in force.
            await self._on_host(row.id, self._host.set_network(row.id, policy))
            details = {} if policy is None else {"allow": list(policy.allow[:20]), "deny": list(policy.deny[:20])}
            event = principal.event("sandbox.network_changed", sandbox_id, at=self._clock(), details=details)
            changed = await self._store.write(lambda work: _set_network(work, sandbox_id, policy, event))
            return changed or await self.get(principal, sandbox_id)

    async def _switch(self, principal: Principal, sandbox_id: str, action: Action) -> StoredSandbox:
        transition = TRANSITIONS[action]
        async with self._locks.hold(sandbox_id):
            row = await self.get(principal, sandbox_id)
            if row.status is transition.target:
                return row
            if row.status not in transition.sources:
                raise _wrong_state(row, action)
            await self._act(row, action)
            changed = await self._store.write(
                lambda work: _transition(work, sandbox_id, action, principal, self._clock())
            )
            return changed or await self.get(principal, sandbox_id)

    async def _act(self, row: StoredSandbox, action: Action) -> None:
        """On the host; the gateway closes a sandbox before it stops answering, and opens it when it answers."""
        target = TRANSITIONS[action].target
        if target is not SandboxStatus.RUNNING:
            self._directory.set_status(row.id, target)
        try:
            match action:
                case Action.PAUSE:
                    await self._on_host(row.id, self._host.pause(row.id))
                case Action.STOP:
                    await self._stop(row)
                case Action.START:
                    await self._on_host(row.id, self._host.start(row.id), seconds=_START_SECONDS)
                case _:
                    await self._on_host(row.id, self._host.resume(row.id))
        except BaseException:
            self._directory.set_status(row.id, row.status)
            raise
        self._directory.set_status(row.id, target)

    async def _stop(self, row: StoredSandbox) -> None:
        if row.status is SandboxStatus.PAUSED:  # or its agent could not say what its variables are
            await self._on_host(row.id, self._host.resume(row.id))
        variables = await self._variables(row)
        await self._on_host(row.id, self._host.stop(row.id, variables), seconds=_STOP_SECONDS)

    async def _variables(self, row: StoredSandbox) -> Mapping[str, str]:
        """What the sandbox's environment is now; a sandbox that does not tell is stopped all the same, without it."""
        socket = self._directory.socket_path(row.id)
        if socket is None:
            return {}
        try:
            return await self._guests.variables(socket)
        except CoveError as failure:
            self._log.warning("environment_lost", sandbox_id=row.id, error=str(failure))
            return {}

    async def _on_host(self, sandbox_id: str, call: Awaitable[T], *, seconds: float = _HOST_SECONDS) -> T:
        """Await a host's call, bounded. When the host knows no such sandbox, it has crashed."""
        try:
            async with asyncio.timeout(seconds):
                return await call
        except TimeoutError:
            raise error("HOST_UNAVAILABLE", "The host did not answer in time.") from None
        except CoveError as failure:
            if failure.code == "SANDBOX_NOT_FOUND":
                limit = str(failure.details.get("limit", ""))
                await self._endings.end(sandbox_id, reason=EndReason.CRASHED, limit=limit)
            raise


def _transition(
    work: UnitOfWork, sandbox_id: str, action: Action, principal: Principal, now: float
) -> StoredSandbox | None:
    transition = TRANSITIONS[action]
    row = transit(work, sandbox_id, sources=transition.sources, target=transition.target)
    if row is not None:
        work.events.add(principal.event(f"sandbox.{transition.target}", sandbox_id, at=now))
    return row


def _set_network(
    work: UnitOfWork, sandbox_id: str, policy: EgressPolicy | None, event: StoredEvent
) -> StoredSandbox | None:
    row = work.sandboxes.set_network(sandbox_id, policy)
    if row is not None:
        work.events.add(event)
    return row


def _set_deadline(
    work: UnitOfWork, sandbox_id: str, deadline: float | None, seconds: int, event: StoredEvent
) -> StoredSandbox | None:
    row = work.sandboxes.set_deadline(sandbox_id, deadline=deadline, timeout_seconds=seconds or None)
    if row is not None:
        work.events.add(event)
    return row


def _wrong_state(row: StoredSandbox, action: Action) -> CoveError:
    return error(
        "INVALID_STATE",
        f"Sandbox {row.id} is {row.status}: it cannot {action}.",
        remedy=way_back(row.status),
        sandbox_id=row.id,
        status=row.status.value,
    )


def _ended(row: StoredSandbox) -> CoveError:
    """Why a sandbox is gone. The wording holds `sandbox` and `not found`, by which clients know that it ended."""
    at = "" if row.ended_at is None else f" at {rfc3339(row.ended_at)}"
    after = "" if row.timeout_seconds is None else f" after its timeout of {row.timeout_seconds} s"
    why = {
        EndReason.KILLED: f"it was killed{at}",
        EndReason.EXPIRED: f"it expired{at}{after}",
        EndReason.CRASHED: f"its first process died or the host lost it{at}",
        EndReason.FAILED_TO_START: f"it failed to start{at}",
        EndReason.HOST_STOPPED: f"its host was stopped{at}",
    }.get(row.end_reason or EndReason.KILLED, f"it ended{at}")
    if row.end_limit:
        why = f"it ended at its limit{at}: {row.end_limit}"
    return error(
        "SANDBOX_NOT_FOUND",
        f"Sandbox {row.id} was not found: {why}.",
        remedy="Create a new sandbox.",
        sandbox_id=row.id,
        status=row.status.value,
        end_reason=row.end_reason and row.end_reason.value,
        **({"limit": row.end_limit} if row.end_limit else {}),
        created_at=rfc3339(row.created_at),
        ended_at=None if row.ended_at is None else rfc3339(row.ended_at),
        expires_at=None if row.deadline is None else rfc3339(row.deadline),
    )
