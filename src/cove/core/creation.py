"""How sandboxes come to be: from the warm pool, or from their template."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import structlog

from cove.core.background import Background
from cove.core.catalog import TemplateCatalog
from cove.core.client_leases import ClientLeases
from cove.core.clock import Clock
from cove.core.deadlines import Deadlines
from cove.core.directory import LiveDirectory
from cove.core.endings import Endings
from cove.core.enforcement import Unenforced
from cove.core.locks import KeyedLocks
from cove.core.planning import CreationPlan, CreationPolicy, plan, reference_of
from cove.core.pool import WarmPool
from cove.core.ports import Host
from cove.core.principal import Principal
from cove.core.quotas import Charge, Quotas
from cove.core.secret_delivery import SecretDelivery
from cove.core.storage import Store, UnitOfWork
from cove.core.tokens import AgentTokens
from cove.core.vault import Vault, check_unchanged
from cove.models.errors import CoveError, error
from cove.models.hosts import SandboxRecord, SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.sandboxes import AgentToken, CreateSandbox, EndReason, SandboxStatus, name_taken
from cove.models.stored import StoredCreate, StoredEvent, StoredSandbox

_CLAIM_SECONDS = 5.0
_POOL_ATTEMPTS = 3
_SLOW_START_SECONDS = 0.1
_MAY_HAVE_STARTED = frozenset({"HOST_UNAVAILABLE", "TIMEOUT", "INTERNAL_ERROR", "NETWORK_ERROR"})
"""After other errors of `Host.create` nothing is left behind, and the id may be somebody else's (CONFLICT)."""


class GuestEnvironment(Protocol):
    """What the control plane asks of the agent inside a sandbox."""

    async def variables(self, socket: Path) -> Mapping[str, str]:
        """The environment that was set for the whole sandbox; bounded in time and size.

        Raises:
            CoveError: AGENT_UNREACHABLE.
        """
        ...

    async def rehearse(self, record: SandboxRecord) -> None:
        """Have a waiting sandbox go once through all that an execution takes; bounded in time.

        Raises:
            CoveError: AGENT_UNREACHABLE.
        """
        ...

    async def merge(self, record: SandboxRecord, env_vars: Mapping[str, str]) -> None:
        """Add to the sandbox's environment; bounded in time.

        Raises:
            CoveError: AGENT_UNREACHABLE.
        """
        ...


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Which create this is, and what it asks for: two hashes."""

    scope: bytes
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Creation:
    """A sandbox that was made.

    Attributes:
        pooled: whether it came from the warm pool.
        once: the key under which the create can be repeated.
    """

    sandbox: StoredSandbox
    token: AgentToken
    pooled: bool = False
    once: IdempotencyKey | None = None


class Creator:
    """Makes sandboxes. A row is stored only for one that runs; until then it is known here as being created."""

    def __init__(
        self,
        *,
        host: Host,
        store: Store,
        catalog: TemplateCatalog,
        pool: WarmPool,
        directory: LiveDirectory,
        deadlines: Deadlines,
        endings: Endings,
        quotas: Quotas,
        tokens: AgentTokens,
        guests: GuestEnvironment,
        background: Background,
        policy: CreationPolicy,
        leases: ClientLeases,
        unenforced: Unenforced,
        vault: Vault,
        delivery: SecretDelivery,
        clock: Clock,
    ) -> None:
        self._host = host
        self._store = store
        self._catalog = catalog
        self._pool = pool
        self._directory = directory
        self._deadlines = deadlines
        self._endings = endings
        self._quotas = quotas
        self._tokens = tokens
        self._guests = guests
        self._background = background
        self._policy = policy
        self._clock = clock
        self._leases = leases
        self._unenforced = unenforced
        self._vault = vault
        self._delivery = delivery
        self._creating: set[str] = set()
        self._naming = KeyedLocks(wait_seconds=policy.create_seconds + _CLAIM_SECONDS)
        self._log = structlog.get_logger("cove.creation")

    def is_creating(self, sandbox_id: str) -> bool:
        """Whether a host may have it while the store does not have it yet."""
        return sandbox_id in self._creating

    async def create(
        self, principal: Principal, request: CreateSandbox, *, once: IdempotencyKey | None = None
    ) -> Creation:
        """Make a sandbox; it runs and its agent answers when this returns. If the caller is cancelled meanwhile,
        it is ended as soon as it is made. With `once` it is remembered together with the sandbox.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND, what `planning.plan`, `Vault.resolve` and `Host.create` raise,
                RESOURCE_LIMIT_EXCEEDED,
                CONFLICT when its name is taken, TIMEOUT, STORE_UNAVAILABLE, AUTHENTICATION_REQUIRED when its client
                lease has ended. Nothing is left behind then.
        """
        self._check_lease(principal)
        async with self._reserved(principal, request.name):
            return await self._admitted(principal, request, once)

    async def _admitted(self, principal: Principal, request: CreateSandbox, once: IdempotencyKey | None) -> Creation:
        entry = await self._catalog.find(reference_of(request), principal.namespace)
        ceilings = self._quotas.ceilings(principal)
        secrets = await self._vault.resolve(principal, request.secrets)
        planned = plan(request, entry, self._policy, now=self._clock(), ceilings=ceilings, secrets=secrets)
        charge = self._quotas.admit(principal, planned.limits)
        return await self._background.finish(
            self._create(principal, planned, charge, once), name="create sandbox", abandoned=self.abandon
        )

    @asynccontextmanager
    async def _reserved(self, principal: Principal, name: str | None) -> AsyncGenerator[None]:
        """Creates of one name go one after the other, so that those that come too late make nothing. (The store has
        the last word: the name may be another process's.)"""
        if name is None:
            yield
            return
        namespace, lease = principal.namespace, principal.client_lease
        async with self._naming.hold(f"{namespace}/{lease}/{name}"):
            holder = await self._store.read(lambda work: work.sandboxes.holder(name, namespace, lease))
            if holder is not None:
                raise name_taken(name, holder)
            yield

    def _check_lease(self, principal: Principal) -> None:
        if principal.client_lease and not self._leases.is_open(principal.client_lease):
            raise error("AUTHENTICATION_REQUIRED", "The client lease has ended.", remedy="Open another one.")

    @asynccontextmanager
    async def lent(self, spec: SandboxSpec) -> AsyncGenerator[SandboxRecord]:
        """A sandbox of the server's own for as long as the block lasts: no row stands for it, and no tenant sees it.

        Raises:
            CoveError: what `Host.create` raises, TIMEOUT.
        """
        self._creating.add(spec.sandbox_id)
        try:
            yield await self._lent(spec)
        finally:
            await self._background.finish(self._discard(spec.sandbox_id), name="discard a lent sandbox")

    async def _lent(self, spec: SandboxSpec) -> SandboxRecord:
        try:
            async with asyncio.timeout(self._policy.create_seconds):
                return await self._host.create(spec)
        except TimeoutError:
            raise error("TIMEOUT", f"A sandbox did not start within {self._policy.create_seconds:.0f} s.") from None

    async def abandon(self, creation: Creation) -> None:
        """End a sandbox whose creator never heard of it: if it asks again, it gets another one."""
        once = creation.once
        if once is not None:
            await self._store.write(lambda work: work.creates.forget(once.scope))
        await self._endings.end(creation.sandbox.id, reason=EndReason.KILLED)

    async def _create(
        self, principal: Principal, planned: CreationPlan, charge: Charge, once: IdempotencyKey | None
    ) -> Creation:
        sandbox_id = ""
        try:
            record = await self._from_pool(planned)
            pooled = record is not None
            if record is None:
                record = await self._from_template(planned)
                planned = replace(planned, deadline=record.deadline)
                self._unenforced.note(record)
            sandbox_id = record.sandbox_id
            sandbox = _row(principal, planned, record)
            token = await self._commit(principal, sandbox, planned, record, once, pooled=pooled)
            await self._end_if_left(principal, sandbox)
            self._quotas.bind(charge, sandbox.id)
        except BaseException:
            self._quotas.give_back(charge)
            raise
        finally:
            self._creating.discard(sandbox_id)
        self._log.info("sandbox_created", sandbox_id=sandbox.id, template=sandbox.template_name, pooled=pooled)
        return Creation(sandbox, token, pooled, once)

    async def _end_if_left(self, principal: Principal, sandbox: StoredSandbox) -> None:
        """A lease that ended before the row was stored did not find it."""
        try:
            self._check_lease(principal)
        except CoveError:
            await self._endings.end(sandbox.id, reason=EndReason.KILLED)
            raise

    async def _from_pool(self, planned: CreationPlan) -> SandboxRecord | None:
        """A claimed member with the environment set, or None when the pool has none that is well."""
        for _ in range(_POOL_ATTEMPTS if planned.poolable else 0):
            member = self._pool.take(planned.template.host_name)
            if member is None:
                return None
            self._creating.add(member.sandbox_id)
            try:
                async with asyncio.timeout(_CLAIM_SECONDS):
                    record = await self._host.claim(member.sandbox_id, planned.deadline)
                    if planned.env_vars:
                        await self._guests.merge(record, planned.env_vars)
                    if planned.secrets:
                        await self._host.set_secrets(record.sandbox_id, planned.held_secrets, ())
                    return await self._networked(record, planned)
            except (CoveError, TimeoutError) as failure:
                self._log.warning("pool_member_unusable", sandbox_id=member.sandbox_id, error=repr(failure))
                await self._discard(member.sandbox_id)
            except BaseException:
                await self._discard(member.sandbox_id)
                raise
        return None

    async def _networked(self, record: SandboxRecord, planned: CreationPlan) -> SandboxRecord:
        """A member of the pool has no network until it is somebody's."""
        if planned.network is None:
            return record
        try:
            await self._host.set_network(record.sandbox_id, planned.network)
        except CoveError as failure:
            if failure.code != "UNSUPPORTED" or planned.network_required:
                raise
            return record
        return record.model_copy(update={"network": planned.network})

    async def _from_template(self, planned: CreationPlan) -> SandboxRecord:
        spec = SandboxSpec(
            sandbox_id=new_sandbox_id(),
            template=planned.template.host_name,
            isolation=planned.isolation,
            limits=planned.limits,
            env_vars=dict(planned.env_vars),
            deadline=planned.deadline,
            required_limits=planned.required_limits,
            network=planned.network,
            network_required=planned.network_required,
            secrets=planned.held_secrets,
        )
        self._creating.add(spec.sandbox_id)
        try:
            async with asyncio.timeout(self._policy.create_seconds):
                return await self._counted_from_now(await self._host.create(spec), planned)
        except CoveError as failure:
            if failure.code in _MAY_HAVE_STARTED:
                await self._discard(spec.sandbox_id)
            self._creating.discard(spec.sandbox_id)
            raise
        except TimeoutError:
            await self._discard(spec.sandbox_id)
            raise error("TIMEOUT", f"The sandbox did not start within {self._policy.create_seconds:.0f} s.") from None
        except BaseException:
            await self._discard(spec.sandbox_id)
            raise

    async def _counted_from_now(self, record: SandboxRecord, planned: CreationPlan) -> SandboxRecord:
        """A timeout counts from the time the sandbox runs: a slow start, as a template's first one is, takes nothing
        of it."""
        now = self._clock()
        if planned.timeout_seconds is None or now - planned.created_at < _SLOW_START_SECONDS:
            return record
        deadline = now + planned.timeout_seconds
        try:
            await self._host.set_deadline(record.sandbox_id, deadline)
        except CoveError as failure:
            if failure.code != "SANDBOX_NOT_FOUND":
                raise
            raise error(
                "TIMEOUT",
                f"The sandbox's timeout of {planned.timeout_seconds} s had passed when it had started.",
                remedy="Try again: the next start is faster.",
            ) from failure
        return record.model_copy(update={"deadline": deadline})

    async def _commit(
        self,
        principal: Principal,
        sandbox: StoredSandbox,
        planned: CreationPlan,
        record: SandboxRecord,
        once: IdempotencyKey | None,
        *,
        pooled: bool,
    ) -> AgentToken:
        try:
            token = self._tokens.issue(sandbox.id, actor=principal.actor)
            event = _event(principal, sandbox, pooled=pooled)
            current = await self._store.write(lambda work: _store(work, sandbox, planned, once, event))
        except BaseException:
            await self._discard(sandbox.id)
            raise
        self._directory.add(record, sandbox.preview_terms)
        self._deadlines.schedule(sandbox.id, sandbox.deadline)
        if not current:
            await self._delivery.renew((sandbox.id,))
        return token

    async def _discard(self, sandbox_id: str) -> None:
        """Undo on the host what no row stands for. If that fails the reconciler finds it: it has no row."""
        try:
            await self._endings.remove(sandbox_id)
        except CoveError as failure:
            self._log.warning("discard_failed", sandbox_id=sandbox_id, error=str(failure))
        finally:
            self._creating.discard(sandbox_id)


def _row(principal: Principal, planned: CreationPlan, record: SandboxRecord) -> StoredSandbox:
    return StoredSandbox(
        id=record.sandbox_id,
        namespace=principal.namespace,
        status=SandboxStatus.RUNNING,
        template_id=str(planned.template.id),
        template_name=planned.template.name,
        template_digest=record.template_digest or planned.template.digest,
        isolation=record.isolation,
        limits=record.limits,
        region=planned.region,
        timeout_seconds=planned.timeout_seconds,
        created_at=planned.created_at,
        deadline=planned.deadline,
        created_by=principal.actor,
        organization_id=principal.organization_id,
        name=planned.name,
        client_lease=principal.client_lease,
        unenforced=record.unenforced,
        internet_access=record.network is not None and record.network.is_public,
        network=record.network,
        preview_access=planned.preview_access,
        secrets={secret.held.name: secret.bound for secret in planned.secrets},
    )


def _event(principal: Principal, sandbox: StoredSandbox, *, pooled: bool) -> StoredEvent:
    details: dict[str, object] = {
        "template": sandbox.template_name,
        "isolation": sandbox.isolation.value,
        "timeout_seconds": sandbox.timeout_seconds,
        "pooled": pooled,
    }
    if sandbox.name is not None:
        details["name"] = sandbox.name
    if sandbox.client_lease:
        details["client_lease"] = sandbox.client_lease
    if sandbox.secrets:
        details["secrets"] = sorted(sandbox.secrets)
    return principal.event("sandbox.created", sandbox.id, at=sandbox.created_at, details=details)


def _store(
    work: UnitOfWork, sandbox: StoredSandbox, planned: CreationPlan, once: IdempotencyKey | None, event: StoredEvent
) -> bool:
    """Whether the secrets that it has are those that are kept now: a change finds rows only."""
    current = check_unchanged(work, sandbox.namespace, planned.secrets)
    work.sandboxes.add(sandbox)
    if once is not None:
        work.creates.add(
            StoredCreate(
                scope=once.scope,
                namespace=sandbox.namespace,
                fingerprint=once.fingerprint,
                sandbox_id=sandbox.id,
                created_at=sandbox.created_at,
            )
        )
    work.events.add(event)
    return current
