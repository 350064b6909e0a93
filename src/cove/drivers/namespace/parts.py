"""What a namespace sandbox is made of, as the driver keeps it and as its record tells it after a restart."""

import asyncio
from dataclasses import dataclass, field

from cove.drivers.namespace.kits import Kit
from cove.models.hosts import SandboxRecord


@dataclass
class Parts:
    """A sandbox that is being made.

    Attributes:
        reopened: name of the kit of a sandbox that is stopped: its disk and its user ids stay when the start fails.
            Empty for a new sandbox.
    """

    slot: int
    reopened: str = ""
    kit: Kit | None = None
    spawning: asyncio.Task[int] | None = None
    pid: int = 0


@dataclass
class Held:
    """What the driver keeps of a running sandbox, besides its record."""

    pidfd: int
    kit: str
    slot: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Stopped:
    """What a sandbox without processes goes on holding.

    Attributes:
        slot: its user id range, to which the files on its disk belong; None when another sandbox has it.
    """

    kit: str
    slot: int | None


def driver_state(slot: int, kit: Kit) -> dict[str, str]:
    """For the record."""
    return {"slot": str(slot), "kit": kit.name, "groups": "\n".join(kit.groups)}


def groups_in(record: SandboxRecord) -> tuple[str, ...]:
    """Directories of its cgroups."""
    groups = record.driver_state.get("groups")
    return tuple(groups.split("\n")) if groups else ()


def slot_in(record: SandboxRecord) -> int:
    """Its user id range."""
    return int(record.driver_state.get("slot", "0"))


def kit_in(record: SandboxRecord) -> str:
    """Name of its cgroups and its disk."""
    return record.driver_state.get("kit", record.sandbox_id)
