"""The claim of a server on its data directory: two of them would fight about its sandboxes."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

from cove.host.claims import claim, claimed_by
from cove.linux.clone import pid_of_pidfd
from cove.models.errors import CoveError, error

ON_DEMAND: Final = "on demand"
"""Role, in the lock file, of a server that an assistant started."""


@contextlib.contextmanager
def claim_server(data_dir: Path, *, role: str = "") -> Generator[None]:
    """Hold the data directory for the time of the block.

    Raises:
        CoveError: CONFLICT, with what to do about it.
    """
    path = data_dir / "run" / "server.lock"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(claim(path, who="server", role=role))
        except CoveError as problem:
            raise _taken_by_assistants(path) or problem from None
        yield


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
