"""The gVisor driver: sandboxes restored from a checkpoint, each behind a kernel of its own in user space.

Nothing that answers a request goes through `runsc`: it is called to start a sandbox, and for nothing else. A sandbox's
life is that of its kernel's process.
"""

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cove.drivers.agent_sockets import AgentSockets
from cove.drivers.base import cannot_stop
from cove.drivers.first_processes import FirstProcess, FirstProcesses
from cove.drivers.guests import agent_boot, host_name
from cove.drivers.gvisor.boot import RestoreFailedError
from cove.drivers.gvisor.checkpoints import Checkpoints
from cove.drivers.gvisor.guest.protocol import Birth
from cove.drivers.gvisor.members import Member, MemberShelves
from cove.drivers.gvisor.probe import probe
from cove.drivers.gvisor.runsc import Runsc, find_runsc, unavailable
from cove.drivers.gvisor.workshop import Workshop
from cove.drivers.kits import KitShelf
from cove.drivers.probes import BootProbe
from cove.drivers.records import groups_in, kit_in, record_of, restart_spec, slot_in, stopped_record
from cove.drivers.stopped import Stopped, StoppedSandboxes
from cove.host.capturing import capture
from cove.host.cgroups import Cgroups
from cove.host.disks import LoopDisks
from cove.host.identities import SlotAllocator, new_slots
from cove.linux.clone import pid_of_pidfd
from cove.models.errors import CoveError, error
from cove.models.hosts import HostState, HostUsage, SandboxRecord, SandboxSpec
from cove.models.isolation import Capabilities, DriverReport, Isolation
from cove.models.limits import ENFORCED_BY_AGENT, ENFORCED_BY_EGRESS, Limits
from cove.models.templates import TemplateManifest

_READY_MEMBERS: Final = 2
_STOPS_AT_ONCE: Final = 3


class GvisorDriver:
    """Implements `RuntimeDriver`. See ARCHITECTURE.md, "How a gVisor sandbox starts"."""

    def __init__(
        self,
        run_dir: Path,
        *,
        checkpoints: Path,
        cgroups: Cgroups,
        disks: LoopDisks | None,
        slots: SlotAllocator | None = None,
        outlive_host: bool = True,
        verdicts: Path | None = None,
        ready_members: int = _READY_MEMBERS,
    ) -> None:
        """
        Args:
            run_dir: takes sockets and a directory for each sandbox; no other driver's.
            checkpoints: takes memory images of templates; several hosts may share it.
            disks: bounded disks; without, a tmpfs charged to memory is the disk.
            slots: ranges of user ids, shared with other drivers of this host.
            outlive_host: sandboxes go on when this process dies; otherwise they die with it.
            verdicts: remembers what boot probes found (`BootProbe`).
            ready_members: how many sandboxes wait for their birth, for each template that is in use; none in a host
                that they would outlive.
        """
        self._run_dir = run_dir
        self._cgroups = cgroups
        self._has_disks = disks is not None
        self._outlive_host = outlive_host
        self._slots = slots or new_slots()
        self._kits = KitShelf(cgroups, disks, size=0)  # members have theirs already
        self._workshop = Workshop(
            run_dir / "boxes", cgroups=cgroups, kits=self._kits, slots=self._slots, outlive_host=outlive_host
        )
        self._checkpoints = Checkpoints(checkpoints)
        self._members = MemberShelves(self._restored, self._workshop.discard, size=ready_members if outlive_host else 0)
        self._sockets = AgentSockets(run_dir / "sockets")
        self._kernels = FirstProcesses(cgroups)
        self._stopped = StoppedSandboxes(self._slots)
        self._stopping = asyncio.Semaphore(_STOPS_AT_ONCE)
        self._probe = BootProbe(Isolation.GVISOR, facts=self._facts, attempt=self._try_out, verdicts=verdicts)
        self._runsc: Runsc | None = None

    @property
    def isolation(self) -> Isolation:
        """A kernel of its own in user space."""
        return Isolation.GVISOR

    @property
    def ready_members(self) -> int:
        """How many sandboxes wait for their birth."""
        return len(self._members.names())

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
        """Boot a kernel with a tiny program, and hear from it."""
        outcome = await self._probe.outcome(fresh=fresh)
        if isinstance(outcome, CoveError):
            return self._probe.report(outcome, capabilities=self.capabilities, lost=())
        return self._probe.report(outcome, capabilities=self.capabilities, lost=self._lost())

    def doubt(self) -> None:
        """The next process tries for itself."""
        self._probe.doubt()

    async def _facts(self) -> tuple[str, ...]:
        runsc = await self._usable_runsc()
        about = await asyncio.to_thread(os.stat, runsc.path)
        version = (runsc.path, str(runsc.version), str(about.st_mtime_ns), str(about.st_size), *runsc.flags)
        return (*version, self._cgroups.mode, *sorted(self.capabilities.limits), str(self._has_disks))

    async def _try_out(self) -> Mapping[str, str]:
        await probe(await self._usable_runsc(), self._workshop, self._run_dir / "probe")
        return {}

    def _lost(self) -> tuple[str, ...]:
        """What works only partly here."""
        lost: list[str] = []
        missing = {"memory_mb", "vcpu"} - self._cgroups.enforceable
        if missing:
            names = ", ".join(sorted(missing))
            lost.append(f"no limit on {names}: no writable cgroup controller (delegate cgroups)")
        lost.append("a sandbox that is out of memory ends as a whole: its kernel is what the host ends then")
        return tuple(lost)

    async def _usable_runsc(self) -> Runsc:
        if self._runsc is None:
            runsc = await asyncio.to_thread(find_runsc)
            if os.geteuid() != 0:
                why = "for an ordinary user runsc maps one id only, so that a sandbox's own user could create no file"
                raise unavailable(f"gVisor sandboxes need Cove to run as root: {why}.", "Run Cove as root.")
            self._runsc = runsc
            self._sockets.make_directory()
            (self._run_dir / "boxes").mkdir(mode=0o755, exist_ok=True)
        return self._runsc

    async def warm(self, template: TemplateManifest) -> None:
        """Make the template's memory image, and have members restored from it."""
        await self._checkpoints.image(await self._usable_runsc(), template, self._workshop.fresh)
        self._members.want(template, template.limits or Limits())

    async def create(self, spec: SandboxSpec, template: TemplateManifest) -> SandboxRecord:
        """Take a member, or restore one; then it is born."""
        if spec.sandbox_id in self._kernels or spec.sandbox_id in self._stopped:
            raise error("CONFLICT", f"Sandbox {spec.sandbox_id} exists already.")
        self._sockets.path(spec.sandbox_id)  # one that is too long is refused before anything is made
        member = None if spec.owned_directories else self._members.take(template, spec.limits)
        if member:
            with contextlib.suppress(CoveError):  # it may have died while it waited: then one is made
                return await self._born(spec, template, member)
        member = await self._restored(template, spec.limits, owned=spec.owned_directories)
        return await self._born(spec, template, member)

    async def stop(self, record: SandboxRecord) -> SandboxRecord:
        """End it as `destroy` does, but leave the disk and the user ids that own what is on it."""
        if not self._has_disks:
            raise cannot_stop(self.isolation)
        # First: from here on the end of the process gives its user ids to nobody else.
        self._stopped.add(record)
        await self._end_processes(record)
        self._sockets.remove(record.sandbox_id)
        async with self._stopping:
            await asyncio.to_thread(self._workshop.clean, kit_in(record), groups_in(record), keep_disk=True)
        return stopped_record(record)

    async def start(
        self, record: SandboxRecord, template: TemplateManifest, env_vars: Mapping[str, str]
    ) -> SandboxRecord:
        """Restore anew, onto the disk that is there."""
        stopped = self._stopped.startable(record.sandbox_id)
        spec = restart_spec(record, env_vars)
        member = await self._restored(template, spec.limits, stopped=stopped)
        started = await self._born(spec, template, member)
        self._stopped.started(record.sandbox_id)
        return started.model_copy(update={"created": record.created})

    async def destroy(self, record: SandboxRecord) -> None:
        """End all processes, then remove what they held."""
        await self._end_processes(record)
        self._sockets.remove(record.sandbox_id)
        await asyncio.to_thread(self._workshop.clean, kit_in(record), groups_in(record))
        self._stopped.forget(record.sandbox_id)

    async def pause(self, record: SandboxRecord) -> None:
        """Freeze the cgroup, kernel and all, and wait until every process in it has stopped."""
        await self._kernels.pause(record)

    async def resume(self, record: SandboxRecord) -> None:
        """Thaw the cgroup."""
        await self._kernels.resume(record)

    async def adopt(self, record: SandboxRecord) -> bool:
        """Hold a sandbox of an earlier daemon by its kernel's pid and start time; of a stopped one, its user ids."""
        if record.state is HostState.STOPPED:
            return await self._adopt_stopped(record)
        if self._kernels.find(record):
            self._slots.occupy(slot_in(record))
            return True
        self._sockets.remove(record.sandbox_id)
        await asyncio.to_thread(self._workshop.clean, kit_in(record), groups_in(record))
        return False

    async def wait(self, record: SandboxRecord) -> None:
        """Return at the end of the kernel; at once for a stopped sandbox."""
        await self._kernels.wait(record)

    async def limit_at_end(self, record: SandboxRecord) -> str:
        """Memory, when the host's kernel has ended anything of the sandbox for that: none of it is left then."""
        return await self._kernels.limit_at_end(record, only_if_killed=False)

    async def capture(self, record: SandboxRecord) -> Sequence[socket.socket]:
        """At the host's end of its wire, which is in the network namespace of its kernel's process."""
        kernel = self._kernels.find(record)
        if kernel is None:
            raise error("SANDBOX_NOT_FOUND", f"Sandbox {record.sandbox_id} does not run.")
        return await capture(kernel.pidfd)

    async def usage(self, record: SandboxRecord) -> HostUsage:
        """From the cgroups, and the size of the disk image; the sandbox's own kernel is included."""
        if record.sandbox_id not in self._stopped:
            self._kernels.expect(record)
        return self._kits.usage(kit_in(record), groups_in(record))

    async def sweep(self, known: frozenset[str]) -> None:
        """Remove sockets, disks, boxes and cgroups (with whatever still runs in them) of unknown sandboxes."""
        self._sockets.sweep(known, self._kernels)
        running = self._kernels.kits() | self._members.names() | self._workshop.making
        used = running | self._stopped.kits()
        for kit in (self._kits.unused_names(used) | self._workshop.remains()) - used:
            await asyncio.to_thread(self._workshop.clean, kit, self._cgroups.groups_of(kit))

    async def close(self) -> None:
        """End the members; sandboxes go on."""
        await self._members.close()
        await self._kits.close()
        self._kernels.release_all()

    async def _restored(
        self,
        template: TemplateManifest,
        limits: Limits,
        *,
        owned: tuple[str, ...] = (),
        stopped: Stopped | None = None,
    ) -> Member:
        """A new member. An image that cannot be restored any more, after a crash of the machine for example, is made
        anew, once; not for a disk that a sandbox has written to, which may be the reason."""
        runsc = await self._usable_runsc()
        image = await self._checkpoints.image(runsc, template, self._workshop.fresh)
        make = functools.partial(self._workshop.make, runsc, template, limits, owned=owned, stopped=stopped)
        try:
            return await make(image=image)
        except RestoreFailedError as failed:
            if stopped:
                raise failed.cause from None
        await asyncio.to_thread(self._checkpoints.forget, image)
        image = await self._checkpoints.image(runsc, template, self._workshop.fresh)
        try:
            return await make(image=image)
        except RestoreFailedError as failed:
            raise failed.cause from None

    async def _born(self, spec: SandboxSpec, template: TemplateManifest, member: Member) -> SandboxRecord:
        try:
            await self._workshop.bear(member, _birth_of(spec, template), self._sockets.path(spec.sandbox_id))
            record = self._record(spec, template, member)
        except BaseException:
            self._sockets.remove(spec.sandbox_id)
            await self._workshop.discard_finally(member)
            raise
        self._kernels.hold(spec.sandbox_id, FirstProcess(member.pidfd, member.kit.name, member.slot, member.lifeline))
        return record

    def _record(self, spec: SandboxSpec, template: TemplateManifest, member: Member) -> SandboxRecord:
        return record_of(
            spec,
            template,
            self.isolation,
            socket_file=self._sockets.path(spec.sandbox_id),
            pid=pid_of_pidfd(member.pidfd),
            slot=member.slot,
            kit=member.kit,
        )

    async def _end_processes(self, record: SandboxRecord) -> None:
        """Kill the kernel and whatever serves it."""
        groups = groups_in(record)
        kernel = self._kernels.find(record)
        if kernel is None:
            return
        self._cgroups.kill(groups)
        # Once: soon the ids may be another sandbox's.
        if await self._kernels.end(record.sandbox_id, kernel, groups) and record.sandbox_id not in self._stopped:
            self._slots.release(kernel.slot)

    async def _adopt_stopped(self, record: SandboxRecord) -> bool:
        """Its stop, or its start, may have been cut off: it may have processes."""
        kit = kit_in(record)
        if not self._kits.has_disk(kit):
            await self.destroy(record)
            return False
        self._stopped.adopt(record)
        with contextlib.suppress(CoveError):  # it stays stopped; its start tries again and says what is wrong
            await self._end_processes(record)
            await asyncio.to_thread(self._workshop.clean, kit, groups_in(record), keep_disk=True)
        self._sockets.remove(record.sandbox_id)
        return True


def _birth_of(spec: SandboxSpec, template: TemplateManifest) -> Birth:
    return Birth(
        hostname=host_name(spec.sandbox_id),
        open_files=spec.limits.open_files,
        processes=spec.limits.pids,
        boot=agent_boot(spec, template, Isolation.GVISOR),
    )
