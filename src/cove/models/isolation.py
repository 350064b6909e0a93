"""Which wall stands between untrusted code and the host, said honestly."""

from enum import StrEnum

from cove.models.base import Contract


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
