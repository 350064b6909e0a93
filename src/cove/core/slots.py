"""A few at a time for each key, so that one key's slow work leaves room for the others'."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Entry:
    slots: asyncio.Semaphore
    users: int = 0


class KeyedSlots:
    """Lets `size` callers a key go on at a time, in the order they came; keys no one uses take no memory."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[str, _Entry] = {}

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncGenerator[None]:
        """Hold one of the key's slots for the block."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(asyncio.Semaphore(self._size))
        entry.users += 1
        try:
            async with entry.slots:
                yield
        finally:
            entry.users -= 1
            if not entry.users:
                self._entries.pop(key, None)
