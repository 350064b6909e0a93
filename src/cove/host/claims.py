"""Who has a data directory: at most one program of each kind, told apart from the dead by the kernel (flock(2))."""

import contextlib
import fcntl
import json
import os
from collections.abc import Generator
from pathlib import Path

from cove.linux.clone import open_process, start_time_of
from cove.models.errors import error


@contextlib.contextmanager
def claim(path: Path, *, who: str, role: str = "") -> Generator[int]:
    """Hold the lock file at `path` for the time of the block; the kernel lets go of it when this process dies.

    Args:
        who: for the message to whoever comes second, for example `host daemon`.
        role: noted in the file, for `claimed_by`.

    Yields:
        The descriptor that holds it: a process that is given it holds the file as well.

    Raises:
        CoveError: CONFLICT when another process has it.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(path, "a+", encoding="ascii", opener=owners_only) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise error(
                "CONFLICT",
                f"Another {who} runs on {path.parent.parent}.",
                remedy="Stop it, or use another data directory (--data-dir).",
            ) from None
        lock.truncate(0)
        lock.write(json.dumps({"pid": os.getpid(), "started": start_time_of(os.getpid()), "role": role}))
        lock.flush()
        yield lock.fileno()


def owners_only(path: str, flags: int) -> int:
    """An `opener` of lock files: whoever can open one can hold it (flock(2)), and so keep its owner from starting."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def claimed_by(path: Path, *, role: str) -> int | None:
    """A pidfd of the living process that claimed `path` in that role, or None."""
    try:
        note = json.loads(path.read_text(encoding="ascii"))
        return open_process(int(note["pid"]), int(note["started"])) if note["role"] == role else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
