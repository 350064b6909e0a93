"""The host in this process: what the daemon serves, and what `cove run` embeds."""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from cove.core.locks import KeyedLocks
from cove.drivers.base import RuntimeDriver, cannot_stop, or_doubt
from cove.host.records import RecordStore
from cove.hostd.changes import ChangeLog
from cove.hostd.host_templates import HostTemplates
from cove.hostd.networks import SandboxNetworks
from cove.hostd.secrets import SandboxSecrets
from cove.models.errors import CoveError, error
from cove.models.hosts import HostCapacity, HostChanges, HostState, HostUsage, SandboxRecord, SandboxSpec
from cove.models.identifiers import is_sandbox_id
from cove.models.isolation import DriverReport, Isolation
from cove.models.limits import MUST_HOLD, Limits
from cove.models.network import EgressPolicy, EgressTotals, NetworkReport
from cove.models.secrets import EgressSecret
from cove.models.templates import BuildProgress, TemplateDerivation, TemplateManifest

_STRONGEST_FIRST: Final = (Isolation.MICROVM, Isolation.GVISOR, Isolation.NAMESPACE, Isolation.FAKE)
_LONGEST_SLEEP: Final = 3600.0
_AT_ONCE: Final = 8
_RETRY_SECONDS: Final = 0.05
_LOCK_SECONDS: Final = 60.0
CEILINGS: Final = ("vcpu", "memory_mb", "disk_mb", "pids", "open_files")
"""Names of the `Limits` fields that a host can be given maxima for, whatever a control plane asks."""


class LocalHost:
    """Implements `core.ports.Host` over drivers on this machine.

    Invariants: a sandbox that runs has a record; a record whose sandbox has died is removed as soon as that is
    seen, but not that of a stopped one; a deadline is kept even when no control plane is there.
    """

    def __init__(
        self,
        *,
        host_id: str,
        drivers: Mapping[Isolation, RuntimeDriver],
        default_isolation: Isolation | None,
        records: RecordStore,
        templates: HostTemplates,
        max_sandboxes: int,
        networks: SandboxNetworks,
        secrets: SandboxSecrets,
        ceilings: Mapping[str, int] | None = None,
        server_uid: int | None = None,
    ) -> None:
        """
        Args:
            default_isolation: None means the strongest driver whose probe succeeds.
            secrets: the same that `networks` has.
            ceilings: the most that a sandbox may be given, by the names of `CEILINGS`.
            server_uid: the user, beside root, who may connect to agents; None leaves their sockets to this process'.
        """
        self._networks = networks
        self._secrets = secrets
        self._ceilings = ceilings or {}
        self._server_uid = server_uid
        self._host_id = host_id
        self._drivers = drivers
        self._default_isolation = default_isolation
        self._store = records
        self._templates = templates
        self._max_sandboxes = max_sandboxes
        self._records: dict[str, SandboxRecord] = {}
        self._adopted: set[str] = set()
        self._creating: set[str] = set()
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._starts = asyncio.Semaphore(_AT_ONCE)
        self._locks = KeyedLocks(wait_seconds=_LOCK_SECONDS)
        self._changes = ChangeLog()
        self._deadline_changed = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Adopt what an earlier daemon left, remove the remains of what died, begin to watch deadlines."""
        for record in self._store.load():
            driver = self._drivers.get(record.isolation)
            if driver and await driver.adopt(record):
                with contextlib.suppress(OSError):  # without its socket it is of no use, but it is there
                    self._give_socket(record)
                self._register(record)
                if not record.pooled:
                    self._adopted.add(record.sandbox_id)
            else:
                self._store.remove(record.sandbox_id)
        known = frozenset(self._records)
        self._templates.forget_except({record.template_digest for record in self._records.values()})
        for driver in self._drivers.values():
            await driver.sweep(known)
        self._secrets.load(known)
        await self._networks.adopt(self._records.values())
        self._sweeper = asyncio.create_task(self._watch_deadlines())

    async def close(self, *, destroy: bool, keep_stopped: bool = False, keep_adopted: bool = False) -> None:
        """Stop watching; with `destroy`, end every sandbox first (`keep_stopped`: but for those that are stopped;
        `keep_adopted`: but for those that an earlier daemon started)."""
        if self._sweeper:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        if destroy:
            kept = self._adopted if keep_adopted else frozenset[str]()
            doomed = [
                name
                for name, record in self._records.items()
                if name not in kept and not (keep_stopped and _stopped(record))
            ]
            await asyncio.gather(*(self.destroy(name) for name in doomed), return_exceptions=True)
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        await self._networks.close(end=destroy and all(map(_stopped, self._records.values())))
        for driver in self._drivers.values():
            await driver.close()

    async def capacity(self) -> HostCapacity:
        """Facts of this machine."""
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return HostCapacity(
            host_id=self._host_id,
            cpus=os.cpu_count() or 1,
            memory_bytes=pages * page,
            sandboxes=len(self._records),
            max_sandboxes=self._max_sandboxes,
            drivers=await self.check(),
        )

    async def check(self, *, fresh: bool = False) -> tuple[DriverReport, ...]:
        """Each driver probes once and remembers; `fresh`: now, whatever is remembered."""
        return tuple([await driver.check(fresh=fresh) for driver in self._drivers.values()])

    async def create(self, spec: SandboxSpec) -> SandboxRecord:
        """Start a sandbox, at most a few at the same time: more at once only makes each of them slower."""
        if not is_sandbox_id(spec.sandbox_id):
            raise error("INVALID_REQUEST", f"{spec.sandbox_id[:64]!r} is not a sandbox id.")
        self._refuse_above_ceilings(spec.limits)
        if spec.sandbox_id in self._records or spec.sandbox_id in self._creating:
            raise error("CONFLICT", f"Sandbox {spec.sandbox_id} exists already.")
        if len(self._records) + len(self._creating) >= self._max_sandboxes:
            raise error(
                "CAPACITY_EXHAUSTED",
                f"This host runs {self._max_sandboxes} sandboxes, its limit.",
                remedy="Delete some, or raise --max-sandboxes.",
            )
        self._creating.add(spec.sandbox_id)
        try:
            template = await self._templates.get(spec.template)
            driver = await self._driver(spec.isolation)
            await _refuse_unenforceable(driver, spec)
            if spec.network_required:
                self._networks.refuse_unless_possible(driver, spec.network)
            self._secrets.keep(spec.sandbox_id, spec.secrets)
            record = await self._started(spec.model_copy(update={"secrets": ()}), driver, template)
        except BaseException:
            self._secrets.forget(spec.sandbox_id)
            raise
        finally:
            self._creating.discard(spec.sandbox_id)
        self._register(record)
        return record

    async def _started(self, spec: SandboxSpec, driver: RuntimeDriver, template: TemplateManifest) -> SandboxRecord:
        async with self._starts:
            record = _marked(await or_doubt(driver, driver.create(spec, template)), driver)
        record = await self._with_network(driver, record, spec)
        await self._keep(driver, record, template)
        return record

    async def _with_network(self, driver: RuntimeDriver, record: SandboxRecord, spec: SandboxSpec) -> SandboxRecord:
        """The record with the network that is in force. Without one that is required there is no sandbox."""
        if spec.network is None:
            return record
        networked = record.model_copy(update={"network": spec.network})
        try:
            await self._networks.apply(networked, spec.network)
        except BaseException as problem:
            await self._networks.forget(record.sandbox_id)
            if isinstance(problem, CoveError) and problem.code == "UNSUPPORTED" and not spec.network_required:
                return record
            await driver.destroy(record)
            raise
        return networked

    async def _keep(self, driver: RuntimeDriver, record: SandboxRecord, template: TemplateManifest) -> None:
        """A sandbox without a record would be lost at the next start: it is ended instead."""
        try:
            self._give_socket(record)
            self._templates.keep(template)
            self._store.save(record)
        except OSError as problem:
            await driver.destroy(record)
            code = "DISK_FULL" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else "SANDBOX_START_FAILED"
            raise error(code, f"The sandbox's record cannot be written: {problem.strerror}.") from problem

    async def destroy(self, sandbox_id: str) -> None:
        """End it; the record goes last, so that a crash in between is found again."""
        async with self._locks.hold(sandbox_id):
            record = self._records.get(sandbox_id)
            if record is None:
                return
            self._unwatch(sandbox_id)
            await self._networks.forget(sandbox_id)
            await self._drivers[record.isolation].destroy(record)
            self._records.pop(sandbox_id, None)
            self._secrets.forget(sandbox_id)
            self._store.remove(sandbox_id)

    async def stop(self, sandbox_id: str, env_vars: Mapping[str, str]) -> None:
        """End all but the disk. The record says so first: whatever is cut off then is a stop, and not the end."""
        async with self._locks.hold(sandbox_id):
            record = self._existing(sandbox_id)
            if _stopped(record) and not record.pid:
                return
            driver = self._drivers[record.isolation]
            if not driver.capabilities.stop_start:
                raise cannot_stop(record.isolation)
            if record.pooled:
                raise error("CONFLICT", f"Sandbox {sandbox_id} is in the pool.")
            if not _stopped(record):
                record = record.model_copy(update={"state": HostState.STOPPED, "env_vars": dict(env_vars)})
                self._update(record, durable=True)
            self._unwatch(sandbox_id)
            await self._networks.forget(sandbox_id)
            await self._finish_stop(driver, record)

    async def start(self, sandbox_id: str) -> SandboxRecord:
        """Let the driver start it; until its record says that it runs, it counts as stopped."""
        async with self._locks.hold(sandbox_id):
            record = self._existing(sandbox_id)
            if record.state is HostState.PAUSED:
                raise error("INVALID_STATE", f"Sandbox {sandbox_id} is paused: resume it.")
            if not _stopped(record):
                return record
            driver = self._drivers[record.isolation]
            if record.pid:
                record = await self._finish_stop(driver, record)
            template = await self._templates.version_of(record)
            async with self._starts:
                started = await or_doubt(driver, driver.start(record, template, record.env_vars))
            return await self._keep_started(driver, started)

    async def changes(self, cursor: str, seconds: float) -> HostChanges:
        """What ended by itself."""
        return await self._changes.since(cursor, seconds)

    async def claim(self, sandbox_id: str, deadline: float | None) -> SandboxRecord:
        """From pool member to sandbox."""
        record = self._existing(sandbox_id)
        if not record.pooled:
            raise error("CONFLICT", f"Sandbox {sandbox_id} is not in the pool.")
        return self._update(record.model_copy(update={"pooled": False, "deadline": deadline}))

    async def set_deadline(self, sandbox_id: str, deadline: float | None) -> None:
        """Persisted before it is in force."""
        self._update(self._existing(sandbox_id).model_copy(update={"deadline": deadline}))

    async def set_network(self, sandbox_id: str, policy: EgressPolicy | None) -> None:
        """In force, then written down: what a daemon that dies in between has opened, the next one closes."""
        async with self._locks.hold(sandbox_id):
            record = self._existing(sandbox_id)
            self._networks.refuse_unless_possible(self._drivers[record.isolation], policy)
            if not _stopped(record):
                await self._networks.apply(record, policy)
            self._update(self._existing(sandbox_id).model_copy(update={"network": policy}))

    async def set_secrets(self, sandbox_id: str, changed: tuple[EgressSecret, ...], removed: tuple[str, ...]) -> None:
        """Written down, then in force: what a daemon that dies in between has not said, the next one says."""
        async with self._locks.hold(sandbox_id):
            self._existing(sandbox_id)
            await self._networks.set_secrets(sandbox_id, changed, removed)

    async def network(self, sandbox_id: str, after: int) -> NetworkReport:
        """As the egress program counted it."""
        return await self._networks.report(self._existing(sandbox_id), after=after)

    async def pause(self, sandbox_id: str) -> None:
        """Freeze."""
        await self._set_state(sandbox_id, HostState.PAUSED)

    async def resume(self, sandbox_id: str) -> None:
        """Thaw."""
        await self._set_state(sandbox_id, HostState.RUNNING)

    async def list(self) -> tuple[SandboxRecord, ...]:
        """All records, without what is only kept for a start."""
        return tuple(_shown(record) for record in self._records.values())

    async def usage(self, sandbox_id: str) -> HostUsage:
        """As the driver measures it, and the egress program."""
        record = self._existing(sandbox_id)
        used = await self._drivers[record.isolation].usage(record)
        if record.network is None:
            return used
        with contextlib.suppress(CoveError):  # the rest is worth knowing
            return used.model_copy(update={"network": await self._networks.totals(sandbox_id)})
        return used

    async def network_totals(self) -> EgressTotals:
        """As the egress program counted it."""
        return await self._networks.totals()

    async def templates(self) -> tuple[TemplateManifest, ...]:
        """Those that are built."""
        return await self._templates.list()

    async def warm(self, template: str) -> None:
        """Start the fork server (or its like) of the driver that `create` would take."""
        manifest = await self._templates.get(template)
        driver = await self._driver(None)
        await driver.warm(manifest)

    async def build_template(self, name: str) -> AsyncIterator[BuildProgress]:
        """Hand on its progress."""
        async for step in self._templates.build(name):
            yield step

    async def derive_template(self, derivation: TemplateDerivation) -> TemplateManifest:
        """Of what a build left below the directory for builds."""
        return await self._templates.derive(derivation)

    async def remove_template(self, name: str) -> None:
        """The layers stay while sandboxes, also stopped ones, stand on them."""
        in_use = any(record.template == name for record in self._records.values())
        await self._templates.remove(name, in_use=in_use)

    async def _driver(self, wanted: Isolation | None) -> RuntimeDriver:
        isolation = wanted or self._default_isolation
        if isolation is None:
            return await self._strongest()
        driver = self._drivers.get(isolation)
        if driver is None:
            have = ", ".join(self._drivers) or "none"
            raise error("ISOLATION_UNAVAILABLE", f"Isolation '{isolation}' is not available here; available: {have}.")
        report = await driver.check()
        if not report.available:
            raise error(
                "ISOLATION_UNAVAILABLE",
                f"Isolation '{isolation}' does not work here: {' '.join(report.problems)}",
                remedy=" ".join(report.remedies),
            )
        return driver

    async def _strongest(self) -> RuntimeDriver:
        """The weakest is not probed: there is nothing left to choose, and if it does not work the create says why."""
        *stronger, weakest = [self._drivers[one] for one in _STRONGEST_FIRST if one in self._drivers]
        for driver in stronger:
            if (await driver.check()).available:
                return driver
        return weakest

    def _refuse_above_ceilings(self, limits: Limits) -> None:
        for name, most in self._ceilings.items():
            if getattr(limits, name) > most:
                raise error(
                    "INVALID_REQUEST",
                    f"This host gives a sandbox at most {name} {most}, not {getattr(limits, name)}.",
                    remedy=f"Ask for less; the operator's maximum is COVE_MAX_{name.upper()}.",
                )

    def _give_socket(self, record: SandboxRecord) -> None:
        """Whoever talks to agents is no longer root: each socket becomes that one user's. Raises: OSError."""
        if self._server_uid is None or _stopped(record):
            return
        Path(record.socket_path).chmod(0o600)
        os.chown(record.socket_path, self._server_uid, -1, follow_symlinks=False)

    def _existing(self, sandbox_id: str) -> SandboxRecord:
        record = self._records.get(sandbox_id)
        if record is None:
            limit = self._changes.reason_of(sandbox_id)
            more = {"limit": limit} if limit else {}
            raise error("SANDBOX_NOT_FOUND", f"Sandbox {sandbox_id} does not run on this host.", **more)
        return record

    def _update(self, record: SandboxRecord, *, durable: bool = False) -> SandboxRecord:
        self._store.save(record, durable=durable)
        self._records[record.sandbox_id] = record
        self._deadline_changed.set()
        return record

    async def _set_state(self, sandbox_id: str, state: HostState) -> None:
        async with self._locks.hold(sandbox_id):
            record = self._existing(sandbox_id)
            if record.state is state:
                return
            if _stopped(record):
                raise error("INVALID_STATE", f"Sandbox {sandbox_id} is stopped: start it.")
            driver = self._drivers[record.isolation]
            await (driver.pause(record) if state is HostState.PAUSED else driver.resume(record))
            # Read again: its deadline may have changed meanwhile.
            self._update(self._existing(sandbox_id).model_copy(update={"state": state}))

    async def _finish_stop(self, driver: RuntimeDriver, record: SandboxRecord) -> SandboxRecord:
        stopped = await driver.stop(record)
        now = self._existing(record.sandbox_id)
        return self._update(stopped.model_copy(update={"deadline": now.deadline}), durable=True)

    async def _keep_started(self, driver: RuntimeDriver, started: SandboxRecord) -> SandboxRecord:
        """Like `_keep`, but back to where it was."""
        before = self._existing(started.sandbox_id)
        record = started.model_copy(update={"deadline": before.deadline, "env_vars": {}, "network": before.network})
        try:
            if record.network is not None:
                await self._networks.apply(record, record.network)
            self._give_socket(record)
            self._store.save(record)
        except CoveError:
            await driver.stop(started)
            raise
        except OSError as problem:
            await self._networks.forget(record.sandbox_id)
            await driver.stop(started)
            raise error(
                "SANDBOX_START_FAILED", f"The sandbox's record cannot be written: {problem.strerror}."
            ) from problem
        self._register(record)
        return record

    def _register(self, record: SandboxRecord) -> None:
        self._records[record.sandbox_id] = record
        self._deadline_changed.set()
        if not _stopped(record):
            self._watchers[record.sandbox_id] = asyncio.create_task(self._watch(record))

    def _unwatch(self, sandbox_id: str) -> None:
        watcher = self._watchers.pop(sandbox_id, None)
        if watcher and watcher is not asyncio.current_task():
            watcher.cancel()

    async def _watch(self, record: SandboxRecord) -> None:
        """When a sandbox dies by itself, clean up at once."""
        driver = self._drivers[record.isolation]
        await driver.wait(record)
        self._changes.note(record.sandbox_id, await driver.limit_at_end(record))
        with contextlib.suppress(CoveError, TimeoutError, OSError):
            await self.destroy(record.sandbox_id)

    async def _watch_deadlines(self) -> None:
        while True:
            self._deadline_changed.clear()
            now = time.time()
            due = [name for name, record in self._records.items() if _due(record, now)]
            await asyncio.gather(*(self._expire(name) for name in due), return_exceptions=True)
            deadlines = [record.deadline for record in self._records.values() if record.deadline is not None]
            pause = min([_LONGEST_SLEEP, *(deadline - time.time() for deadline in deadlines)])
            # One that could not be ended is overdue: it is tried again, but not in a tight loop.
            # Not wait_for: before Python 3.12 it can swallow a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(pause, _RETRY_SECONDS)):
                    await self._deadline_changed.wait()

    async def _expire(self, sandbox_id: str) -> None:
        await self.destroy(sandbox_id)
        self._changes.note(sandbox_id)


def _stopped(record: SandboxRecord) -> bool:
    return record.state is HostState.STOPPED


def _shown(record: SandboxRecord) -> SandboxRecord:
    return record.model_copy(update={"env_vars": {}}) if record.env_vars else record


def _due(record: SandboxRecord, now: float) -> bool:
    return record.deadline is not None and record.deadline <= now


def _marked(record: SandboxRecord, driver: RuntimeDriver) -> SandboxRecord:
    """With the names of the limits that are not enforced."""
    missing = {name for name in MUST_HOLD if name not in driver.capabilities.limits}
    return record.model_copy(update={"unenforced": tuple(sorted(missing))}) if missing else record


async def _refuse_unenforceable(driver: RuntimeDriver, spec: SandboxSpec) -> None:
    """A limit that someone insists on is enforced, or refused: never dropped silently."""
    missing = sorted(spec.required_limits - driver.capabilities.limits)
    if not missing:
        return
    report = await driver.check()
    raise error(
        "LIMIT_NOT_ENFORCEABLE",
        f"This host cannot enforce {', '.join(missing)}: {' '.join(report.lost) or 'its driver has no means to'}.",
        remedy="Run the server as root or with delegated control groups (`cove doctor` says how), or name what may be"
        f" missing: cove serve --allow-unenforced {','.join(missing)}",
        limits=missing,
    )
