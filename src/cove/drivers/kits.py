"""What a sandbox needs besides its process, made ahead: its cgroups and its disk.

Both take the kernel 3 ms, and up to 10 more while it moves processes between cgroups; a few are kept ready. The shelf
is refilled when no sandbox has been started for a moment, so that a burst of starts has the processors to itself.
"""

import asyncio
import contextlib
import os
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cove.host.cgroups import Cgroups
from cove.host.disks import LoopDisks
from cove.models.errors import CoveError
from cove.models.hosts import HostUsage
from cove.models.limits import Limits

_QUIET_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Kit:
    """One sandbox's cgroups and disk.

    Attributes:
        name: of the cgroups and of the disk's image.
        limits: what is in force.
        groups: directories of its cgroups, with the limits set.
        disk: descriptor of the mounted disk, attached nowhere; None where the disk is a tmpfs.
    """

    name: str
    limits: Limits
    groups: tuple[str, ...]
    disk: int | None


class KitShelf:
    """Makes kits, keeps some ready, removes used ones."""

    def __init__(self, cgroups: Cgroups, disks: LoopDisks | None, *, size: int) -> None:
        """`size` is how many are kept ready, for the limits that were asked for last."""
        self._cgroups = cgroups
        self._disks = disks
        self._size = size
        self._wanted = Limits()
        self._taken_at = 0.0
        self._ready: deque[Kit] = deque()
        self._refilling: asyncio.Task[None] | None = None

    async def take(self, limits: Limits) -> Kit:
        """A kit with these limits, ready or made now.

        Raises:
            CoveError: LIMIT_NOT_ENFORCEABLE, DISK_FULL; nothing is left behind.
        """
        kit = self._ready.popleft() if self._ready and self._ready[0].limits == limits else None
        self._wanted = limits
        self._taken_at = asyncio.get_running_loop().time()
        if self._size and (self._refilling is None or self._refilling.done()):
            self._refilling = asyncio.ensure_future(self._refill())
        return kit or await self._made_in_thread(lambda: self._make(limits), keep_disk=False)

    async def reopen(self, name: str, limits: Limits) -> Kit:
        """The kit of a stopped sandbox again: new cgroups, the same disk.

        Raises:
            CoveError: what `LoopDisks.open` raises, LIMIT_NOT_ENFORCEABLE; only the disk is left then.
        """
        return await self._made_in_thread(lambda: self._reopen(name, limits), keep_disk=True)

    def let_go(self, kit: Kit) -> None:
        """Close our descriptor of the disk: the sandbox holds it now, or nobody."""
        if kit.disk is not None:
            os.close(kit.disk)

    def remove(self, name: str, groups: tuple[str, ...] | None = None) -> None:
        """Remove cgroups and disk image of a kit whose processes have ended. Idempotent; may wait for the kernel."""
        self._cgroups.remove(self._cgroups.groups_of(name) if groups is None else groups)
        if self._disks:
            self._disks.remove(name)

    def put_away(self, name: str, groups: tuple[str, ...]) -> None:
        """Remove the cgroups of a kit whose processes have ended, and leave its disk in order. Idempotent; may wait
        for the kernel.

        Raises:
            CoveError: what `LoopDisks.settle` raises.
        """
        self._cgroups.remove(groups)
        if self._disks:
            self._disks.settle(name)

    def has_disk(self, name: str) -> bool:
        """Whether the disk of a kit is there."""
        return self._disks is not None and self._disks.exists(name)

    def usage(self, name: str, groups: tuple[str, ...], *, root: str | None = None) -> HostUsage:
        """What a sandbox uses of its kit. May wait for the kernel.

        Args:
            root: a path to the sandbox's root directory, whose filesystem is its disk; nothing else of it is touched.
        """
        counted = self._cgroups.usage(groups)
        if root is not None:
            with contextlib.suppress(OSError):  # it has just ended, or the kernel does not show it to this user
                return counted.model_copy(update=_filesystem(root))
        return counted.model_copy(update={"disk_bytes": self._disks.used_bytes(name) if self._disks else None})

    def unused_names(self, used: set[str]) -> set[str]:
        """Kits that exist, but are neither ready here nor named in `used`: remains of a crash."""
        disks = self._disks.names() if self._disks else set[str]()
        return (disks | self._cgroups.names()) - used - {kit.name for kit in self._ready}

    async def close(self) -> None:
        """Remove what is ready."""
        self._size = 0
        if self._refilling:
            await asyncio.gather(self._refilling, return_exceptions=True)
        await self._drop_ready()

    async def _made_in_thread(self, make: Callable[[], Kit], *, keep_disk: bool) -> Kit:
        making = asyncio.ensure_future(asyncio.to_thread(make))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            # The thread goes on; nobody else would remove what it makes.
            await asyncio.shield(asyncio.ensure_future(self._undo(making, keep_disk)))
            raise

    async def _undo(self, making: asyncio.Future[Kit], keep_disk: bool) -> None:
        with contextlib.suppress(CoveError):
            await self._drop(await making, keep_disk=keep_disk)

    async def _drop(self, kit: Kit, *, keep_disk: bool = False) -> None:
        self.let_go(kit)
        await asyncio.to_thread(self.put_away if keep_disk else self.remove, kit.name, kit.groups)

    async def _drop_ready(self) -> None:
        while self._ready:
            await self._drop(self._ready.popleft())

    def _make(self, limits: Limits) -> Kit:
        name = f"kit-{secrets.token_hex(8)}"
        try:
            groups = self._cgroups.create(name, limits)
            disk = self._disks.create(name, limits.disk_mb, limits.inodes) if self._disks else None
        except BaseException:
            self.remove(name)
            raise
        return Kit(name, limits, groups, disk)

    def _reopen(self, name: str, limits: Limits) -> Kit:
        groups = self._cgroups.create(name, limits)
        try:
            disk = self._disks.open(name) if self._disks else None
        except BaseException:
            self._cgroups.remove(groups)
            raise
        return Kit(name, limits, groups, disk)

    async def _refill(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(CoveError):  # the next `take` says what is wrong
            while len(self._ready) < self._size:
                while (quiet := loop.time() - self._taken_at) < _QUIET_SECONDS:  # noqa: ASYNC110 (a time, not an event)
                    await asyncio.sleep(_QUIET_SECONDS - quiet)
                if self._ready and self._ready[0].limits != self._wanted:
                    await self._drop_ready()
                self._ready.append(await asyncio.to_thread(self._make, self._wanted))


def _filesystem(root: str) -> dict[str, int]:
    """Bytes and inodes (statvfs(3)); of an overlay those of its upper filesystem."""
    found = os.statvfs(root)
    return {
        "disk_bytes": (found.f_blocks - found.f_bfree) * found.f_frsize,
        "inodes": found.f_files - found.f_ffree,
        "inodes_limit": found.f_files,
    }
