"""One lock a key, held only while someone needs it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cove.models.errors import error


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class KeyedLocks:
    """Lets one caller a key go on at a time; waits are bounded, and keys no one uses take no memory."""

    def __init__(self, *, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._entries: dict[str, _Entry] = {}

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncGenerator[None]:
        """Hold the key's lock for the block.

        Raises:
            CoveError: TIMEOUT when another caller kept it too long.
        """
        entry = self._entries.setdefault(key, _Entry())
        entry.users += 1
        try:
            await self._acquire(key, entry.lock)
            try:
                yield
            finally:
                entry.lock.release()
        finally:
            entry.users -= 1
            if not entry.users:
                self._entries.pop(key, None)

    def is_held(self, key: str) -> bool:
        """Whether somebody holds the key's lock, or waits for it."""
        return key in self._entries

    async def _acquire(self, key: str, lock: asyncio.Lock) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await lock.acquire()
        except TimeoutError:
            raise error("TIMEOUT", f"Another request has been changing {key} for too long.") from None
