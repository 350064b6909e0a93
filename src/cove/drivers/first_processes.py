"""The first processes of running sandboxes: the end of one is the end of its sandbox.

They are held by pidfd, so that a recycled process id is never mistaken and every end is noticed at once.
"""

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Final

from cove.drivers.records import groups_in, kit_in, slot_in
from cove.host.cgroups import Cgroups
from cove.linux.clone import open_process, signal_process
from cove.linux.exit_status import exit_status
from cove.models.errors import CoveError, error
from cove.models.hosts import SandboxRecord

_END_SECONDS: Final = 5.0
_FREEZE_SECONDS: Final = 5.0
_FREEZE_PAUSE: Final = 0.002
_REAPED_SECONDS: Final = 0.2
_REAPED_PAUSE: Final = 0.005


@dataclass
class FirstProcess:
    """What is kept of a running sandbox, besides its record.

    Attributes:
        kit: name of its cgroups and its disk.
        slot: its user id range.
        lifeline: the write end of a pipe; the sandbox ends when it is closed. -1: nothing waits for that.
    """

    pidfd: int
    kit: str
    slot: int
    lifeline: int = -1
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class FirstProcesses:
    """Those of one driver, by sandbox id."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._held: dict[str, FirstProcess] = {}

    def __contains__(self, sandbox_id: str) -> bool:
        return sandbox_id in self._held

    def get(self, sandbox_id: str) -> FirstProcess | None:
        """That of a sandbox, if it is held; it may have ended."""
        return self._held.get(sandbox_id)

    def kits(self) -> set[str]:
        """Names of all kits in use."""
        return {first.kit for first in self._held.values()}

    def hold(self, sandbox_id: str, first: FirstProcess) -> FirstProcess:
        """A pidfd is readable when its process has ended (pidfd_open(2))."""
        self._held[sandbox_id] = first
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(first.pidfd)
            first.ended.set()

        loop.add_reader(first.pidfd, end)
        return first

    def find(self, record: SandboxRecord) -> FirstProcess | None:
        """That of a record, held from now on; None when it is no more."""
        held = self._held.get(record.sandbox_id)
        if held:
            return held
        pidfd = open_process(record.pid, record.pid_started) if record.pid else None
        if pidfd is None:
            return None
        return self.hold(record.sandbox_id, FirstProcess(pidfd, kit_in(record), slot_in(record)))

    def expect(self, record: SandboxRecord) -> None:
        """Raises CoveError SANDBOX_NOT_FOUND unless the sandbox runs."""
        held = self._held.get(record.sandbox_id)
        if held is None or held.ended.is_set():
            raise error("SANDBOX_NOT_FOUND", f"Sandbox {record.sandbox_id} does not run.")

    async def wait(self, record: SandboxRecord) -> None:
        """Return at the end of the first process; at once when there is none."""
        held = self._held.get(record.sandbox_id)
        if held:
            await held.ended.wait()

    async def limit_at_end(self, record: SandboxRecord, *, only_if_killed: bool) -> str:
        """The limit that an ended sandbox ran into, as results of programs name it; empty when it was none.

        It is that of memory: the host's kernel counts what it ends for that.

        Args:
            only_if_killed: the first process survives such ends of others, so it has to be killed itself for this;
                somebody else who kills it after such an end cannot be told from the kernel, nor can any end of it
                before Linux 6.15.
        """
        held = self._held.get(record.sandbox_id)
        try:
            if self._cgroups.usage(groups_in(record)).oom_kills == 0:
                return ""
            if only_if_killed and (held is None or await _ended_otherwise(held.pidfd)):
                return ""
        except (OSError, ValueError):
            return ""
        return f"memory {record.limits.memory_mb} MiB"

    async def pause(self, record: SandboxRecord) -> None:
        """Freeze the sandbox's cgroup, and wait until every process in it has stopped.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; INTERNAL_ERROR when it does not stop in time, it goes on then.
        """
        self.expect(record)
        groups = groups_in(record)
        self._cgroups.freeze(groups, frozen=True)
        deadline = time.monotonic() + _FREEZE_SECONDS
        while not self._cgroups.is_frozen(groups):
            if time.monotonic() > deadline:
                self._cgroups.freeze(groups, frozen=False)
                raise error("INTERNAL_ERROR", f"Sandbox {record.sandbox_id} did not freeze in {_FREEZE_SECONDS:.0f} s.")
            await asyncio.sleep(_FREEZE_PAUSE)

    async def resume(self, record: SandboxRecord) -> None:
        """Thaw the sandbox's cgroup.

        Raises:
            CoveError: SANDBOX_NOT_FOUND.
        """
        self.expect(record)
        self._cgroups.freeze(groups_in(record), frozen=False)

    async def end(self, sandbox_id: str, first: FirstProcess, groups: tuple[str, ...]) -> bool:
        """Kill it, wait, let go of it; several may wait for the same one.

        Returns:
            Whether it was this call that let go: for what must be done once.

        Raises:
            CoveError: INTERNAL_ERROR when it does not end.
        """
        signal_process(first.pidfd, signal.SIGKILL)
        # A freezer of version 1 holds killed processes back; the record may not know of the last pause.
        with contextlib.suppress(CoveError, OSError):
            self._cgroups.freeze(groups, frozen=False)
        try:
            async with asyncio.timeout(_END_SECONDS):
                await first.ended.wait()
        except TimeoutError as problem:
            raise error(
                "INTERNAL_ERROR",
                f"Sandbox {sandbox_id} was killed, but had not ended after {_END_SECONDS:.0f} s.",
                remedy="A process of it may be stuck in the kernel (state D in `ps`); try again later.",
            ) from problem
        if self._held.get(sandbox_id) is not first:
            return False
        self._release(sandbox_id)
        return True

    def release_all(self) -> None:
        """Let go of all, alive or not; sandboxes that shall not outlive their host end by it."""
        for sandbox_id in list(self._held):
            self._release(sandbox_id)

    def _release(self, sandbox_id: str) -> None:
        first = self._held.pop(sandbox_id)
        asyncio.get_running_loop().remove_reader(first.pidfd)
        os.close(first.pidfd)
        if first.lifeline >= 0:
            os.close(first.lifeline)


async def _ended_otherwise(pidfd: int) -> bool:
    """Whether a process is known to have ended by anything but SIGKILL. Its status can be read as soon as its parent
    has taken note of its end."""
    deadline = time.monotonic() + _REAPED_SECONDS
    while (status := exit_status(pidfd)) is None and time.monotonic() < deadline:  # noqa: ASYNC110 (no event tells)
        await asyncio.sleep(_REAPED_PAUSE)
    return status is not None and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL)
