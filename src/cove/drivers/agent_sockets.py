"""The unix sockets by which agents are reached: one file a sandbox, on the host."""

import os
import socket
from collections.abc import Container
from pathlib import Path
from typing import Final

from cove.models.errors import error

_BACKLOG: Final = 128
_LONGEST_PATH: Final = 107  # unix(7)


class AgentSockets:
    """Those of one driver, in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make_directory(self) -> None:
        """Idempotent."""
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)

    def path(self, sandbox_id: str) -> Path:
        """Where a sandbox's agent listens.

        Raises:
            CoveError: SANDBOX_START_FAILED: the path is too long.
        """
        path = self._file(sandbox_id)
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise error(
                "SANDBOX_START_FAILED",
                f"The path {path} is too long for a unix socket.",
                remedy="Choose a shorter data directory (--data-dir).",
            )
        return path

    def listen(self, sandbox_id: str) -> socket.socket:
        """A socket that clients can connect to before the agent runs; a sandbox gets it as a descriptor, never a
        directory of the host's.

        Raises:
            CoveError: SANDBOX_START_FAILED.
        """
        path = self.path(sandbox_id)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            listener.listen(_BACKLOG)
        except OSError as problem:
            listener.close()
            raise error("SANDBOX_START_FAILED", f"Cannot listen at {path}: {problem.strerror}.") from problem
        return listener

    def remove(self, sandbox_id: str) -> None:
        """Idempotent."""
        self._file(sandbox_id).unlink(missing_ok=True)

    def sweep(self, *known: Container[str]) -> None:
        """Remove those of sandboxes that are in none of `known`."""
        for path in self._directory.glob("*.sock"):
            if not any(path.stem in some for some in known):
                path.unlink(missing_ok=True)

    def _file(self, sandbox_id: str) -> Path:
        return self._directory / f"{sandbox_id}.sock"
