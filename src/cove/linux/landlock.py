"""Landlock (landlock(7)): a process takes from itself, and from all that it starts, the right to write elsewhere."""

import ctypes
import os
import struct
from collections.abc import Mapping
from typing import Final

from cove.linux.calls import syscall

OLDEST_ABI: Final = 3
"""Before it, files could not be moved between directories, or could be truncated (Linux 6.2)."""
_SCOPES_ABI: Final = 6
_LOGS_ABI: Final = 7

_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_WRITE_FILE: Final = 1 << 1
_REMOVE_AND_MAKE: Final = 0x1FF0  # REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, _DIR, _REG, _SOCK, _FIFO, _BLOCK, _SYM
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_SCOPE_ABSTRACT_UNIX_SOCKET: Final = 1 << 0
_SCOPE_SIGNAL: Final = 1 << 1
_LOG_SAME_EXEC_OFF: Final = 1 << 0
_LOG_SUBDOMAINS_OFF: Final = 1 << 2

WRITE: Final = _WRITE_FILE | _TRUNCATE
"""To write to files that are there."""
CHANGE: Final = WRITE | _REMOVE_AND_MAKE | _REFER
"""To make, write, move and remove whatever there is."""

# struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped; landlock_path_beneath_attr is packed.
_RULESET: Final = struct.Struct("=QQQ")
_RULESET_BYTES_BEFORE_SCOPES: Final = 16
_BENEATH: Final = struct.Struct("=Qi")


def abi() -> int:
    """The version that this kernel has in force; 0 without Landlock."""
    try:
        return syscall("landlock_create_ruleset", None, 0, _VERSION)
    except OSError:
        return 0


def restrict_changes(places: Mapping[str, int], version: int) -> None:
    """From here on only `places` (directories, each with `WRITE` or `CHANGE`) and what is below them can be changed;
    where the kernel can do that, signals and abstract sockets of processes outside cannot be reached either.

    It can never be taken back. Descriptors that are open already are not affected. no_new_privs must be set.

    Args:
        version: what `abi` said, at least `OLDEST_ABI`.

    Raises:
        OSError: the kernel refused.
    """
    scoped = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL if version >= _SCOPES_ABI else 0
    size = _RULESET.size if version >= _SCOPES_ABI else _RULESET_BYTES_BEFORE_SCOPES
    attributes = ctypes.create_string_buffer(_RULESET.pack(CHANGE, 0, scoped), _RULESET.size)
    ruleset = syscall("landlock_create_ruleset", attributes, size, 0)
    try:
        for place, rights in places.items():
            _allow(ruleset, place, rights)
        # Refusals would be audit records of the machine: whoever is refused could flood its log.
        quiet = _LOG_SAME_EXEC_OFF | _LOG_SUBDOMAINS_OFF if version >= _LOGS_ABI else 0
        syscall("landlock_restrict_self", ruleset, quiet)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, place: str, rights: int) -> None:
    directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        rule = ctypes.create_string_buffer(_BENEATH.pack(rights, directory), _BENEATH.size)
        syscall("landlock_add_rule", ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(directory)
