"""Files on the caller's machine."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cove.models.errors import error

PIECE_BYTES = 256 * 1024

Progress = Callable[[int], object]
"""Told how many bytes were transferred so far. It must be quick: the transfer waits for it."""


def report(progress: Progress | None, done: int) -> None:
    """Tell `progress`, if there is one."""
    if progress is not None:
        progress(done)


def open_regular(path: str | os.PathLike[str]) -> tuple[BinaryIO, int]:
    """The file at `path`, open for reading, and its size in bytes. A FIFO or device is refused, and never waited for.

    Raises:
        OSError: it cannot be opened.
        InvalidRequest: it is not a regular file.
    """
    # O_NONBLOCK: open(2) of a FIFO would otherwise wait for a writer. It has no effect on regular files.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise error("INVALID_PATH", f"{os.fspath(path)} is not a regular file.")
    return os.fdopen(descriptor, "rb"), status.st_size


def mode_for(target: Path) -> int:
    """The mode for a file that takes the place of `target`: that of the old one, else the usual one."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        return 0o644
