"""The namespace driver: sandboxes forked from a warm process, behind namespaces, seccomp and cgroups."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cove.drivers.agent_sockets import AgentSockets
from cove.drivers.base import cannot_stop
from cove.drivers.first_processes import FirstProcess, FirstProcesses
from cove.drivers.kits import KitShelf
from cove.drivers.namespace.birth import be_born, birth_of, write_id_maps
from cove.drivers.namespace.launcher import USE_SUBORDINATE_IDS
from cove.drivers.namespace.own_layers import give_to_root, kernel_can_map_layers, own_layers
from cove.drivers.namespace.parts import Parts
from cove.drivers.namespace.probe import probe_template, read_facts
from cove.drivers.namespace.warm import WarmProcess, close_all, start_warm_process
from cove.drivers.probes import BootProbe
from cove.drivers.records import groups_in, kit_in, record_of, restart_spec, slot_in, stopped_record
from cove.drivers.stopped import StoppedSandboxes
from cove.host.capturing import capture
from cove.host.cgroups import Cgroups, prime_attach
from cove.host.disks import LoopDisks
from cove.host.identities import TEMPLATE_OWNER, SlotAllocator, id_map, new_slots
from cove.host.subordinate_ids import find_subordinate_ids
from cove.linux import landlock
from cove.linux.clone import pid_of_pidfd
from cove.linux.privileges import last_capability
from cove.models.errors import CoveError, error
from cove.models.hosts import HostState, HostUsage, SandboxRecord, SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.isolation import Capabilities, DriverReport, Isolation
from cove.models.limits import ENFORCED_BY_AGENT, ENFORCED_BY_EGRESS, Limits
from cove.models.templates import TemplateManifest

_READY_KITS: Final = 8
_STOPS_AT_ONCE: Final = 3
"""Each may write a whole disk; the threads that make kits must not all wait for that."""

_LANDLOCK: Final = "Linux 6.2 or later, started with `landlock` in the `lsm=` boot parameter, has it"
_AS_ROOT: Final = "`sudo cove serve`"
_MORE_CGROUPS: Final = f"`systemd-run --user --scope -p Delegate=yes cove serve` (cgroup v2), or {_AS_ROOT}"

_CPU_TOO: Final = (
    "`sudo systemctl edit user@.service` with `[Service]` and `Delegate=cpu memory pids` (systemd delegates memory and"
    f" pids only, unless told), then `systemd-run --user --scope -p Delegate=yes cove serve`, or {_AS_ROOT}"
)


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
        verdicts: Path | None = None,
    ) -> None:
        """
        Args:
            run_dir: takes sockets, mount points and logs.
            disks: bounded disks; without, a tmpfs charged to memory is the disk.
            slots: ranges of user ids, shared with other drivers of this host.
            outlive_host: sandboxes go on when this process dies, for a daemon that adopts them; otherwise they
                die with it.
            verdicts: remembers what boot probes found (`BootProbe`).
        """
        self._outlive_host = outlive_host
        self._run_dir = run_dir
        self._cgroups = cgroups
        self._has_disks = disks is not None
        self._kits = KitShelf(cgroups, disks, size=_READY_KITS if outlive_host else 0)
        self._privileged = os.geteuid() == 0
        self._subordinate, self._no_subordinate = (None, "") if self._privileged else find_subordinate_ids()
        self._slots = slots or new_slots()
        self._warm: dict[str, WarmProcess] = {}
        self._warming: dict[str, asyncio.Lock] = {}
        self._sockets = AgentSockets(run_dir / "sockets")
        self._processes = FirstProcesses(cgroups)
        self._stopped = StoppedSandboxes(self._slots)
        self._highest_capability = last_capability()
        self._probe = BootProbe(Isolation.NAMESPACE, facts=self._facts, attempt=self._try_out, verdicts=verdicts)
        self._stopping = asyncio.Semaphore(_STOPS_AT_ONCE)
        self._sockets.make_directory()
        for name in ("warm", "logs"):
            (run_dir / name).mkdir(mode=0o755, parents=True, exist_ok=True)

    @property
    def isolation(self) -> Isolation:
        """Shared kernel, said as such."""
        return Isolation.NAMESPACE

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do on this host."""
        limits = self._cgroups.enforceable | ENFORCED_BY_AGENT | ENFORCED_BY_EGRESS
        limits |= {"disk_mb", "pids", "open_files"}
        if self._has_disks:
            limits |= {"inodes"}
        return Capabilities(
            pause=self._cgroups.can_freeze, stop_start=self._has_disks, internet=True, limits=frozenset(limits)
        )

    async def check(self, *, fresh: bool = False) -> DriverReport:
        """Start one empty sandbox in all the namespaces, with its maps, mounts and filter, and ask it."""
        outcome = await self._probe.outcome(fresh=fresh)
        return self._probe.report(outcome, capabilities=self.capabilities, lost=self._lost())

    def doubt(self) -> None:
        """The next process tries for itself."""
        self._probe.doubt()

    async def _facts(self) -> tuple[str, ...]:
        mine = (str(self._has_disks), str(landlock.abi()), str(self._subordinate))
        return (self._cgroups.mode, *sorted(self.capabilities.limits), *mine)

    async def _try_out(self) -> Mapping[str, str]:
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
        return {}

    def _lost(self) -> tuple[str, ...]:
        """What works only partly here, and what to type to have it."""
        lost: list[str] = []
        missing = {"memory_mb", "vcpu"} - self._cgroups.enforceable
        if missing:
            names = ", ".join(sorted(missing))
            remedy = _CPU_TOO if missing == {"vcpu"} and not self._privileged else _MORE_CGROUPS
            lost.append(f"no limit on {names}: no writable cgroup controller; {remedy}")
        if not self._has_disks:
            lost.append(f"a sandbox's disk is memory (tmpfs), so it cannot be stopped: {_AS_ROOT}")
        if self._privileged and not kernel_can_map_layers():
            lost.append("templates whose programs run as root (`run_as_root`) are refused: they take Linux 5.19")
        if not self._privileged:
            lost.append(f"a root inside (`run_as_root`) is your own user on the host: {_AS_ROOT}")
        if self._no_subordinate:
            why = f"{self._no_subordinate}; or {_AS_ROOT}"
            lost.append(f"all sandboxes run as your own user on the host, without ids of their own: {why}")
        if landlock.abi() < landlock.OLDEST_ABI:
            lost.append(f"no Landlock as a second wall around what a sandbox may write: {_LANDLOCK}")
        return tuple(lost)

    async def warm(self, template: TemplateManifest) -> None:
        """Start the template's fork server."""
        await self._warm_process(template)

    async def create(self, spec: SandboxSpec, template: TemplateManifest) -> SandboxRecord:
        """Fork, limit, and let the new process take its place."""
        if spec.sandbox_id in self._processes or spec.sandbox_id in self._stopped:
            raise error("CONFLICT", f"Sandbox {spec.sandbox_id} exists already.")
        warm = await self._warm_process(template)
        return await self._bring_up(spec, warm, Parts(slot=self._slots.take()))

    async def stop(self, record: SandboxRecord) -> SandboxRecord:
        """End it as `destroy` does, but leave the disk and the user ids that own what is on it."""
        if not self._has_disks:
            raise cannot_stop(self.isolation)
        # First: from here on the end of the process gives its user ids to nobody else.
        self._stopped.add(record)
        await self._end_processes(record)
        async with self._stopping:
            await asyncio.to_thread(self._put_away, record)
        return stopped_record(record)

    async def start(
        self, record: SandboxRecord, template: TemplateManifest, env_vars: Mapping[str, str]
    ) -> SandboxRecord:
        """Fork anew, onto the disk that is there."""
        stopped = self._stopped.startable(record.sandbox_id)
        warm = await self._warm_process(template)
        warm.users += 1
        try:
            parts = Parts(slot=stopped.slot, reopened=stopped.kit)
            started = await self._bring_up(restart_spec(record, env_vars), warm, parts)
        finally:
            warm.users -= 1
            self._end_if_outdated(warm.template)
        self._stopped.started(record.sandbox_id)
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
        self._processes.hold(record.sandbox_id, FirstProcess(parts.spawning.result(), kit_in(record), parts.slot))
        return record

    async def destroy(self, record: SandboxRecord) -> None:
        """End all processes, then remove what they held."""
        await self._end_processes(record)
        await asyncio.to_thread(self._clean, record)
        self._stopped.forget(record.sandbox_id)

    async def _end_processes(self, record: SandboxRecord) -> None:
        """Kill the first process; the kernel ends all others of its pid namespace with it (pid_namespaces(7))."""
        first = self._processes.find(record)
        if first:
            await self._end(record.sandbox_id, first, groups_in(record))

    async def _end(self, sandbox_id: str, first: FirstProcess, groups: tuple[str, ...]) -> None:
        if await self._processes.end(sandbox_id, first, groups) and sandbox_id not in self._stopped:
            self._slots.release(first.slot)  # once: soon it may be another sandbox's

    async def pause(self, record: SandboxRecord) -> None:
        """Freeze the cgroup, and wait until every process in it has stopped."""
        await self._processes.pause(record)

    async def resume(self, record: SandboxRecord) -> None:
        """Thaw the cgroup."""
        await self._processes.resume(record)

    async def adopt(self, record: SandboxRecord) -> bool:
        """Hold a sandbox of an earlier daemon by its pid and start time; of a stopped one, hold its user ids."""
        if record.state is HostState.STOPPED:
            return await self._adopt_stopped(record)
        if self._processes.find(record):
            self._slots.occupy(slot_in(record))
            return True
        await asyncio.to_thread(self._clean, record)
        return False

    async def wait(self, record: SandboxRecord) -> None:
        """Return at the end of the first process; at once for a stopped sandbox."""
        await self._processes.wait(record)

    async def limit_at_end(self, record: SandboxRecord) -> str:
        """Memory, when the host's kernel has ended the first process for that."""
        return await self._processes.limit_at_end(record, only_if_killed=True)

    async def capture(self, record: SandboxRecord) -> Sequence[socket.socket]:
        """In the network namespace of the first process."""
        first = self._processes.find(record)
        if first is None:
            raise error("SANDBOX_NOT_FOUND", f"Sandbox {record.sandbox_id} does not run.")
        return await capture(first.pidfd)

    async def usage(self, record: SandboxRecord) -> HostUsage:
        """From the cgroups, and from the filesystem of the first process' root."""
        root = None
        if record.sandbox_id not in self._stopped:
            self._processes.expect(record)
            root = f"/proc/{record.pid}/root"
        return await asyncio.to_thread(self._kits.usage, kit_in(record), groups_in(record), root=root)

    async def sweep(self, known: frozenset[str]) -> None:
        """Remove sockets, disks and cgroups (with whatever still runs in them) of unknown sandboxes."""
        self._sockets.sweep(known, self._processes)
        used = self._processes.kits() | self._stopped.kits()
        for kit in self._kits.unused_names(used):
            self._cgroups.kill(self._cgroups.groups_of(kit))
            await asyncio.to_thread(self._kits.remove, kit)

    async def close(self) -> None:
        """End the fork servers."""
        for warm in self._warm.values():
            warm.close()
        self._warm.clear()
        await self._kits.close()
        self._processes.release_all()

    async def _warm_process(self, template: TemplateManifest) -> WarmProcess:
        lock = self._warming.setdefault(template.digest, asyncio.Lock())
        async with lock:
            warm = self._warm.get(template.digest)
            if warm is None or not warm.usable:
                if warm:
                    warm.close()
                warm = self._warm[template.digest] = await self._started(template)
                self._end_outdated(template)
            return warm

    async def _started(self, template: TemplateManifest) -> WarmProcess:
        """With subordinate ids where they work: newuidmap(1) may lack its privilege."""
        try:
            return await start_warm_process(
                template,
                directory=self._run_dir / "warm" / template.digest[:16],
                log=self._run_dir / "logs" / f"warm-{template.name}.log",
                privileged=self._privileged,
                maps=self._subordinate.outer_maps() if self._subordinate else (),
            )
        except CoveError as failed:
            if failed.details.get("step") != USE_SUBORDINATE_IDS:
                raise
        self._subordinate = None
        self._no_subordinate = "newuidmap(1) cannot write maps here (no_new_privs, or it is not set-user-id)"
        return await self._started(template)

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
        if warm.template.run_as_root and self._privileged:
            parts.layers = await own_layers(warm, parts.slot)
        maps = self._subordinate.maps_of(parts.slot) if self._subordinate else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs, self._sockets.listen(spec.sandbox_id) as listener:
            ours.setblocking(False)
            parts.spawning = asyncio.ensure_future(warm.spawn(spec.sandbox_id, listener, theirs, maps))
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
                write_id_maps(parts.pid, id_map(parts.slot, own_root=warm.template.run_as_root))
            if parts.layers and kit.disk is not None:
                give_to_root(kit.disk, parts.slot)

            async def attach() -> None:
                await primed
                self._cgroups.attach(kit.groups, parts.pid)

            with self._cgroups.opened_counters(kit.groups) as counters:
                birth = birth_of(
                    spec,
                    warm.template,
                    mapped=self._privileged or maps is not None,
                    has_disk=kit.disk is not None,
                    has_layers=bool(parts.layers),
                    highest_capability=self._highest_capability,
                    ends_with_server=not self._outlive_host,
                    counters=tuple(counters),
                )
                mounts = (*counters.values(), *(() if kit.disk is None else (kit.disk,)), *parts.layers)
                await be_born(ours, birth, mounts=mounts, attach=attach)

    def _record(self, spec: SandboxSpec, template: TemplateManifest, parts: Parts) -> SandboxRecord:
        assert parts.kit
        return record_of(
            spec,
            template,
            self.isolation,
            socket_file=self._sockets.path(spec.sandbox_id),
            pid=parts.pid,
            slot=parts.slot,
            kit=parts.kit,
        )

    def _let_go(self, parts: Parts) -> None:
        if parts.kit:
            self._kits.let_go(parts.kit)
        layers, parts.layers = parts.layers, ()
        close_all(layers)

    async def _discard(self, sandbox_id: str, parts: Parts) -> None:
        """Undo a start that failed."""
        kit, groups = (parts.kit.name, parts.kit.groups) if parts.kit else ("", ())
        if parts.spawning:
            with contextlib.suppress(CoveError, asyncio.CancelledError):
                self._processes.hold(sandbox_id, FirstProcess(await parts.spawning, kit, parts.slot))
        first = self._processes.get(sandbox_id)
        if first:
            await self._end(sandbox_id, first, groups)
        elif not parts.reopened:
            self._slots.release(parts.slot)
        if parts.kit and parts.reopened:
            with contextlib.suppress(CoveError):  # the next start waits for the disk, and says what is wrong
                await asyncio.to_thread(self._kits.put_away, kit, groups)
        elif parts.kit:
            await asyncio.to_thread(self._kits.remove, kit, groups)
        self._sockets.remove(sandbox_id)

    async def _adopt_stopped(self, record: SandboxRecord) -> bool:
        """Its stop, or its start, may have been cut off: it may have processes."""
        if not self._kits.has_disk(kit_in(record)):
            await self.destroy(record)
            return False
        self._stopped.adopt(record)
        with contextlib.suppress(CoveError):  # it stays stopped; its start tries again and says what is wrong
            await self._end_processes(record)
        groups = groups_in(record)
        self._cgroups.kill(groups)
        self._sockets.remove(record.sandbox_id)
        await asyncio.to_thread(self._cgroups.remove, groups)
        return True

    def _put_away(self, record: SandboxRecord) -> None:
        self._sockets.remove(record.sandbox_id)
        self._kits.put_away(kit_in(record), groups_in(record))

    def _clean(self, record: SandboxRecord) -> None:
        self._sockets.remove(record.sandbox_id)
        self._kits.remove(kit_in(record), groups_in(record))
