"""Give up privileges for good: capabilities(7), prctl(2)."""

import ctypes
import struct
from typing import Final

from cove.linux.calls import libc_call, syscall

_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_LAST_CAPABILITY_FILE: Final = "/proc/sys/kernel/cap_last_cap"


def last_capability() -> int:
    """The highest capability number of this kernel; 63 when /proc does not say."""
    try:
        with open(_LAST_CAPABILITY_FILE, "rb") as file:
            return int(file.read())
    except OSError:
        return 63


def drop_bounding_set(highest: int) -> None:
    """Empty the bounding set (needs CAP_SETPCAP): no later execve(2) can bring a capability back."""
    for capability in range(highest + 1):
        libc_call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)


def drop_capabilities() -> None:
    """Empty the ambient, inheritable, permitted and effective sets."""
    libc_call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    nothing = ctypes.create_string_buffer(bytes(24), 24)
    syscall("capset", header, nothing)


def forbid_new_privileges() -> None:
    """no_new_privs: execve(2) can never grant more than this process has."""
    libc_call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
