"""The namespace driver: sandboxes forked from a warm process, behind namespaces, seccomp and cgroups."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cove.drivers.base import cannot_stop
from cove.drivers.namespace.birth import be_born, birth_of, write_id_maps
from cove.drivers.namespace.kits import KitShelf
from cove.drivers.namespace.parts import Held, Parts, Stopped, driver_state, groups_in, kit_in, slot_in
from cove.drivers.namespace.probe import probe_template, read_facts
from cove.drivers.namespace.warm import WarmProcess, start_warm_process
from cove.host.cgroups import Cgroups, prime_attach
from cove.host.disks import LoopDisks
from cove.host.identities import TEMPLATE_OWNER, SlotAllocator, new_slots
from cove.linux import landlock
from cove.linux.clone import open_process, pid_of_pidfd, signal_process, start_time_of
from cove.linux.privileges import last_capability
from cove.models.errors import CoveError, error
from cove.models.hosts import HostState, HostUsage, SandboxRecord, SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.isolation import ISOLATION_SUMMARY, Capabilities, DriverReport, Isolation
from cove.models.limits import Limits
from cove.models.templates import TemplateManifest

_END_SECONDS: Final = 5.0
_FREEZE_SECONDS: Final = 5.0
_FREEZE_PAUSE: Final = 0.002
_READY_KITS: Final = 8
_STOPS_AT_ONCE: Final = 3
"""Each may write a whole disk; the threads that make kits must not all wait for that."""

_BACKLOG: Final = 128
_LONGEST_SOCKET_PATH: Final = 107  # unix(7)

_LANDLOCK: Final = "Linux 6.2 or later, started with `landlock` in the `lsm=` boot parameter, has it"
_AS_ROOT: Final = "`sudo cove serve`"
_MORE_CGROUPS: Final = f"`systemd-run --user --scope -p Delegate=yes cove serve` (cgroup v2), or {_AS_ROOT}"


class NamespaceDriver:
    """Implements `RuntimeDriver`. See ARCHITECTURE.md, "How a namespace sandbox starts"."""

    def __init__(
        self,
        run_dir: Path,
        *,
        cgroups: Cgroups,
        disks: LoopDisks | None,
        slots: SlotAllocator | None = None,
        outlive_host: bool = True,
    ) -> None:
        """
        Args:
            run_dir: takes sockets, mount points and logs.
            disks: bounded disks; without, a tmpfs charged to memory is the disk.
            slots: ranges of user ids, shared with other drivers of this host.
            outlive_host: sandboxes go on when this process dies, for a daemon that adopts them; otherwise they
                die with it.
        """
        self._outlive_host = outlive_host
        self._run_dir = run_dir
        self._cgroups = cgroups
        self._has_disks = disks is not None
        self._kits = KitShelf(cgroups, disks, size=_READY_KITS if outlive_host else 0)
        self._privileged = os.geteuid() == 0
        self._slots = slots or new_slots()
        self._warm: dict[str, WarmProcess] = {}
        self._warming: dict[str, asyncio.Lock] = {}
        self._held: dict[str, Held] = {}
        self._stopped: dict[str, Stopped] = {}
        self._highest_capability = last_capability()
        self._report: DriverReport | None = None
        self._probing = asyncio.Lock()
        self._stopping = asyncio.Semaphore(_STOPS_AT_ONCE)
        for name in ("sockets", "warm", "logs"):
            (run_dir / name).mkdir(mode=0o755, parents=True, exist_ok=True)

    @property
    def isolation(self) -> Isolation:
        """Shared kernel, said as such."""
        return Isolation.NAMESPACE

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do on this host."""
        limits = self._cgroups.enforceable | {"disk_mb", "pids", "open_files"}
        return Capabilities(pause=self._cgroups.can_freeze, stop_start=self._has_disks, limits=frozenset(limits))

    async def check(self) -> DriverReport:
        """Start one empty sandbox in all the namespaces, with its maps, mounts and filter, and ask it."""
        async with self._probing:
            if self._report is None:
                self._report = await self._probed()
            return self._report

    async def _probed(self) -> DriverReport:
        started = time.monotonic()
        problem: CoveError | None = None
        try:
            await self._probe()
        except CoveError as failed:
            problem = failed
        except OSError as failed:
            problem = error("SANDBOX_START_FAILED", f"The boot probe failed: {failed}.")
        return DriverReport(
            isolation=self.isolation,
            available=problem is None,
            summary=ISOLATION_SUMMARY[self.isolation],
            seconds=round(time.monotonic() - started, 3),
            capabilities=self.capabilities,
            problems=(problem.message,) if problem else (),
            remedies=(problem.remedy,) if problem and problem.remedy else (),
            lost=self._lost(),
        )

    async def _probe(self) -> None:
        template = probe_template(self._run_dir / "probe", TEMPLATE_OWNER if self._privileged else None)
        spec = SandboxSpec(sandbox_id=new_sandbox_id(), template=template.name, limits=Limits(disk_mb=64))
        try:
            record = await self.create(spec, template)
            try:
                await read_facts(record.socket_path)
            finally:
                await self.destroy(record)
        finally:
            warm = self._warm.pop(template.digest, None)
            if warm:
                warm.close()

    def _lost(self) -> tuple[str, ...]:
        """What works only partly here, and what to type to have it."""
        lost: list[str] = []
        missing = {"memory_mb", "vcpu"} - self._cgroups.enforceable
        if missing:
            names = ", ".join(sorted(missing))
            lost.append(f"no limit on {names}: no writable cgroup controller; {_MORE_CGROUPS}")
        if not self._has_disks:
            lost.append(f"a sandbox's disk is memory (tmpfs), so it cannot be stopped: {_AS_ROOT}")
        if not self._privileged:
            lost.append(f"all sandboxes run as your own user on the host, without id ranges of their own: {_AS_ROOT}")
        if landlock.abi() < landlock.OLDEST_ABI:
            lost.append(f"no Landlock as a second wall around what a sandbox may write: {_LANDLOCK}")
        return tuple(lost)

    async def warm(self, template: TemplateManifest) -> None:
        """Start the template's fork server."""
        await self._warm_process(template)

    async def create(self, spec: SandboxSpec, template: TemplateManifest) -> SandboxRecord:
        """Fork, limit, and let the new process take its place."""
        if spec.sandbox_id in self._held or spec.sandbox_id in self._stopped:
            raise error("CONFLICT", f"Sandbox {spec.sandbox_id} exists already.")
        warm = await self._warm_process(template)
        return await self._bring_up(spec, warm, Parts(slot=self._slots.take()))

    async def stop(self, record: SandboxRecord) -> SandboxRecord:
        """End it as `destroy` does, but leave the disk and the user ids that own what is on it."""
        if not self._has_disks:
            raise cannot_stop(self.isolation)
        # First: from here on the end of the process gives its user ids to nobody else.
        self._stopped.setdefault(record.sandbox_id, Stopped(kit_in(record), slot_in(record)))
        await self._end_processes(record)
        async with self._stopping:
            await asyncio.to_thread(self._put_away, record)
        return record.model_copy(update={"state": HostState.STOPPED, "pid": 0, "pid_started": 0})

    async def start(
        self, record: SandboxRecord, template: TemplateManifest, env_vars: Mapping[str, str]
    ) -> SandboxRecord:
        """Fork anew, onto the disk that is there."""
        stopped = self._stopped.get(record.sandbox_id)
        if stopped is None:
            raise error("SANDBOX_NOT_FOUND", f"Sandbox {record.sandbox_id} is not stopped on this host.")
        if stopped.slot is None:
            raise error(
                "CONFLICT",
                f"The user ids of sandbox {record.sandbox_id} are another sandbox's.",
                remedy="Delete one of the two.",
            )
        spec = SandboxSpec(
            sandbox_id=record.sandbox_id,
            template=record.template,
            limits=record.limits,
            env_vars=dict(env_vars),
            deadline=record.deadline,
        )
        warm = await self._warm_process(template)
        warm.users += 1
        try:
            started = await self._bring_up(spec, warm, Parts(slot=stopped.slot, reopened=stopped.kit))
        finally:
            warm.users -= 1
            self._end_if_outdated(warm.template)
        self._stopped.pop(record.sandbox_id, None)
        return started.model_copy(update={"created": record.created})

    async def _bring_up(self, spec: SandboxSpec, warm: WarmProcess, parts: Parts) -> SandboxRecord:
        try:
            await self._assemble(spec, warm, parts)
            record = self._record(spec, warm.template, parts)
        except BaseException:
            self._let_go(parts)
            await asyncio.shield(self._discard(spec.sandbox_id, parts))
            raise
        self._let_go(parts)
        assert parts.spawning
        self._hold(record.sandbox_id, parts.spawning.result(), kit_in(record), parts.slot)
        return record

    async def destroy(self, record: SandboxRecord) -> None:
        """End all processes, then remove what they held."""
        await self._end_processes(record)
        await asyncio.to_thread(self._clean, record.sandbox_id, kit_in(record), groups_in(record))
        stopped = self._stopped.pop(record.sandbox_id, None)
        if stopped and stopped.slot is not None:
            self._slots.release(stopped.slot)

    async def _end_processes(self, record: SandboxRecord) -> None:
        """Kill the first process; the kernel ends all others of its pid namespace with it (pid_namespaces(7))."""
        held = self._held.get(record.sandbox_id) or self._find(record)
        if held:
            signal_process(held.pidfd, signal.SIGKILL)
            # A freezer of version 1 holds killed processes back; the record may not know of the last pause.
            with contextlib.suppress(CoveError, OSError):
                self._cgroups.freeze(groups_in(record), frozen=False)
            await self._await_end(record.sandbox_id, held)

    async def pause(self, record: SandboxRecord) -> None:
        """Freeze the cgroup, and wait until every process in it has stopped."""
        self._running(record)
        groups = groups_in(record)
        self._cgroups.freeze(groups, frozen=True)
        deadline = time.monotonic() + _FREEZE_SECONDS
        while not self._cgroups.is_frozen(groups):
            if time.monotonic() > deadline:
                self._cgroups.freeze(groups, frozen=False)
                raise error("INTERNAL_ERROR", f"Sandbox {record.sandbox_id} did not freeze in {_FREEZE_SECONDS:.0f} s.")
            await asyncio.sleep(_FREEZE_PAUSE)

    async def resume(self, record: SandboxRecord) -> None:
        """Thaw the cgroup."""
        self._running(record)
        self._cgroups.freeze(groups_in(record), frozen=False)

    async def adopt(self, record: SandboxRecord) -> bool:
        """Hold a sandbox of an earlier daemon by its pid and start time; of a stopped one, hold its user ids."""
        if record.state is HostState.STOPPED:
            return await self._adopt_stopped(record)
        if record.sandbox_id in self._held or self._find(record):
            self._slots.occupy(slot_in(record))
            return True
        await asyncio.to_thread(self._clean, record.sandbox_id, kit_in(record), groups_in(record))
        return False

    async def wait(self, record: SandboxRecord) -> None:
        """Return at the end of the first process; at once for a stopped sandbox."""
        held = self._held.get(record.sandbox_id)
        if held:
            await held.ended.wait()

    async def usage(self, record: SandboxRecord) -> HostUsage:
        """From the cgroups, and the size of the disk image."""
        if record.sandbox_id not in self._stopped:
            self._running(record)
        return self._kits.usage(kit_in(record), groups_in(record))

    async def sweep(self, known: frozenset[str]) -> None:
        """Remove sockets, disks and cgroups (with whatever still runs in them) of unknown sandboxes."""
        sockets = {path.stem for path in (self._run_dir / "sockets").glob("*.sock")}
        for name in sockets - known - self._held.keys():
            self._socket_file(name).unlink(missing_ok=True)
        used = {part.kit for part in (*self._held.values(), *self._stopped.values())}
        for kit in self._kits.unused_names(used):
            self._cgroups.kill(self._cgroups.groups_of(kit))
            await asyncio.to_thread(self._kits.remove, kit)

    async def close(self) -> None:
        """End the fork servers."""
        for warm in self._warm.values():
            warm.close()
        self._warm.clear()
        await self._kits.close()
        for sandbox_id in list(self._held):
            self._release(sandbox_id)

    def _running(self, record: SandboxRecord) -> None:
        held = self._held.get(record.sandbox_id)
        if held is None or held.ended.is_set():
            raise error("SANDBOX_NOT_FOUND", f"Sandbox {record.sandbox_id} does not run.")

    async def _warm_process(self, template: TemplateManifest) -> WarmProcess:
        lock = self._warming.setdefault(template.digest, asyncio.Lock())
        async with lock:
            warm = self._warm.get(template.digest)
            if warm is None or not warm.usable:
                if warm:
                    warm.close()
                warm = self._warm[template.digest] = await start_warm_process(
                    template,
                    directory=self._run_dir / "warm" / template.digest[:16],
                    log=self._run_dir / "logs" / f"warm-{template.name}.log",
                    privileged=self._privileged,
                )
                self._end_outdated(template)
            return warm

    def _end_outdated(self, template: TemplateManifest) -> None:
        """A template that was built anew has a new digest: only stopped sandboxes ask for the old version's process."""
        for digest, warm in list(self._warm.items()):
            older = warm.template.built_at < template.built_at
            if warm.template.name == template.name and digest != template.digest and older and not warm.users:
                self._warm.pop(digest).close()

    def _end_if_outdated(self, template: TemplateManifest) -> None:
        for warm in list(self._warm.values()):
            if warm.template.name == template.name and warm.template.built_at > template.built_at:
                self._end_outdated(warm.template)

    async def _assemble(self, spec: SandboxSpec, warm: WarmProcess, parts: Parts) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs, self._listen(spec.sandbox_id) as listener:
            ours.setblocking(False)
            parts.spawning = asyncio.ensure_future(warm.spawn(spec.sandbox_id, listener, theirs))
            # While the fork server forks: the rest of what the sandbox needs.
            kits = self._kits
            parts.kit = kit = await (
                kits.reopen(parts.reopened, spec.limits) if parts.reopened else kits.take(spec.limits)
            )
            primed = asyncio.ensure_future(asyncio.to_thread(prime_attach))
            pidfd = await asyncio.shield(parts.spawning)
            theirs.close()
            parts.pid = pid_of_pidfd(pidfd)
            if self._privileged:
                write_id_maps(parts.pid, parts.slot)
            birth = birth_of(
                spec,
                warm.template,
                mapped_root=self._privileged,
                has_disk=kit.disk is not None,
                highest_capability=self._highest_capability,
                ends_with_server=not self._outlive_host,
            )

            async def attach() -> None:
                await primed
                self._cgroups.attach(kit.groups, parts.pid)

            await be_born(ours, birth, disk=kit.disk, attach=attach)

    def _listen(self, sandbox_id: str) -> socket.socket:
        """The agent's listening socket; the sandbox gets the socket, never a directory of the host's."""
        path = str(self._socket_file(sandbox_id))
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise error(
                "SANDBOX_START_FAILED",
                f"The path {path} is too long for a unix socket.",
                remedy="Choose a shorter data directory (--data-dir).",
            )
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(path)
            listener.listen(_BACKLOG)
        except OSError as problem:
            listener.close()
            raise error("SANDBOX_START_FAILED", f"Cannot listen at {path}: {problem.strerror}.") from problem
        return listener

    def _socket_file(self, sandbox_id: str) -> Path:
        return self._run_dir / "sockets" / f"{sandbox_id}.sock"

    def _record(self, spec: SandboxSpec, template: TemplateManifest, parts: Parts) -> SandboxRecord:
        kit = parts.kit
        assert kit
        try:
            started = start_time_of(parts.pid)
        except OSError as problem:
            raise error("SANDBOX_START_FAILED", "A new sandbox ended at its start.") from problem
        return SandboxRecord(
            sandbox_id=spec.sandbox_id,
            template=template.name,
            template_digest=template.digest,
            isolation=Isolation.NAMESPACE,
            limits=spec.limits,
            state=HostState.RUNNING,
            socket_path=str(self._socket_file(spec.sandbox_id)),
            pid=parts.pid,
            pid_started=started,
            created=time.time(),
            deadline=spec.deadline,
            pooled=spec.pooled,
            driver_state=driver_state(parts.slot, kit),
        )

    def _let_go(self, parts: Parts) -> None:
        if parts.kit:
            self._kits.let_go(parts.kit)

    async def _discard(self, sandbox_id: str, parts: Parts) -> None:
        """Undo a start that failed."""
        if parts.spawning:
            with contextlib.suppress(CoveError, asyncio.CancelledError):
                self._hold(sandbox_id, await parts.spawning, parts.kit.name if parts.kit else "", parts.slot)
        held = self._held.get(sandbox_id)
        if held:
            signal_process(held.pidfd, signal.SIGKILL)
            await self._await_end(sandbox_id, held)
        elif not parts.reopened:
            self._slots.release(parts.slot)
        if parts.kit and parts.reopened:
            with contextlib.suppress(CoveError):  # the next start waits for the disk, and says what is wrong
                await asyncio.to_thread(self._kits.put_away, parts.kit.name, parts.kit.groups)
        elif parts.kit:
            await asyncio.to_thread(self._clean, sandbox_id, parts.kit.name, parts.kit.groups)
        self._socket_file(sandbox_id).unlink(missing_ok=True)

    async def _adopt_stopped(self, record: SandboxRecord) -> bool:
        """Its stop, or its start, may have been cut off: it may have processes."""
        if not self._kits.has_disk(kit_in(record)):
            await self.destroy(record)
            return False
        free = record.sandbox_id in self._stopped or self._slots.occupy(slot_in(record))
        self._stopped.setdefault(record.sandbox_id, Stopped(kit_in(record), slot_in(record) if free else None))
        with contextlib.suppress(CoveError):  # it stays stopped; its start tries again and says what is wrong
            await self._end_processes(record)
        groups = groups_in(record)
        self._cgroups.kill(groups)
        self._socket_file(record.sandbox_id).unlink(missing_ok=True)
        await asyncio.to_thread(self._cgroups.remove, groups)
        return True

    def _put_away(self, record: SandboxRecord) -> None:
        self._socket_file(record.sandbox_id).unlink(missing_ok=True)
        self._kits.put_away(kit_in(record), groups_in(record))

    def _clean(self, sandbox_id: str, kit: str, groups: tuple[str, ...]) -> None:
        self._socket_file(sandbox_id).unlink(missing_ok=True)
        self._kits.remove(kit, groups)

    def _find(self, record: SandboxRecord) -> Held | None:
        pidfd = open_process(record.pid, record.pid_started) if record.pid else None
        return None if pidfd is None else self._hold(record.sandbox_id, pidfd, kit_in(record), slot_in(record))

    def _hold(self, sandbox_id: str, pidfd: int, kit: str, slot: int) -> Held:
        """A pidfd is readable when its process has ended (pidfd_open(2))."""
        held = self._held[sandbox_id] = Held(pidfd, kit, slot)
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(pidfd)
            held.ended.set()

        loop.add_reader(pidfd, end)
        return held

    async def _await_end(self, sandbox_id: str, held: Held) -> None:
        """Wait for a process that was killed, and let go of it; several may wait for the same one."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                await held.ended.wait()
        except TimeoutError as problem:
            raise error(
                "INTERNAL_ERROR",
                f"Sandbox {sandbox_id} was killed, but had not ended after {_END_SECONDS:.0f} s.",
                remedy="A process of it may be stuck in the kernel (state D in `ps`); try again later.",
            ) from problem
        if self._held.get(sandbox_id) is held:
            self._release(sandbox_id)
            if sandbox_id not in self._stopped:
                self._slots.release(held.slot)  # once: soon it may be another sandbox's

    def _release(self, sandbox_id: str) -> None:
        held = self._held.pop(sandbox_id)
        asyncio.get_running_loop().remove_reader(held.pidfd)
        os.close(held.pidfd)
