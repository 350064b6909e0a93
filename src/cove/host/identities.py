"""User and group ids on the host that belong to Cove alone.

The ids from 1879048192 on are given to nothing by systemd's and the distributions' conventions
(https://systemd.io/UIDS-GIDS). Each sandbox gets a range of its own, so that even a process that left its
namespaces would own nothing of another sandbox's.
"""

import secrets
from typing import Final

from cove.models.errors import error

FIRST: Final = 1879048192
TEMPLATE_OWNER: Final = FIRST
"""Owns the files of all template layers; appears as root inside. No program of a sandbox ever runs as it; gVisor's
file server does, in a user namespace and behind a filter of its own."""
WARM_USER: Final = FIRST + 1
"""Runs the fork servers."""
SERVER_USER: Final = FIRST + 2
"""Runs the server that root starts, where there is no account for it. Owns nothing else."""
EGRESS_USER: Final = FIRST + 3
"""Runs the program that connects to the network for sandboxes. Owns nothing."""
_RANGE: Final = 65536
SLOTS: Final = 4000


def id_map(slot: int, *, own_root: bool = False) -> str:
    """uid_map and gid_map (user_namespaces(7)) of slot 1 to `SLOTS`: 0 is the template's owner, the rest is its own.

    Args:
        own_root: 0 is its own too, since programs run as it; layers then need `layer_map`.
    """
    start = _start(slot)
    if own_root:
        return f"0 {start} {_RANGE}\n"
    return f"0 {TEMPLATE_OWNER} 1\n1 {start + 1} {_RANGE - 1}\n"


def layer_map(slot: int) -> str:
    """The maps of a namespace for `id_mapped_copy`: what the template's owner has on the disk is the own root's of
    that slot. Nobody else's files have an owner then."""
    return f"{TEMPLATE_OWNER} {_start(slot)} 1\n"


def own_root(slot: int) -> int:
    """The host's id of 0 inside, of a sandbox whose programs run as root."""
    return _start(slot)


def _start(slot: int) -> int:
    if not 1 <= slot <= SLOTS:
        raise ValueError(f"id slot {slot} is not between 1 and {SLOTS}")
    return FIRST + slot * _RANGE


def host_id(slot: int, inside: int) -> int:
    """The host's id of an id inside: what `id_map` maps it to."""
    return TEMPLATE_OWNER if inside == 0 else FIRST + slot * _RANGE + inside


class SlotAllocator:
    """Hands out id slots; a slot is used by at most one sandbox at a time, and the least recently used comes first."""

    def __init__(self, *, first: int = 1) -> None:
        """`first` is the slot that is given out first."""
        self._taken: set[int] = set()
        self._next = first

    def take(self) -> int:
        """A free slot.

        Raises:
            CoveError: CAPACITY_EXHAUSTED when all are taken.
        """
        for _ in range(SLOTS):
            slot, self._next = self._next, self._next % SLOTS + 1
            if slot not in self._taken:
                self._taken.add(slot)
                return slot
        raise error("CAPACITY_EXHAUSTED", f"All {SLOTS} user id ranges of this host are in use.")

    def occupy(self, slot: int) -> bool:
        """Mark a slot that an adopted sandbox holds; False when another one has it already."""
        free = slot not in self._taken
        self._taken.add(slot)
        return free

    def release(self, slot: int) -> None:
        """Give a slot back, after the last process that used it is gone."""
        self._taken.discard(slot)


def new_slots() -> SlotAllocator:
    """The slots of one host. Another host on this machine has its own: they begin at different places, so as not to
    share ids."""
    return SlotAllocator(first=1 + secrets.randbelow(SLOTS))
