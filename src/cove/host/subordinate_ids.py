"""Subordinate ids: user and group ids that an ordinary user may use in user namespaces (subuid(5), newuidmap(1)).

With them each sandbox of such a user runs as a user of its own on the host: it can neither signal the others nor
read what is theirs, even if it left its namespaces.
"""

import os
import pwd
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cove.host.identities import SLOTS

TOOLS: Final = ("newuidmap", "newgidmap")
_INSIDE_USER: Final = 1000
_LARGEST: Final = 2**32 - 2


@dataclass(frozen=True)
class SubordinateIds:
    """One user and the ranges that are theirs to use.

    Attributes:
        uid, gid: of the user.
        first_uid, first_gid: where the ranges begin; both are at least `SLOTS` long.
    """

    uid: int
    gid: int
    first_uid: int
    first_gid: int

    def outer_maps(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Arguments for newuidmap and newgidmap: a namespace with the user and the whole range, each as itself."""
        return (
            tuple(str(item) for item in (self.uid, self.uid, 1, self.first_uid, self.first_uid, SLOTS)),
            tuple(str(item) for item in (self.gid, self.gid, 1, self.first_gid, self.first_gid, SLOTS)),
        )

    def maps_of(self, slot: int) -> dict[str, str]:
        """Maps of a sandbox: 0 is the user, who owns the template's files; 1000, as which its programs run, is an id
        of its own."""
        own = slot - 1
        return {
            "uid_map": f"0 {self.uid} 1\n{_INSIDE_USER} {self.first_uid + own} 1\n",
            "gid_map": f"0 {self.gid} 1\n{_INSIDE_USER} {self.first_gid + own} 1\n",
        }

    def host_user(self, slot: int) -> int:
        """Host user id of a sandbox's programs."""
        return self.first_uid + slot - 1


def find_subordinate_ids(
    subuid: Path = Path("/etc/subuid"), subgid: Path = Path("/etc/subgid")
) -> tuple[SubordinateIds | None, str]:
    """The ranges of the user that this process runs as.

    Returns:
        The ids and "", or None and what is missing with its remedy, for people.
    """
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return None, f"user id {uid} has no account, which newuidmap(1) wants"
    names = (name, str(uid))
    first_uid, first_gid = _first(subuid, names, uid), _first(subgid, names, os.getgid())
    if first_uid is None or first_gid is None:
        missing = subuid if first_uid is None else subgid
        add = f"`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}`"
        return None, f"{missing} gives you no {SLOTS} ids: {add} (choose numbers that are free)"
    if not all(shutil.which(tool) for tool in TOOLS):
        return None, "newuidmap is missing: `sudo apt-get install uidmap`"
    return SubordinateIds(uid, os.getgid(), first_uid, first_gid), ""


def _first(file: Path, names: Iterable[str], own: int) -> int | None:
    """Where the first range of one of `names` begins that is long enough and holds neither `own` nor root."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        owner, _, numbers = line.strip().partition(":")
        start, _, count = numbers.partition(":")
        if owner not in names or not (start.isdecimal() and count.isdecimal()):
            continue
        first, last = int(start), int(start) + SLOTS - 1
        if int(count) >= SLOTS and first > 0 and last <= _LARGEST and not first <= own <= last:
            return first
    return None
