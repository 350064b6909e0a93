"""Give up privileges for good: capabilities(7), prctl(2)."""

import ctypes
import struct
from collections.abc import Collection
from typing import Final

from cove.linux.calls import libc_call, syscall

_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
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


def drop_bounding_set(highest: int, *, keep: Collection[int] = ()) -> None:
    """Take all capabilities but `keep` out of the bounding set (needs CAP_SETPCAP): no later execve(2) can bring them
    back."""
    for capability in range(highest + 1):
        if capability not in keep:
            libc_call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)


def drop_capabilities(*, keep: Collection[int] = ()) -> None:
    """Empty the ambient and inheritable sets, and the permitted and effective ones but for `keep` (below 32)."""
    libc_call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set_capabilities(sum(1 << capability for capability in keep), 0)


def keep_over_exec(capabilities: Collection[int]) -> None:
    """Have exactly these (below 32), also in the programs that an unprivileged user executes: the ambient set."""
    mask = sum(1 << capability for capability in capabilities)
    _set_capabilities(mask, mask)
    libc_call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in capabilities:
        libc_call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _set_capabilities(mask: int, inheritable: int) -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    sets = struct.pack("=6I", mask, mask, inheritable, 0, 0, 0)  # effective, permitted; the same for 32 and above
    syscall("capset", header, ctypes.create_string_buffer(sets, len(sets)))


def forbid_new_privileges() -> None:
    """no_new_privs: execve(2) can never grant more than this process has."""
    libc_call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
