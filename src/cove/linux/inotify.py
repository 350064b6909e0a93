"""Watching directories: inotify(7)."""

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

from cove.linux.calls import last_error

IN_MODIFY: Final = 0x2
IN_ATTRIB: Final = 0x4
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800
IN_UNMOUNT: Final = 0x2000
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_ONLYDIR: Final = 0x1000000
IN_DONT_FOLLOW: Final = 0x2000000
IN_EXCL_UNLINK: Final = 0x4000000
IN_ISDIR: Final = 0x40000000

_HEADER: Final = struct.Struct("iIII")
_READ_BYTES: Final = 64 * 1024
_libc: Final = ctypes.PyDLL(None, use_errno=True)


class Event(NamedTuple):
    """One event.

    Attributes:
        watch: descriptor of the watch; -1 when the kernel's queue was full.
        mask: the bits `IN_...`.
        cookie: the same number in both halves of a rename.
        name: of the entry of the watched directory; empty for the directory itself.
    """

    watch: int
    mask: int
    cookie: int
    name: bytes


class Inotify:
    """An inotify instance whose descriptor does not block."""

    def __init__(self) -> None:
        """Raises OSError: EMFILE, there are too many of this user's."""
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise last_error("inotify_init1")

    def fileno(self) -> int:
        """The descriptor: readable when there are events."""
        return self._descriptor

    def add(self, path: bytes, mask: int) -> int:
        """Watch `path`; the same number comes back for a directory that is watched already.

        Raises:
            OSError: the path; or ENOSPC, the user's limit of watches.
        """
        watch = _libc.inotify_add_watch(self._descriptor, path, ctypes.c_uint32(mask))
        if watch < 0:
            raise last_error("inotify_add_watch")
        return watch

    def remove(self, watch: int) -> None:
        """Watch no longer; does nothing when the kernel has removed it already."""
        _libc.inotify_rm_watch(self._descriptor, watch)

    def read(self) -> list[Event]:
        """The events that are there, at most 64 KiB of them; empty when there are none.

        Raises:
            OSError: the descriptor is broken.
        """
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except OSError as problem:
            if problem.errno in (errno.EAGAIN, errno.EINTR):
                return []
            raise
        return _parse(data)

    def close(self) -> None:
        """Remove all watches."""
        os.close(self._descriptor)


def _parse(data: bytes) -> list[Event]:
    events: list[Event] = []
    offset = 0
    while offset < len(data):
        watch, mask, cookie, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        events.append(Event(watch, mask, cookie, data[offset : offset + length].rstrip(b"\0")))
        offset += length
    return events
