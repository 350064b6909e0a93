"""What a namespace sandbox is made of, while it is being made."""

import asyncio
from dataclasses import dataclass

from cove.drivers.kits import Kit


@dataclass
class Parts:
    """A sandbox that is being made.

    Attributes:
        reopened: name of the kit of a sandbox that is stopped: its disk and its user ids stay when the start fails.
            Empty for a new sandbox.
        layers: descriptors of mounts of its own of the template's layers; empty where it has the fork server's.
    """

    slot: int
    reopened: str = ""
    kit: Kit | None = None
    spawning: asyncio.Task[int] | None = None
    pid: int = 0
    layers: tuple[int, ...] = ()
