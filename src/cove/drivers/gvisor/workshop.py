"""Makes unborn sandboxes, lets them be born, and takes them apart."""

import asyncio
import contextlib
import os
import select
import signal
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from cove.drivers.guests import start_failure
from cove.drivers.gvisor.boot import Boot, await_ready, boot, host_user, kernel_of
from cove.drivers.gvisor.bundle import Box, write_bundle
from cove.drivers.gvisor.guest.protocol import Birth
from cove.drivers.gvisor.members import Member
from cove.drivers.gvisor.pipes import GuestPipes
from cove.drivers.gvisor.runsc import Runsc
from cove.drivers.kits import KitShelf
from cove.drivers.stopped import Stopped
from cove.host.cgroups import Cgroups
from cove.host.identities import SlotAllocator
from cove.linux.clone import signal_process
from cove.models.errors import CoveError, error
from cove.models.limits import Limits
from cove.models.templates import TemplateManifest

_BIRTH_SECONDS: Final = 20.0
_END_SECONDS: Final = 5.0
_KERNEL_MB: Final = 64
"""What a sandbox's own kernel, and the process that serves its files, may take beside the sandbox's memory."""

_KERNEL_PIDS: Final = 128
_PIDS_FOR_EACH: Final = 4
"""Threads of the host for a process inside; measured: 2.1."""


class Workshop:
    """The steps of a sandbox's making; it keeps nothing but the names of what is being made."""

    def __init__(
        self, boxes: Path, *, cgroups: Cgroups, kits: KitShelf, slots: SlotAllocator, outlive_host: bool
    ) -> None:
        """`boxes` takes a directory for each sandbox."""
        self._boxes = boxes
        self._cgroups = cgroups
        self._kits = kits
        self._slots = slots
        self._outlive_host = outlive_host
        self._making: set[str] = set()

    @property
    def making(self) -> frozenset[str]:
        """Names of the kits of what is being made now."""
        return frozenset(self._making)

    def box(self, kit: str) -> Box:
        """Where the sandbox with that kit is."""
        return Box(self._boxes / kit)

    async def make(
        self,
        runsc: Runsc,
        template: TemplateManifest,
        limits: Limits,
        *,
        image: Path | None,
        owned: tuple[str, ...] = (),
        stopped: Stopped | None = None,
        program: tuple[str, ...] = (),
    ) -> Member:
        """Start a kernel in a box of its own, from a checkpoint or anew.

        Args:
            owned: directories of its user, beside the template's.
            program: to run instead of the guest's.
            stopped: what a stopped sandbox has kept: its disk and its user ids.

        Raises:
            CoveError: what `KitShelf.take` raises, SANDBOX_START_FAILED. Nothing is left behind.
        """
        slot = stopped.slot if stopped else self._slots.take()
        try:
            kit = await (self._kits.reopen(stopped.kit, around(limits)) if stopped else self._kits.take(around(limits)))
        except BaseException:
            if not stopped:
                self._slots.release(slot)
            raise
        self._making.add(kit.name)
        member = Member(self.box(kit.name), kit, slot, GuestPipes(), reopened=stopped is not None)
        try:
            await self._start(runsc, template, member, image, owned, program)
        except BaseException:
            self._kits.let_go(kit)
            await self.discard_finally(member)
            raise
        finally:
            self._making.discard(kit.name)
        self._kits.let_go(kit)
        return member

    async def _start(
        self,
        runsc: Runsc,
        template: TemplateManifest,
        member: Member,
        image: Path | None,
        owned: tuple[str, ...],
        program: tuple[str, ...],
    ) -> None:
        def prepare() -> None:
            member.box.remove()
            member.box.make(host_user(member.slot, template))
            write_bundle(member.box, template, member.slot, program)

        await asyncio.to_thread(prepare)
        if not self._outlive_host:
            theirs, member.lifeline = os.pipe2(os.O_CLOEXEC)
        else:
            theirs = -1
        what = Boot(
            runsc=runsc,
            box=member.box,
            kit=member.kit,
            slot=member.slot,
            template=template,
            image=image,
            owned=owned,
            lifeline=theirs,
        )
        try:
            await boot(what, member.pipes)
        finally:
            if theirs >= 0:
                os.close(theirs)
        if not program:  # that of the probe may have ended already
            member.pidfd = kernel_of(member.box)

    @asynccontextmanager
    async def fresh(self, runsc: Runsc, template: TemplateManifest) -> AsyncGenerator[Box]:
        """The guest program of a template, started anew, ready; all of it is gone at the end."""
        member = await self.make(runsc, template, Limits(), image=None)
        try:
            await await_ready(member.pipes)
            yield member.box
        finally:
            await self.discard_finally(member)

    async def bear(self, member: Member, birth: Birth, socket_file: Path) -> None:
        """Tell a member who it is, and put its agent's socket where the sandbox cannot reach it.

        Raises:
            CoveError: SANDBOX_START_FAILED naming the step that failed. The member has to be discarded then.
        """
        try:
            async with asyncio.timeout(_BIRTH_SECONDS):
                await member.pipes.send(birth.model_dump_json().encode())
                answer = await member.pipes.receive()
        except TimeoutError as problem:
            raise error("SANDBOX_START_FAILED", f"A new sandbox was not ready in {_BIRTH_SECONDS:.0f} s.") from problem
        except OSError as problem:
            raise error("SANDBOX_START_FAILED", "A new sandbox ended before it was ready.") from problem
        if answer is None:
            raise error("SANDBOX_START_FAILED", "A new sandbox ended before it was ready.")
        if "error" in answer:
            raise start_failure(answer)
        member.pipes.close()
        try:
            _take_socket(member.box, socket_file)
        except OSError as problem:
            raise error("SANDBOX_START_FAILED", f"A new sandbox has no socket: {problem}.") from problem

    async def discard(self, member: Member) -> None:
        """End a member and free all it held but the disk of one that was stopped."""
        member.pipes.close()
        if member.lifeline >= 0:
            os.close(member.lifeline)
            member.lifeline = -1
        pidfd, member.pidfd = member.pidfd, -1
        await asyncio.to_thread(self._take_apart, member, pidfd)
        if not member.reopened:
            self._slots.release(member.slot)

    async def discard_finally(self, member: Member) -> None:
        """`discard`, to its end also when this task is cancelled meanwhile."""
        task = asyncio.ensure_future(self.discard(member))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            with contextlib.suppress(CoveError, OSError):
                await task
            raise

    def _take_apart(self, member: Member, pidfd: int) -> None:
        if pidfd >= 0:
            signal_process(pidfd, signal.SIGKILL)
        self._cgroups.kill(member.kit.groups)
        if pidfd >= 0:
            _await_end(pidfd)
            os.close(pidfd)
        self.clean(member.kit.name, member.kit.groups, keep_disk=member.reopened)

    def clean(self, kit: str, groups: tuple[str, ...], *, keep_disk: bool = False) -> None:
        """Remove what is left of a sandbox whose kernel has ended. Idempotent; may wait for the kernel.

        Raises:
            CoveError: only with `keep_disk`: what `KitShelf.put_away` raises.
        """
        self._cgroups.kill(groups)  # the process that serves its files ends a moment later by itself
        self.box(kit).remove()
        if keep_disk:
            self._kits.put_away(kit, groups)
        else:
            self._kits.remove(kit, groups)

    def remains(self) -> set[str]:
        """Names of all boxes."""
        return {path.name for path in self._boxes.iterdir()} if self._boxes.is_dir() else set()


def around(limits: Limits) -> Limits:
    """The limits of the host for a kernel and the sandbox in it. Processes are counted inside: the host's limit is a
    second wall, at which the kernel ends."""
    return limits.model_copy(
        update={
            "memory_mb": limits.memory_mb + _KERNEL_MB,
            "pids": _KERNEL_PIDS + _PIDS_FOR_EACH * limits.pids,
        }
    )


def _take_socket(box: Box, target: Path) -> None:
    """Move the agent's socket out of the sandbox's reach: it could put a link to any socket of the host's there.

    Raises:
        OSError: what is there is no socket, or nothing is.
    """
    box.socket.rename(target)
    try:
        _expect_socket(target)
        os.chown(target, os.geteuid(), os.getegid(), follow_symlinks=False)
        box.close_share()
    except OSError:
        target.unlink(missing_ok=True)
        raise


def _expect_socket(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise OSError("what it has made is not a socket")


def _await_end(pidfd: int) -> None:
    """A pidfd is readable when its process has ended (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(_END_SECONDS * 1000):
        raise error("INTERNAL_ERROR", f"A sandbox was killed, but had not ended after {_END_SECONDS:.0f} s.")
