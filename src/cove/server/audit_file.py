"""The audit log as lines of JSON in a file, or on standard output.

It follows the store, so that it has what other processes write there too (`cove keys`), and remembers how far it has
got: what cannot be written now is written later, also by the next server.
"""

import asyncio
import json
import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from cove.core.storage import Store
from cove.models.errors import CoveError
from cove.models.stored import StoredEvent
from cove.server.api.audit import entry_of
from cove.server.metrics import Metrics

STANDARD_OUTPUT: Final = "-"
_EVERY_SECONDS: Final = 0.5
_SAY_AGAIN_SECONDS: Final = 60.0
_BATCH: Final = 1000
_PIECE_BYTES: Final = 4096
_PATIENCE_MILLISECONDS: Final = 2000


class AuditFile:
    """Appends each entry of the store to a file.

    Args:
        target: the file's path, or `-`.
        position: where to remember which entry was the last one.
    """

    def __init__(self, store: Store, metrics: Metrics, *, target: str, position: Path) -> None:
        self._store = store
        self._metrics = metrics
        self._out = _Output(target)
        self._target = target
        self._position = position
        self._last: int | None = None
        self._said = float("-inf")
        self._log = structlog.get_logger("cove.audit")

    async def run(self) -> None:
        """Write what is new, until cancelled."""
        while True:
            await self.catch_up()
            await asyncio.sleep(_EVERY_SECONDS)

    async def catch_up(self) -> None:
        """Write all that is new. A failure is said in the log, counted, and mended by the next call."""
        try:
            last = self._last
            if last is None:
                last = await asyncio.to_thread(self._remembered)
            while events := await self._after(last):
                await asyncio.to_thread(self._append, events)
                last = events[-1].id or last
                self._last = last
        except (OSError, CoveError) as failure:
            self._metrics.audit_file_failed()
            now = asyncio.get_running_loop().time()
            if now - self._said >= _SAY_AGAIN_SECONDS:
                self._said = now
                self._log.error("audit_file_not_written", path=self._target, error=str(failure))

    def close(self) -> None:
        """Close the file."""
        self._out.close()

    async def _after(self, last: int) -> tuple[StoredEvent, ...]:
        return await self._store.read(lambda work: work.events.after(last, limit=_BATCH))

    def _append(self, events: tuple[StoredEvent, ...]) -> None:
        self._out.write(b"".join(_line(event) for event in events))
        text = json.dumps({"path": self._target, "id": events[-1].id})
        self._position.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = self._position.with_suffix(".new")
        fresh.write_text(text, encoding="ascii")
        fresh.chmod(0o600)
        fresh.replace(self._position)

    def _remembered(self) -> int:
        """The last entry that is in this file; 0 for a file that was never written."""
        try:
            found = json.loads(self._position.read_text(encoding="ascii"))
            return int(found["id"]) if found["path"] == self._target else 0
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError) as failure:
            self._log.error("audit_position_lost", path=str(self._position), error=str(failure))
            return 0


class _Output:
    """Where lines go. The file is opened anew when another one is at its path: after it was rotated."""

    def __init__(self, target: str) -> None:
        self._path = None if target == STANDARD_OUTPUT else Path(target)
        self._file: int | None = None
        self._torn = False

    def write(self, lines: bytes) -> None:
        """Append whole lines; OSError, also when nobody reads a pipe any more."""
        file = self._opened()
        left = memoryview(b"\n" + lines if self._torn else lines)
        try:
            while left:
                self._torn = True
                left = left[_write_some(file, left) :]
        except OSError:
            self.close()
            raise
        self._torn = False

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, None
        if file is not None and self._path is not None:
            os.close(file)

    def _opened(self) -> int:
        if self._path is None:
            return sys.stdout.fileno()
        if self._file is not None and _same(self._file, self._path):
            return self._file
        self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._file = os.open(self._path, flags, 0o600)
        return self._file


def _same(file: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(file), os.lstat(path))
    return False


def _write_some(file: int, data: memoryview) -> int:
    """Never longer than a moment: a pipe that nobody reads has no room."""
    ready = select.poll()
    ready.register(file, select.POLLOUT)
    if not ready.poll(_PATIENCE_MILLISECONDS):
        raise TimeoutError("nobody reads what is written there")
    return os.write(file, data[:_PIECE_BYTES])


def _line(event: StoredEvent) -> bytes:
    return json.dumps(entry_of(event).model_dump(mode="json"), ensure_ascii=True).encode() + b"\n"
