"""The birth message: what a new sandbox is told before it takes its place."""

from cove.drivers.namespace.forkserver.protocol import USER_ID
from cove.models.agent import AgentBoot
from cove.models.base import Contract


class Birth(Contract):
    """What a new sandbox is told before it takes its place.

    Attributes:
        hostname: of its uts namespace.
        layer_count: number of read-only layers below `LAYERS`.
        has_disk: the disk's mount comes with this message; otherwise a tmpfs of `disk_mb` MiB is used.
        has_layers: mounts of the layers come with this message, after the disk's, in which the template's owner is
            this sandbox's own root; otherwise they are as the fork server sees them.
        mapped: the id maps were written by a privileged process and hold 0 and 1000; otherwise the new process maps
            just its own user.
        run_as_root: programs run as 0, with the capabilities of `cove.linux.inside_root`; otherwise as 1000 without.
        open_files, processes: resource limits (setrlimit(2)).
        highest_capability: as the host's kernel says.
        counters: which descriptors come with this message before the mounts: what the kernel counts of the limits of
            this sandbox (`cove.agent.execution.limit_events`).
        owned_directories: names right below the root of directories for the user, beside the usual ones.
        outer_uid, outer_gid: the host daemon's; 0: it is root.
        ends_with_server: it is killed when the fork server ends (for hosts without a daemon).
    """

    hostname: str
    layer_count: int
    has_disk: bool
    disk_mb: int
    has_layers: bool = False
    mapped: bool
    run_as_root: bool = False
    open_files: int
    processes: int
    highest_capability: int
    counters: tuple[str, ...] = ()
    owned_directories: tuple[str, ...] = ()
    ends_with_server: bool = False
    outer_uid: int = 0
    outer_gid: int = 0
    boot: AgentBoot

    @property
    def user(self) -> int:
        """Id inside of the user who runs programs."""
        return 0 if self.run_as_root else USER_ID
