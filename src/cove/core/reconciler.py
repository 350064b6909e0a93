"""Compares what should exist (the store) with what does exist (the host), at start and every few seconds."""

import asyncio
from collections.abc import Awaitable, Collection, Mapping
from types import MappingProxyType

import structlog

from cove.core.catalog import TemplateCatalog
from cove.core.client_leases import ClientLeases
from cove.core.clock import Clock
from cove.core.creation import Creator
from cove.core.deadlines import Deadlines
from cove.core.directory import STATUS, LiveDirectory
from cove.core.endings import Endings
from cove.core.locks import KeyedLocks
from cove.core.pool import WarmPool
from cove.core.ports import Host
from cove.core.quotas import Quotas
from cove.core.states import LIVE
from cove.core.storage import Store
from cove.core.transitions import transit
from cove.models.errors import CoveError, error
from cove.models.hosts import HostState, SandboxRecord
from cove.models.sandboxes import EndReason
from cove.models.stored import StoredSandbox

_LIST_SECONDS = 10.0
_CALL_SECONDS = 10.0
_SAME_DEADLINE_SECONDS = 0.001
_AT_ONCE = 8
_NO_REASONS: Mapping[str, str] = MappingProxyType({})


class Reconciler:
    """Each pass: rows without a sandbox end as crashed, rows whose client has gone end, sandboxes without a row are
    destroyed, the rest is adopted."""

    def __init__(
        self,
        *,
        host: Host,
        store: Store,
        catalog: TemplateCatalog,
        pool: WarmPool,
        creator: Creator,
        endings: Endings,
        quotas: Quotas,
        directory: LiveDirectory,
        deadlines: Deadlines,
        locks: KeyedLocks,
        leases: ClientLeases,
        clock: Clock,
        interval_seconds: float = 3.0,
    ) -> None:
        self._host = host
        self._store = store
        self._catalog = catalog
        self._pool = pool
        self._creator = creator
        self._endings = endings
        self._quotas = quotas
        self._directory = directory
        self._deadlines = deadlines
        self._locks = locks
        self._leases = leases
        self._clock = clock
        self._interval = interval_seconds
        self._host_answers = True
        self._log = structlog.get_logger("cove.reconciler")

    @property
    def host_answers(self) -> bool:
        """Whether the last pass reached the host."""
        return self._host_answers

    async def run(self) -> None:
        """One pass after the other, until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            await self.try_pass()

    async def try_pass(self) -> None:
        """One pass; a failure is logged, once as long as it lasts."""
        try:
            await self.reconcile()
        except CoveError as failure:
            if self._host_answers:
                self._log.warning("reconcile_failed", code=failure.code, error=str(failure))
            self._host_answers = False
            return
        if not self._host_answers:
            self._log.info("reconcile_recovered")
        self._host_answers = True

    async def reconcile(self) -> None:
        """One pass.

        Rows are read before the host is asked: so each of them was on the host by then, and one that is missing in
        its answer is gone.

        Raises:
            CoveError: the store's, or the host's when it cannot be listed.
        """
        listed, members, counted = self._directory.ids(), self._pool.members(), self._quotas.ids()
        rows = {row.id: row for row in await self._store.read(lambda work: work.sandboxes.live())}
        self._quotas.settle(rows.values(), asked_about=counted)
        records = {record.sandbox_id: record for record in await self._records()}
        await self._catalog.refresh()
        alive = {name: record for name, record in records.items() if record.state is not HostState.DEAD}
        self._endings.settle(frozenset(records))
        self._forget(listed - rows.keys())
        self._pool.learn(self._catalog.digests())
        self._pool.observe(alive, asked_about=members)
        for row in rows.values():
            await self._guarded(self._compare(row, alive.get(row.id)), row.id)
        for sandbox_id, record in records.items():
            if sandbox_id not in rows:
                await self._guarded(self._place(record), sandbox_id)

    async def hear(self, ended: Collection[str], reasons: Mapping[str, str] = _NO_REASONS) -> None:
        """The host says that these sandboxes have ended by themselves, and of some which limit they ran into."""
        self._pool.observe({}, asked_about=frozenset(ended))
        turns = asyncio.Semaphore(_AT_ONCE)

        async def end(sandbox_id: str) -> None:
            async with turns:
                await self._guarded(self._end(sandbox_id, reasons.get(sandbox_id, "")), sandbox_id)

        await asyncio.gather(*(end(sandbox_id) for sandbox_id in ended))

    async def _end(self, sandbox_id: str, limit: str) -> None:
        row = await self._store.read(lambda work: work.sandboxes.get(sandbox_id))
        if row is not None and row.status in LIVE:
            await self._compare(row, None, limit)

    def _forget(self, ended: frozenset[str]) -> None:
        """What was listed before the rows were read, and has none, ended by another way than through this server."""
        for sandbox_id in ended:
            self._directory.remove(sandbox_id)
            self._deadlines.forget(sandbox_id)

    async def _records(self) -> tuple[SandboxRecord, ...]:
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                return await self._host.list()
        except TimeoutError:
            raise error("HOST_UNAVAILABLE", "The host did not list its sandboxes in time.") from None

    async def _guarded(self, step: Awaitable[None], sandbox_id: str) -> None:
        """One sandbox's trouble must not keep the others waiting for the next pass."""
        try:
            await step
        except CoveError as failure:
            self._log.warning("reconcile_step_failed", sandbox_id=sandbox_id, code=failure.code, error=str(failure))

    async def _compare(self, row: StoredSandbox, record: SandboxRecord | None, limit: str = "") -> None:
        now = self._clock()
        if row.deadline is not None and row.deadline <= now:
            await self._endings.end(row.id, reason=EndReason.EXPIRED, due=now)
        elif row.client_lease and not self._leases.is_open(row.client_lease):
            await self._endings.end(row.id, reason=EndReason.KILLED)
        elif record is None:
            await self._endings.end(row.id, reason=EndReason.CRASHED, limit=limit)
        else:
            await self._adopt(row, record)

    async def _adopt(self, row: StoredSandbox, record: SandboxRecord) -> None:
        """A sandbox that is where it should be: make everyone agree about it."""
        # One that is being changed disagrees for as long as that takes; the others need not wait for it.
        if self._agrees(row, record) or self._locks.is_held(row.id):
            return
        async with self._locks.hold(row.id):
            # A request may have changed the row since this pass read it; its word counts.
            if row != await self._store.read(lambda work: work.sandboxes.get(row.id)):
                return
            self._directory.add(record, row.preview_terms)
            self._deadlines.schedule(row.id, row.deadline)
            if _differ(row.deadline, record.deadline):
                await self._set_deadline(row)
            status = STATUS[record.state]
            if status is not row.status:
                await self._store.write(lambda work: transit(work, row.id, sources=LIVE, target=status))

    def _agrees(self, row: StoredSandbox, record: SandboxRecord) -> bool:
        return (
            self._directory.agrees(record, row.preview_terms)
            and STATUS[record.state] is row.status
            and not _differ(row.deadline, record.deadline)
        )

    async def _set_deadline(self, row: StoredSandbox) -> None:
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._host.set_deadline(row.id, row.deadline)
        except TimeoutError:
            raise error("HOST_UNAVAILABLE", "The host did not answer in time.") from None

    async def _place(self, record: SandboxRecord) -> None:
        """A sandbox that no row stood for when the pass began."""
        sandbox_id = record.sandbox_id
        # In this order: a create that is under way now stores its row before it is no longer under way.
        if self._creator.is_creating(sandbox_id) or self._pool.owns(sandbox_id):
            return
        row = await self._store.read(lambda work: work.sandboxes.get(sandbox_id))
        if row is not None and row.status in LIVE:
            return
        if row is None and self._pool.adopt(record):
            self._log.info("pool_member_adopted", sandbox_id=sandbox_id)
            return
        self._log.warning("orphan_destroyed", sandbox_id=sandbox_id, ended=row is not None)
        await self._endings.remove(sandbox_id)


def _differ(wanted: float | None, actual: float | None) -> bool:
    if wanted is None or actual is None:
        return wanted is not actual
    return abs(wanted - actual) > _SAME_DEADLINE_SECONDS
