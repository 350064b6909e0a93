"""When sandboxes end: one timer that is always set to the next deadline."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable

import structlog

from cove.core.clock import Clock
from cove.models.errors import CoveError

_LONGEST_WAIT_SECONDS = 30.0
"""The wall clock may be set; looking again this often bounds the harm."""

_AGAIN_SECONDS = 1.0
_AT_ONCE = 16


class Deadlines:
    """Deadlines in memory. They are persisted in the store, from where the reconciler fills this again at start."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, str]] = []
        self._current: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._log = structlog.get_logger("cove.deadlines")

    def schedule(self, sandbox_id: str, deadline: float | None) -> None:
        """Set, move or (None) drop the deadline of a sandbox."""
        if deadline is None:
            self.forget(sandbox_id)
            return
        if self._current.get(sandbox_id) == deadline:
            return
        self._current[sandbox_id] = deadline
        heapq.heappush(self._heap, (deadline, sandbox_id))
        self._compact()
        if self._heap[0] == (deadline, sandbox_id):
            self._wake.set()

    def forget(self, sandbox_id: str) -> None:
        """Drop the deadline of a sandbox. Idempotent."""
        self._current.pop(sandbox_id, None)

    def due(self) -> list[str]:
        """Take out the sandboxes whose deadline has come."""
        now = self._clock()
        found: list[str] = []
        while self._heap and (self._stale(self._heap[0]) or self._heap[0][0] <= now):
            entry = heapq.heappop(self._heap)
            if not self._stale(entry):
                del self._current[entry[1]]
                found.append(entry[1])
        return found

    async def run(self, expire: Callable[[str], Awaitable[None]]) -> None:
        """Call `expire` for each sandbox when its time has come, until cancelled; again later when it fails."""
        turns = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                for sandbox_id in self.due():
                    group.create_task(self._expire(sandbox_id, expire, turns))
                await self._wait()

    async def _expire(
        self, sandbox_id: str, expire: Callable[[str], Awaitable[None]], turns: asyncio.Semaphore
    ) -> None:
        try:
            async with turns:
                await expire(sandbox_id)
        except CoveError as failure:
            self._log.warning("expiry_failed", sandbox_id=sandbox_id, error=str(failure))
            self.schedule(sandbox_id, self._clock() + _AGAIN_SECONDS)

    async def _wait(self) -> None:
        self._wake.clear()
        wait = self._heap[0][0] - self._clock() if self._heap else _LONGEST_WAIT_SECONDS
        try:
            async with asyncio.timeout(min(max(wait, 0.0), _LONGEST_WAIT_SECONDS)):
                await self._wake.wait()
        except TimeoutError:
            return

    def _stale(self, entry: tuple[float, str]) -> bool:
        return self._current.get(entry[1]) != entry[0]

    def _compact(self) -> None:
        """Deadlines that were moved stay in the heap until their time; never more of them than of current ones."""
        if len(self._heap) > 64 + 2 * len(self._current):
            self._heap = [(deadline, sandbox_id) for sandbox_id, deadline in self._current.items()]
            heapq.heapify(self._heap)
