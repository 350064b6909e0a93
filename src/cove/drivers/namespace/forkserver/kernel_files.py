"""The sandbox's /proc: what tells about the machine, or changes it, is covered (as the OCI runtimes do, and more).

A pid namespace has a /proc of its own (proc(5)), but only its process directories are about that namespace; the rest
is the machine's. Its permissions are the kernel's; these mounts are a second wall, and hide what it leaves readable.
There is no `hidepid`: all processes here are one user's, and the agent must see each of them to end it.
"""

import os
from typing import Final

from cove.drivers.namespace.forkserver.protocol import DEVICES, EMPTY, ROOT
from cove.linux.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, bind, mount

COVERED_FILES: Final = (
    *("cmdline", "config.gz", "kallsyms", "kcore", "modules", "version_signature"),  # which kernel, how started
    *("interrupts", "iomem", "ioports", "mtrr", "partitions", "diskstats", "mdstat"),  # its devices
    *("keys", "key-users", "latency_stats", "sched_debug", "timer_list", "timer_stats", "sysrq-trigger"),
)
COVERED_DIRECTORIES: Final = ("acpi", "asound", "bus", "driver", "fs", "irq", "scsi")
READ_ONLY: Final = ("sys", "pressure")
"""`sys` has the settings of the whole machine; who writes to `pressure` makes the kernel watch it for them."""

_PROC: Final = f"{ROOT}/proc"


def mount_proc() -> None:
    """Mount it, and cover what is there of the above."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", _PROC, "proc", flags)
    there = frozenset(os.listdir(_PROC))
    for name in there.intersection(COVERED_FILES):
        bind(f"{DEVICES}/null", f"{_PROC}/{name}")
    for name in there.intersection(COVERED_DIRECTORIES):
        bind(EMPTY, f"{_PROC}/{name}")
    for name in there.intersection(READ_ONLY):
        bind(f"{_PROC}/{name}", f"{_PROC}/{name}", MS_RDONLY | flags)
