"""Sandboxes without processes: what they go on holding until they are started again or removed."""

from dataclasses import dataclass

from cove.drivers.records import kit_in, slot_in
from cove.host.identities import SlotAllocator
from cove.models.errors import error
from cove.models.hosts import SandboxRecord


@dataclass(frozen=True)
class Stopped:
    """One of them.

    Attributes:
        kit: names its disk.
        slot: its user id range, to which the files on its disk belong.
        owns_slot: False when another sandbox was found to have it, too.
    """

    kit: str
    slot: int
    owns_slot: bool = True


class StoppedSandboxes:
    """Those of one driver, by sandbox id. While a sandbox is among them, nobody else gets its user ids."""

    def __init__(self, slots: SlotAllocator) -> None:
        self._slots = slots
        self._stopped: dict[str, Stopped] = {}

    def __contains__(self, sandbox_id: str) -> bool:
        return sandbox_id in self._stopped

    def add(self, record: SandboxRecord) -> None:
        """One that is being stopped, before its processes end. Idempotent."""
        self._stopped.setdefault(record.sandbox_id, Stopped(kit_in(record), slot_in(record)))

    def adopt(self, record: SandboxRecord) -> None:
        """One that an earlier daemon stopped. Idempotent."""
        if record.sandbox_id in self._stopped:
            return
        slot = slot_in(record)
        self._stopped[record.sandbox_id] = Stopped(kit_in(record), slot, owns_slot=self._slots.occupy(slot))

    def startable(self, sandbox_id: str) -> Stopped:
        """One that is to be started.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; CONFLICT when another sandbox has its user ids.
        """
        stopped = self._stopped.get(sandbox_id)
        if stopped is None:
            raise error("SANDBOX_NOT_FOUND", f"Sandbox {sandbox_id} is not stopped on this host.")
        if not stopped.owns_slot:
            raise error(
                "CONFLICT",
                f"The user ids of sandbox {sandbox_id} are another sandbox's.",
                remedy="Delete one of the two.",
            )
        return stopped

    def started(self, sandbox_id: str) -> None:
        """It runs again, with its user ids."""
        self._stopped.pop(sandbox_id, None)

    def forget(self, sandbox_id: str) -> None:
        """It is removed; its user ids are free. Idempotent."""
        stopped = self._stopped.pop(sandbox_id, None)
        if stopped and stopped.owns_slot:
            self._slots.release(stopped.slot)

    def kits(self) -> set[str]:
        """Names of all their kits."""
        return {stopped.kit for stopped in self._stopped.values()}
