"""A limit on the number of processes and threads inside: gVisor's own pids controller (cgroups(7), version 1).

gVisor knows RLIMIT_NPROC but does not heed it, and its kernel ends when the host refuses it a thread.
"""

import os
from typing import Final

from cove.drivers.gvisor.guest.privileges import as_root
from cove.linux.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, mount

_MOUNT_POINT: Final = "/dev/pids"
_GROUP: Final = f"{_MOUNT_POINT}/sandbox"


def limit_processes(maximum: int) -> None:
    """Put this process, and so all its children, into a group with that limit. Its files are root's; a root inside
    cannot reach them, since it may not unmount what covers them."""
    with as_root():
        os.mkdir(_MOUNT_POINT, 0o755)
        mount("none", _MOUNT_POINT, "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "pids")
        os.mkdir(_GROUP, 0o755)
        _write("pids.max", maximum)
        _write("cgroup.procs", os.getpid())
        if os.getuid() == 0:
            mount("none", _MOUNT_POINT, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0,size=4k")


def _write(name: str, number: int) -> None:
    handle = os.open(f"{_GROUP}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, str(number).encode())
    finally:
        os.close(handle)
