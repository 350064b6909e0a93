"""What the control plane and a host say to each other about sandboxes."""

from enum import StrEnum

from pydantic import Field

from cove.models.base import Contract
from cove.models.isolation import DriverReport, Isolation
from cove.models.limits import Limits
from cove.models.network import EgressPolicy, EgressTotals
from cove.models.secrets import EgressSecret


class SandboxSpec(Contract):
    """Everything a host needs to start a sandbox.

    Attributes:
        sandbox_id: chosen by the control plane.
        template: name of a built template.
        isolation: the driver to use; None lets the host take the strongest that works.
        deadline: unix time in seconds at which the host kills it on its own; None means never.
        pooled: a member of the warm pool that no one has claimed yet.
        required_limits: names of `Limits` fields that the caller asked for; a host that cannot enforce one of them
            refuses. The others are enforced as far as the host can; its record names those that it cannot.
        owned_directories: directories right below the root that are made for the sandbox's user, beside the usual
            ones (a build's; those of a template are in its manifest).
        network: what it may reach; None: nothing.
        network_required: whether it is refused where there are no networks; otherwise it has none then, and its record
            says so.
        secrets: whose placeholders become values on the way out.
    """

    sandbox_id: str
    template: str
    isolation: Isolation | None = None
    limits: Limits = Limits()
    env_vars: dict[str, str] = {}
    deadline: float | None = None
    pooled: bool = False
    required_limits: frozenset[str] = frozenset()
    owned_directories: tuple[str, ...] = ()
    network: EgressPolicy | None = None
    network_required: bool = False
    secrets: tuple[EgressSecret, ...] = Field(default=(), repr=False)


class HostState(StrEnum):
    """What the host sees of a sandbox."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DEAD = "dead"


class SandboxRecord(Contract):
    """One sandbox that exists on a host.

    Attributes:
        socket_path: unix socket of its agent, on the host; nothing listens there while it is stopped.
        pid: host process id of its pid 1; 0 once it is stopped.
        pid_started: field 22 of /proc/PID/stat, so that a recycled pid is not mistaken (proc_pid_stat(5)).
        created: unix time in seconds.
        env_vars: of a stopped sandbox: what its next start puts in force. Kept by the host only; never listed.
        unenforced: names of the `Limits` fields that the host does not enforce.
        network: the policy in force; None without a network.
    """

    sandbox_id: str
    template: str
    template_digest: str = ""
    isolation: Isolation
    limits: Limits
    state: HostState
    socket_path: str
    pid: int
    pid_started: int
    created: float
    deadline: float | None = None
    pooled: bool = False
    env_vars: dict[str, str] = {}
    unenforced: tuple[str, ...] = ()
    network: EgressPolicy | None = None
    driver_state: dict[str, str] = Field(default_factory=dict)
    """What the driver needs to find the parts again after a restart (cgroup paths, uid slot, disk image)."""


class HostChanges(Contract):
    """Which sandboxes ended by themselves: crashes, and deadlines that the host kept.

    Attributes:
        cursor: where the next question goes on; opaque.
        ended: ids, oldest first.
        complete: False when endings since the last question may be missing (the host was restarted, or there were
            too many): then all has to be compared.
        reasons: of those in `ended` whose end has a reason that the host knows: the limit that they ran into, in the
            words of results of programs ("memory 512 MiB").
    """

    cursor: str
    ended: tuple[str, ...] = ()
    complete: bool = True
    reasons: dict[str, str] = {}


class HostUsage(Contract):
    """Resource use of one sandbox, as its host counts it.

    Attributes:
        disk_bytes: used on the sandbox's filesystem where the host can see that, else what its image takes; None for a
            disk that is memory.
        inodes, inodes_limit: of that filesystem; None where the host cannot see it.
        network: since it has one; None without.
    """

    memory_bytes: int
    memory_peak_bytes: int = 0
    cpu_seconds: float
    pids: int
    disk_bytes: int | None = None
    inodes: int | None = None
    inodes_limit: int | None = None
    oom_kills: int = 0
    network: EgressTotals | None = None


class HostCapacity(Contract):
    """What a host has and what is taken."""

    host_id: str
    cpus: int
    memory_bytes: int
    sandboxes: int
    max_sandboxes: int
    drivers: tuple[DriverReport, ...] = ()
