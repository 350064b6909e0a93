"""The claim of a server on its data directory: two of them would fight about its sandboxes."""

import contextlib
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from cove.host.claims import claim, claimed_by
from cove.linux.clone import pid_of_pidfd
from cove.models.errors import CoveError, error
from cove.server.local_address import living_server

ON_DEMAND: Final = "on demand"
"""Role, in the lock file, of a server that an assistant started."""
_PAUSE_SECONDS: Final = 0.02
_KILLED_SECONDS: Final = 1.0


@contextlib.contextmanager
def claim_server(data_dir: Path, *, role: str = "", wait_seconds: float = 0.0) -> Generator[int]:
    """Hold the data directory for the time of the block; yields what `claim` does.

    Args:
        wait_seconds: so long one may take to be gone that was killed, or whose supervisor is ending sandboxes. One that
            answers is not waited for.

    Raises:
        CoveError: CONFLICT, with what to do about it.
    """
    path = data_dir / "run" / "server.lock"
    with contextlib.ExitStack() as stack:
        yield _claimed(stack, path, role, wait_seconds)


def _claimed(stack: contextlib.ExitStack, path: Path, role: str, wait_seconds: float) -> int:
    last = time.monotonic() + wait_seconds
    soon = last - wait_seconds + _KILLED_SECONDS
    while True:
        try:
            return stack.enter_context(claim(path, who="server", role=role))
        except CoveError as problem:
            now = time.monotonic()
            answers = now > soon and living_server(path.parent.parent) is not None
            if now > last or answers or problem.code != "CONFLICT":
                raise _taken_by_assistants(path) or problem from None
        time.sleep(_PAUSE_SECONDS)


def _taken_by_assistants(lock: Path) -> CoveError | None:
    holder = claimed_by(lock, role=ON_DEMAND)
    if holder is None:
        return None
    pid = pid_of_pidfd(holder)
    os.close(holder)
    return error(
        "CONFLICT",
        f"Assistants use {lock.parent.parent}: `cove mcp` has started a server on it (process {pid}).",
        remedy="It ends some seconds after the last assistant has; or use another data directory (--data-dir)."
        f" `kill {pid}` ends it now, with the sandboxes of the assistants.",
    )
