"""The few capabilities that a sandbox's first program keeps until its birth: capabilities(7), prctl(2).

They are about gVisor's kernel, not the host's.
"""

import ctypes
import os
import struct
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from cove.linux import inside_root
from cove.linux.calls import libc_call, syscall

_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAP_DAC_OVERRIDE: Final = 1
_CAP_SETGID: Final = 6
_CAP_SETUID: Final = 7
_CAP_SETPCAP: Final = 8
_CAP_SYS_ADMIN: Final = 21
_NEEDED_AT_BIRTH: Final = 1 << _CAP_DAC_OVERRIDE | 1 << _CAP_SETUID | 1 << _CAP_SETPCAP | 1 << _CAP_SYS_ADMIN

_INSIDE_ROOT: Final = sum(1 << number for number in inside_root.NUMBERS)

_AT_START: Final = ("CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SYS_ADMIN")


def names(*, run_as_root: bool) -> tuple[str, ...]:
    """What the program is started with."""
    return tuple(sorted({*_AT_START, *(inside_root.NAMES if run_as_root else ())}))


def become_user(user: int) -> None:
    """Give up being root but keep what is needed at the birth, not in force."""
    libc_call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def raise_kept() -> None:
    """Put in force what `become_user` kept: to name the host, to limit processes, and to empty the bounding set."""
    _set_capabilities(_NEEDED_AT_BIRTH | (_INSIDE_ROOT if os.getuid() == 0 else 0))


@contextmanager
def as_root() -> Generator[None]:
    """What is made in the block belongs to root. Takes `raise_kept` before, and again afterwards."""
    user = os.geteuid()
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(user)
        raise_kept()


def drop_all() -> None:
    """Empty every set, but for what a root inside may do. There is no ambient set in gVisor, and the bounding set
    holds what it was started with."""
    kept = _INSIDE_ROOT if os.getuid() == 0 else 0
    for capability in (_CAP_DAC_OVERRIDE, _CAP_SETUID, _CAP_SETGID, _CAP_SYS_ADMIN, _CAP_SETPCAP):
        if not kept & 1 << capability:
            libc_call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
    _set_capabilities(kept)


def _set_capabilities(mask: int) -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    low = struct.pack("=3I", mask, mask, 0)  # effective, permitted, inheritable
    syscall("capset", header, ctypes.create_string_buffer(low + bytes(12), 24))
