"""The file of the log of sandboxes' connections and look-ups: opened here, moved away when it is full, written by the
egress program, which may open none.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

from cove.models.errors import CoveError, error

MAX_BYTES: Final = 64 * 1024 * 1024


class EgressLogFile:
    """One file, and one that is full: `PATH.1`. Others may move it away, too (logrotate(8))."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        """Opens it.

        Raises:
            CoveError: INVALID_REQUEST.
        """
        self._path = path
        self.max_bytes = max_bytes
        try:
            self._file = _open(path)
        except OSError as problem:
            raise _unusable(path, problem) from problem

    @property
    def descriptor(self) -> int:
        """Of the file that is at the path, or was at the last `renew`."""
        return self._file

    def renew(self) -> bool:
        """Move a full one away, and open another one if there is none at the path; whether there is another one now.

        Raises:
            OSError: there is none; what was opened before is still written to.
        """
        if not self._is_there():
            self._reopen()
            return True
        if os.fstat(self._file).st_size <= self.max_bytes:
            return False
        self._path.rename(self._path.with_name(self._path.name + ".1"))
        self._reopen()
        return True

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)

    def _reopen(self) -> None:
        fresh = _open(self._path)
        os.close(self._file)
        self._file = fresh

    def _is_there(self) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._file), os.lstat(self._path))
        return False


def _open(path: Path) -> int:
    # Not waiting for whoever would read a pipe of that name; what is no regular file, the program refuses.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(path, flags, 0o600)


def _unusable(path: Path, problem: OSError) -> CoveError:
    return error(
        "INVALID_REQUEST",
        f"The log of sandboxes' connections cannot be written to {path}: {problem.strerror}.",
        remedy="COVE_EGRESS_LOG names a file, by an absolute path, in a directory that there is.",
    )
