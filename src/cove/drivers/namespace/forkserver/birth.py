"""The birth message: what a new sandbox is told before it takes its place."""

from cove.models.agent import AgentBoot
from cove.models.base import Contract


class Birth(Contract):
    """What a new sandbox is told before it takes its place.

    Attributes:
        hostname: of its uts namespace.
        layer_count: number of read-only layers below `LAYERS`.
        has_disk: the disk's mount comes with this message; otherwise a tmpfs of `disk_mb` MiB is used.
        mapped_root: the id maps were written by a privileged process and hold 0 and 1000; otherwise the new
            process maps just its own user, to 1000.
        open_files, processes: resource limits (setrlimit(2)).
        highest_capability: as the host's kernel says.
        owned_directories: names right below the root of directories for the user, beside the usual ones.
        ends_with_server: it is killed when the fork server ends (for hosts without a daemon).
    """

    hostname: str
    layer_count: int
    has_disk: bool
    disk_mb: int
    mapped_root: bool
    open_files: int
    processes: int
    highest_capability: int
    owned_directories: tuple[str, ...] = ()
    ends_with_server: bool = False
    outer_uid: int = 0
    outer_gid: int = 0
    boot: AgentBoot
