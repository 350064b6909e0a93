"""One small task for each open execution: it takes step after step until the webhook is settled.

All that counts is in the store. A task that dies with the server is begun again by the next one, from the row.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import structlog

from cove.core.background import Background
from cove.core.program_steps import ProgramSteps
from cove.core.storage import Store, UnitOfWork
from cove.core.webhook_deliveries import WebhookDeliveries
from cove.models.async_executions import DeliveryState
from cove.models.errors import CoveError
from cove.models.stored import StoredExecution

T = TypeVar("T")

_GRACE_SECONDS = 5.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_AFTER_BUG_SECONDS = 60.0
_LONGEST_NAP = 600.0
_OPEN = frozenset({DeliveryState.WAITING, DeliveryState.PENDING})


class PacedStore:
    """A store of which many tasks ask only a few things at a time, so that requests find it free."""

    def __init__(self, store: Store, *, at_once: int = 8) -> None:
        self._store = store
        self._slots = asyncio.Semaphore(at_once)

    async def write(self, work: Callable[[UnitOfWork], T]) -> T:
        """As `Store.write`."""
        async with self._slots:
            return await self._store.write(work)

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """As `Store.read`."""
        async with self._slots:
            return await self._store.read(work)


class ExecutionLoop:
    """Follows open executions."""

    def __init__(
        self, store: Store, *, programs: ProgramSteps, deliveries: WebhookDeliveries, background: Background
    ) -> None:
        self._store = store
        self._programs = programs
        self._deliveries = deliveries
        self._background = background
        self._wakes: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("cove.executions")

    async def start(self) -> None:
        """Go on with all that an earlier server left open.

        Raises:
            CoveError: STORE_UNAVAILABLE.
        """
        for execution_id in await self._store.read(lambda work: work.executions.open_ids()):
            self.follow(execution_id)

    async def stop(self) -> None:
        """Let go of all; attempts that are being made may finish for a while."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=_GRACE_SECONDS)
        await self._background.close(grace_seconds=_GRACE_SECONDS)

    def follow(self, execution_id: str) -> None:
        """Take an execution to its end, or make haste with one that is followed already."""
        wake = self._wakes.get(execution_id)
        if wake is not None:
            wake.set()
            return
        wake = self._wakes[execution_id] = asyncio.Event()
        task = asyncio.create_task(self._follow(execution_id, wake), name=f"execution {execution_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, execution_id: str, wake: asyncio.Event) -> None:
        failures = 0
        try:
            while True:
                wake.clear()
                try:
                    pause = await self._advance(execution_id)
                    failures = 0
                except CoveError as failure:
                    failures += 1
                    pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures, 10))
                    self._log.debug("execution_step_failed", execution_id=execution_id, error=str(failure))
                except Exception:
                    pause = _AFTER_BUG_SECONDS
                    self._log.exception("execution_step_broke", execution_id=execution_id)
                if pause is None and not wake.is_set():
                    return
                await _nap(wake, pause or 0.0)
        finally:
            del self._wakes[execution_id]

    async def _advance(self, execution_id: str) -> float | None:
        """One step; seconds until the next one, None when there is none."""
        row = await self._store.read(lambda work: work.executions.get(execution_id))
        if row is None or row.delivery not in _OPEN:
            return None
        return await self._step(row)

    async def _step(self, row: StoredExecution) -> float:
        if row.delivery is DeliveryState.WAITING:
            return await self._programs.step(row)
        return await self._deliveries.step(row)


async def _nap(wake: asyncio.Event, seconds: float) -> None:
    if seconds <= 0:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(min(seconds, _LONGEST_NAP)):
            await wake.wait()
