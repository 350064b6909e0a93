"""Which sandboxes there are, and where their agents listen: the one thing that the data path asks for."""

import asyncio
import contextlib
from collections import OrderedDict
from pathlib import Path
from typing import Final, NamedTuple

from cove.models.hosts import HostState, SandboxRecord
from cove.models.previews import PreviewTerms
from cove.models.sandboxes import SandboxStatus

STATUS = {
    HostState.RUNNING: SandboxStatus.RUNNING,
    HostState.PAUSED: SandboxStatus.PAUSED,
    HostState.STOPPED: SandboxStatus.STOPPED,
}
"""What a host's word about a sandbox means; the dead have none."""


_ENDS_REMEMBERED: Final = 256


class _Entry(NamedTuple):
    socket: Path
    status: SandboxStatus
    previews: PreviewTerms


class LiveDirectory:
    """Implements `AgentDirectory` and `SandboxEnds` in memory. Creates and adoptions fill it, ends empty it.

    A sandbox that is paused or stopped is in it, but nobody is let through to it: a connection would hang.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._limits: OrderedDict[str, str] = OrderedDict()
        self._awaited: dict[str, asyncio.Event] = {}

    def add(self, record: SandboxRecord, previews: PreviewTerms) -> None:
        """Note a sandbox as the host describes it, and what holds for its previews. Idempotent."""
        self._entries[record.sandbox_id] = _entry(record, previews)

    def set_status(self, sandbox_id: str, status: SandboxStatus) -> None:
        """Note that a sandbox changes its state; unknown ones stay unknown."""
        entry = self._entries.get(sandbox_id)
        if entry is not None:
            self._entries[sandbox_id] = entry._replace(status=status)

    def set_previews(self, sandbox_id: str, previews: PreviewTerms) -> None:
        """Note what holds for a sandbox's previews from now on; unknown ones stay unknown."""
        entry = self._entries.get(sandbox_id)
        if entry is not None:
            self._entries[sandbox_id] = entry._replace(previews=previews)

    def remove(self, sandbox_id: str) -> None:
        """Forget a sandbox: from now on nobody is let through to it. Idempotent."""
        self._entries.pop(sandbox_id, None)
        awaited = self._awaited.pop(sandbox_id, None)
        if awaited is not None:
            awaited.set()

    def note_limit(self, sandbox_id: str, limit: str) -> None:
        """A sandbox has ended, or is about to, because of a limit."""
        self._limits[sandbox_id] = limit
        while len(self._limits) > _ENDS_REMEMBERED:
            self._limits.popitem(last=False)

    async def wait_ended(self, sandbox_id: str, seconds: float) -> None:
        """See `SandboxEnds`."""
        if sandbox_id in self._entries:
            ended = self._awaited.setdefault(sandbox_id, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await ended.wait()

    def limit_that_ended(self, sandbox_id: str) -> str:
        """See `SandboxEnds`."""
        return self._limits.get(sandbox_id, "")

    def socket_of(self, sandbox_id: str) -> Path | None:
        """Unix socket of the sandbox's agent, or None when no such sandbox runs."""
        entry = self._entries.get(sandbox_id)
        return entry.socket if entry is not None and entry.status is SandboxStatus.RUNNING else None

    def socket_path(self, sandbox_id: str) -> Path | None:
        """The same also while it does not run: for whoever lets it run."""
        entry = self._entries.get(sandbox_id)
        return None if entry is None else entry.socket

    def state_of(self, sandbox_id: str) -> SandboxStatus | None:
        """The state of a sandbox, or None when there is no such sandbox (any more)."""
        entry = self._entries.get(sandbox_id)
        return None if entry is None else entry.status

    def previews_of(self, sandbox_id: str) -> PreviewTerms | None:
        """What holds for the previews of a sandbox, or None when there is no such sandbox (any more)."""
        entry = self._entries.get(sandbox_id)
        return None if entry is None else entry.previews

    def agrees(self, record: SandboxRecord, previews: PreviewTerms) -> bool:
        """Whether the sandbox is noted exactly as the host and the store describe it."""
        return self._entries.get(record.sandbox_id) == _entry(record, previews)

    def ids(self) -> frozenset[str]:
        """Every sandbox that is noted."""
        return frozenset(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _entry(record: SandboxRecord, previews: PreviewTerms) -> _Entry:
    return _Entry(Path(record.socket_path), STATUS[record.state], previews)
