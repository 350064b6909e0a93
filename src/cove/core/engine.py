"""The core, put together: all that is needed to run sandboxes on a host, without a network interface."""

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

import structlog

from cove.core.audit import AuditTrail
from cove.core.background import Background
from cove.core.catalog import TemplateCatalog
from cove.core.client_leases import ClientLeases
from cove.core.clock import Clock
from cove.core.creation import Creator, GuestEnvironment
from cove.core.deadlines import Deadlines
from cove.core.delegated_keys import DelegatedKeys
from cove.core.directory import LiveDirectory
from cove.core.endings import Endings
from cove.core.enforcement import Unenforced
from cove.core.host_watcher import HostWatcher
from cove.core.idempotency import RepeatableCreates
from cove.core.lifecycle import Lifecycle
from cove.core.locks import KeyedLocks
from cove.core.planning import CreationPolicy
from cove.core.pool import WarmPool
from cove.core.ports import Host
from cove.core.previews import Previews
from cove.core.quotas import Quotas
from cove.core.reconciler import Reconciler
from cove.core.retention import DEFAULT_AUDIT_DAYS, Retention
from cove.core.secret_changes import SecretChanges
from cove.core.secret_delivery import SecretDelivery
from cove.core.storage import Store
from cove.core.tokens import AgentTokens
from cove.core.vault import Vault
from cove.keys.sealing import Sealer
from cove.models.errors import CoveError
from cove.models.quotas import UNLIMITED, Quota

_LOCK_SECONDS = 30.0
_GRACE_SECONDS = 10.0


class SandboxEngine:
    """Owns the parts and the loops between them. The store has to be open while it is started.

    Attributes:
        directory: where the agents of running sandboxes are.
        catalog, pool, creator, creates, lifecycle, previews, secrets, reconciler, deadlines, quotas: the parts, each
            for its own purpose.
        audit: the audit log.
        leases: of clients whose sandboxes end with them.
        delegated_keys: those of leases, and of whatever else in this server speaks its own API.
    """

    def __init__(
        self,
        host: Host,
        store: Store,
        *,
        tokens: AgentTokens,
        sealer: Sealer,
        guests: GuestEnvironment,
        policy: CreationPolicy,
        pool_targets: Mapping[str, int],
        namespace_quota: Quota = UNLIMITED,
        reconcile_seconds: float = 3.0,
        audit_days: int = DEFAULT_AUDIT_DAYS,
        clock: Clock = time.time,
    ) -> None:
        self._host = host
        self._warmed = tuple(pool_targets)
        self.directory = LiveDirectory()
        self.deadlines = Deadlines(clock=clock)
        self.quotas = Quotas(max_sandboxes=policy.max_sandboxes, defaults=namespace_quota)
        self._background = Background()
        self._log = structlog.get_logger("cove.engine")
        self._retention = Retention(store, audit_days=audit_days, clock=clock)
        self.audit = AuditTrail(store, clock=clock)
        locks, unenforced = KeyedLocks(wait_seconds=_LOCK_SECONDS), Unenforced()
        self.catalog = TemplateCatalog(host, store, clock=clock)
        self.pool = WarmPool(
            host,
            targets=pool_targets,
            limits=policy.limits,
            isolation=policy.isolation,
            must_hold=policy.must_hold,
            unenforced=unenforced,
            rehearse=guests.rehearse,
            create_seconds=policy.create_seconds,
        )
        endings = Endings(host, store, self.directory, self.deadlines, self.quotas, clock=clock)
        self.delegated_keys = DelegatedKeys()
        self.leases = ClientLeases(store, endings, self.delegated_keys, self._background, self.audit, clock=clock)
        vault = Vault(store, sealer, clock=clock)
        self._delivery = SecretDelivery(host, store, vault, locks)
        self.creator = Creator(
            host=host,
            store=store,
            catalog=self.catalog,
            pool=self.pool,
            directory=self.directory,
            deadlines=self.deadlines,
            endings=endings,
            quotas=self.quotas,
            tokens=tokens,
            guests=guests,
            background=self._background,
            policy=policy,
            leases=self.leases,
            unenforced=unenforced,
            vault=vault,
            delivery=self._delivery,
            clock=clock,
        )
        self.creates = RepeatableCreates(
            self.creator,
            store,
            tokens,
            self._background,
            sealer=sealer,
            create_seconds=policy.create_seconds,
            clock=clock,
        )
        self.lifecycle = Lifecycle(
            host=host,
            store=store,
            endings=endings,
            directory=self.directory,
            deadlines=self.deadlines,
            tokens=tokens,
            guests=guests,
            background=self._background,
            locks=locks,
            clock=clock,
            audit=self.audit,
        )
        self.previews = Previews(
            lifecycle=self.lifecycle,
            store=store,
            directory=self.directory,
            tokens=tokens,
            audit=self.audit,
            background=self._background,
            locks=locks,
            clock=clock,
        )
        self.secrets = SecretChanges(
            store=store,
            vault=vault,
            delivery=self._delivery,
            lifecycle=self.lifecycle,
            background=self._background,
            locks=locks,
            clock=clock,
        )
        self.reconciler = Reconciler(
            host=host,
            store=store,
            catalog=self.catalog,
            pool=self.pool,
            creator=self.creator,
            endings=endings,
            quotas=self.quotas,
            directory=self.directory,
            deadlines=self.deadlines,
            locks=locks,
            leases=self.leases,
            clock=clock,
            interval_seconds=reconcile_seconds,
        )
        self._watcher = HostWatcher(host, self.reconciler)

    async def start(self) -> None:
        """Adopt what runs, then start the loops. A host that does not answer yet is no reason to fail.

        Raises:
            CoveError: STORE_UNAVAILABLE.
        """
        await self.catalog.load()
        await self.reconciler.try_pass()
        self._background.keep(lambda: self.deadlines.run(self.lifecycle.expire), name="deadlines")
        self._background.keep(self.reconciler.run, name="reconciler")
        self._background.keep(self._watcher.run, name="host watcher")
        self._background.keep(self.pool.run, name="pool")
        self._background.keep(self._retention.run, name="retention")
        self._background.keep(self.audit.run, name="audit")
        self._background.keep(self._delivery.run, name="secrets")
        self._background.spawn(self._warm(), name="warm")

    async def _warm(self) -> None:
        """Have the host load the pool's templates, also where the pool is empty, before the first create asks."""
        for template in self._warmed:
            try:
                await self._host.warm(template)
            except CoveError as failure:
                self._log.warning("not_warmed", template=template, error=failure.message)

    async def stop(self) -> None:
        """Finish what is under way, end the loops and the warm pool. Sandboxes go on running."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.audit.flush, everything=True)
            stack.push_async_callback(self.pool.close)
            await self._background.close(grace_seconds=_GRACE_SECONDS)
