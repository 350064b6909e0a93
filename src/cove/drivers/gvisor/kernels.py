"""The kernels of running sandboxes: held by pidfd, so that their ends are noticed whatever `runsc` believes."""

import asyncio
import os
import signal
from dataclasses import dataclass, field
from typing import Final

from cove.drivers.namespace.parts import kit_in, slot_in
from cove.linux.clone import open_process, signal_process
from cove.models.errors import error
from cove.models.hosts import SandboxRecord

_END_SECONDS: Final = 5.0


@dataclass
class Kernel:
    """What is kept of a running sandbox, besides its record.

    Attributes:
        lifeline: see `Member`.
    """

    pidfd: int
    kit: str
    slot: int
    lifeline: int = -1
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Kernels:
    """Those of one driver, by sandbox id."""

    def __init__(self) -> None:
        self._held: dict[str, Kernel] = {}

    def __contains__(self, sandbox_id: str) -> bool:
        return sandbox_id in self._held

    def get(self, sandbox_id: str) -> Kernel | None:
        """The kernel of a sandbox, if it is held; it may have ended."""
        return self._held.get(sandbox_id)

    def names(self) -> set[str]:
        """Ids of all sandboxes."""
        return set(self._held)

    def kits(self) -> set[str]:
        """Names of all kits in use."""
        return {kernel.kit for kernel in self._held.values()}

    def hold(self, sandbox_id: str, kernel: Kernel) -> Kernel:
        """A pidfd is readable when its process has ended (pidfd_open(2))."""
        self._held[sandbox_id] = kernel
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(kernel.pidfd)
            kernel.ended.set()

        loop.add_reader(kernel.pidfd, end)
        return kernel

    def find(self, record: SandboxRecord) -> Kernel | None:
        """The kernel of a record, held from now on; None when it is no more."""
        held = self._held.get(record.sandbox_id)
        if held:
            return held
        pidfd = open_process(record.pid, record.pid_started) if record.pid else None
        if pidfd is None:
            return None
        return self.hold(record.sandbox_id, Kernel(pidfd, kit_in(record), slot_in(record)))

    def runs(self, record: SandboxRecord) -> None:
        """Raises CoveError SANDBOX_NOT_FOUND unless it does."""
        held = self._held.get(record.sandbox_id)
        if held is None or held.ended.is_set():
            raise error("SANDBOX_NOT_FOUND", f"Sandbox {record.sandbox_id} does not run.")

    async def end(self, sandbox_id: str, kernel: Kernel) -> bool:
        """Kill it, wait, let go of it; several may wait for the same one.

        Returns:
            Whether it was this call that let go.

        Raises:
            CoveError: INTERNAL_ERROR when it does not end.
        """
        signal_process(kernel.pidfd, signal.SIGKILL)
        try:
            async with asyncio.timeout(_END_SECONDS):
                await kernel.ended.wait()
        except TimeoutError as problem:
            raise error(
                "INTERNAL_ERROR",
                f"Sandbox {sandbox_id} was killed, but had not ended after {_END_SECONDS:.0f} s.",
                remedy="A process of it may be stuck in the kernel (state D in `ps`); try again later.",
            ) from problem
        if self._held.get(sandbox_id) is not kernel:
            return False
        self.release(sandbox_id)
        return True

    def release(self, sandbox_id: str) -> None:
        """Let go of it, alive or not; without it a sandbox ends that shall not outlive its host."""
        kernel = self._held.pop(sandbox_id)
        asyncio.get_running_loop().remove_reader(kernel.pidfd)
        os.close(kernel.pidfd)
        if kernel.lifeline >= 0:
            os.close(kernel.lifeline)
