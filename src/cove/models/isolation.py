"""Which wall stands between untrusted code and the host, said honestly."""

from enum import StrEnum

from cove.models.base import Contract
from cove.models.errors import error


class Isolation(StrEnum):
    """The level in force. Stronger ones come later in the list."""

    FAKE = "fake"
    NAMESPACE = "namespace"
    GVISOR = "gvisor"
    MICROVM = "microvm"


ISOLATION_SUMMARY: dict[Isolation, str] = {
    Isolation.FAKE: "none: for unit tests only",
    Isolation.NAMESPACE: "shared kernel: namespaces, seccomp allow-list, no capabilities, cgroup limits",
    Isolation.GVISOR: "own user-space kernel (gVisor)",
    Isolation.MICROVM: "hardware virtual machine",
}


_STRENGTH = {isolation: rank for rank, isolation in enumerate(Isolation)}


def strongest(*levels: Isolation | None) -> Isolation | None:
    """The strongest of those that are named; None when none is."""
    return max((level for level in levels if level is not None), key=_STRENGTH.__getitem__, default=None)


def refuse_weaker(asked: Isolation, least: Isolation | None, *, who: str, remedy: str) -> None:
    """Refuse a weaker level than somebody insists on; `who` begins the sentence that says so.

    Raises:
        CoveError: FORBIDDEN.
    """
    if least is not None and _STRENGTH[asked] < _STRENGTH[least]:
        message = f"{who} with {least} or stronger; {asked} is weaker."
        raise error("FORBIDDEN", message, remedy=remedy, field="isolation")


def level_for(template: str, least: Isolation | None, *, asked: Isolation | None) -> Isolation | None:
    """The level for a sandbox of a template that insists on one, or not; None leaves it to the host.

    Raises:
        CoveError: FORBIDDEN when a weaker one is asked for.
    """
    if asked is None:
        return least
    who = f"Template {template!r} is made to be isolated"
    refuse_weaker(asked, least, who=who, remedy=f"Leave isolation out, or ask for {least}.")
    return asked


class Capabilities(Contract):
    """What a driver can do on this host; asking for more is refused before anything is touched."""

    pause: bool = False
    stop_start: bool = False
    filesystem_snapshot: bool = False
    memory_snapshot: bool = False
    fork: bool = False
    internet: bool = False
    limits: frozenset[str] = frozenset()
    """Names of `Limits` fields that are enforced here."""


class DriverReport(Contract):
    """The verdict of a driver's boot probe.

    Attributes:
        isolation: the level this driver gives.
        available: whether a tiny sandbox really started and answered.
        summary: one line for people.
        seconds: how long the probe took.
        capabilities: what it can do here.
        problems: what is missing, one sentence each.
        remedies: the exact commands that would fix them, in the order of `problems`.
        lost: what works only partly on this host (for example as an ordinary user), one sentence each.
    """

    isolation: Isolation
    available: bool
    summary: str
    seconds: float = 0.0
    capabilities: Capabilities = Capabilities()
    problems: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
