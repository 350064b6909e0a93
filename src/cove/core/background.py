"""Work that must go on when the request that began it has gone."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

import structlog

T = TypeVar("T")

_RESTART_SECONDS = 1.0


class Background:
    """Owns tasks: keeps them referenced, logs what fails in them, waits for them at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loops: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("cove.background")

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start `work`. A failure is logged unless someone awaits the task."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(
        self,
        work: Coroutine[Any, Any, T],
        *,
        name: str,
        abandoned: Callable[[T], Coroutine[Any, Any, Any]] | None = None,
    ) -> T:
        """Await `work`, which runs to its end even if the caller is cancelled.

        With `abandoned`, its result is given to that function in this case, so that nobody's result is undone.
        """
        task = self.spawn(work, name=name)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: self._left_alone(done, abandoned))
            raise

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> asyncio.Task[None]:
        """Start a loop that has to run as long as the server: a failure is logged and it starts again."""
        task = asyncio.create_task(self._keep(work, name), name=name)
        self._loops.add(task)
        return task

    async def close(self, *, grace_seconds: float) -> None:
        """End the loops, let tasks finish for a while, then cancel the rest."""
        await _cancel(self._loops, grace_seconds)
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_seconds
        while self._tasks and (left := end - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        await _cancel(self._tasks, grace_seconds)

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        while True:
            try:
                await work()
            except Exception:
                self._log.exception("loop_failed", loop=name)
            await asyncio.sleep(_RESTART_SECONDS)

    def _left_alone(self, task: asyncio.Task[T], abandoned: Callable[[T], Coroutine[Any, Any, Any]] | None) -> None:
        if task.cancelled():
            return
        failure = task.exception()
        if failure is not None:
            self._log.info("abandoned_work_failed", task=task.get_name(), error=str(failure))
        elif abandoned is not None:
            undo = self.spawn(abandoned(task.result()), name=f"undo {task.get_name()}")
            undo.add_done_callback(lambda done: self._left_alone(done, None))


async def _cancel(tasks: Collection[asyncio.Task[Any]], grace_seconds: float) -> None:
    doomed = list(tasks)
    for task in doomed:
        task.cancel()
    if doomed:
        await asyncio.wait(doomed, timeout=grace_seconds)
