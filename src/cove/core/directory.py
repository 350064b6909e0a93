"""Which sandboxes run, and where their agents listen: the one thing that the data path asks for."""

from pathlib import Path

from cove.models.hosts import SandboxRecord


class LiveDirectory:
    """Implements `AgentDirectory` in memory. It is filled by creates and adoptions, and emptied by ends."""

    def __init__(self) -> None:
        self._sockets: dict[str, Path] = {}

    def add(self, record: SandboxRecord) -> None:
        """Note a sandbox that runs. Idempotent."""
        self._sockets[record.sandbox_id] = Path(record.socket_path)

    def remove(self, sandbox_id: str) -> None:
        """Forget a sandbox: from now on nobody is let through to it. Idempotent."""
        self._sockets.pop(sandbox_id, None)

    def socket_of(self, sandbox_id: str) -> Path | None:
        """Unix socket of the sandbox's agent, or None when no such sandbox runs."""
        return self._sockets.get(sandbox_id)

    def ids(self) -> frozenset[str]:
        """Every sandbox that is noted."""
        return frozenset(self._sockets)

    def __len__(self) -> int:
        return len(self._sockets)
