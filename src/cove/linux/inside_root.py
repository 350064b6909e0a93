"""What the root of a sandbox may do (capabilities(7)): what an installation of packages needs, over its own files only.

These are capabilities in the sandbox's user namespace. They hold over processes of that namespace and over files
whose owner it maps, which are the sandbox's own.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Capability:
    """One capability, with the reason why a root inside has it."""

    name: str
    number: int
    reason: str


CAPABILITIES: Final = (
    Capability("CAP_CHOWN", 0, "packages bring files of other users than root"),
    Capability("CAP_DAC_OVERRIDE", 1, "root changes files and directories that are closed to it"),
    Capability("CAP_FOWNER", 3, "root sets modes, times and attributes of files of other users"),
    Capability("CAP_FSETID", 4, "dpkg unpacks programs with set-group-id bits, which stay without effect here"),
    Capability("CAP_KILL", 5, "root ends the services that it has started as other users"),
    Capability("CAP_SETGID", 6, "package managers and services go on as users of their own"),
    Capability("CAP_SETUID", 7, "the same"),
)
"""Not among them: CAP_SYS_CHROOT, CAP_MKNOD and CAP_SYS_ADMIN, whose calls the filter refuses anyway; CAP_SETFCAP,
CAP_SETPCAP and CAP_DAC_READ_SEARCH, which no installation needs; CAP_NET_*, which are about the network."""

NUMBERS: Final = frozenset(capability.number for capability in CAPABILITIES)
NAMES: Final = tuple(capability.name for capability in CAPABILITIES)
