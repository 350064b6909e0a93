"""System calls by number, with errors as OSError. Numbers are per machine (x86_64, aarch64)."""

import ctypes
import os
import platform
from typing import Final

_NUMBERS: Final[dict[str, dict[str, int]]] = {
    "x86_64": {"pivot_root": 155, "capset": 126, "seccomp": 317, "unshare": 272, "setns": 308},
    "aarch64": {"pivot_root": 41, "capset": 91, "seccomp": 277, "unshare": 97, "setns": 268},
}
# Since 5.0 new calls have one number on all machines (asm-generic/unistd.h).
_COMMON: Final[dict[str, int]] = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}

# PyDLL keeps the interpreter lock: a call that forks must not come back to a lock in an unknown state.
_LIBC: Final = ctypes.PyDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


def number_of(name: str) -> int:
    """The number of system call `name` on this machine.

    Raises:
        OSError: ENOSYS on a machine type that is not supported.
    """
    if name in _COMMON:
        return _COMMON[name]
    try:
        return _NUMBERS[platform.machine()][name]
    except KeyError:
        raise OSError(38, f"{name} is not known on {platform.machine()}") from None


def syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call `name`; integers are passed as 64 bits, bytes as pointers, None as NULL.

    Raises:
        OSError: the call failed; `filename` holds the name of the call.
    """
    converted = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(number_of(name)), *converted))
    if result < 0:
        raise last_error(name)
    return result


def libc_call(name: str, *arguments: int | bytes | None) -> int:
    """Call the C library's function `name`, with the same conventions as `syscall`."""
    converted = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result = int(getattr(_LIBC, name)(*converted))
    if result < 0:
        raise last_error(name)
    return result


def last_error(name: str) -> OSError:
    """An OSError for the failure of the last call."""
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), name)
