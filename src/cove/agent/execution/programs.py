"""Running one program to its end: Bash, compiled Go, commands."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

from cove.agent.execution.ending import GRACE_SECONDS, end_program, ends_within
from cove.agent.execution.outcomes import TIMEOUT_EXIT_CODE, Outcome, Recording, Started, timeout_note
from cove.agent.execution.pipes import Pipes
from cove.agent.execution.reaper import Reaper
from cove.agent.execution.spawning import Invocation, spawn


class Programs:
    """Starts programs, waits for them, and ends the whole tree of those that take too long."""

    def __init__(self, reaper: Reaper, pipes: Pipes) -> None:
        self._reaper = reaper
        self._pipes = pipes
        self._running: dict[int, asyncio.Future[int]] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def run(
        self,
        invocation: Invocation,
        recording: Recording,
        *,
        timeout: float,
        limit: float,
        on_start: Started | None = None,
    ) -> Outcome:
        """Run to the end, or `timeout` seconds; when the caller is cancelled, the program's tree is ended too.

        What the program leaves running in the background after a normal end goes on living.

        Args:
            timeout: seconds left for this program.
            limit: seconds to name in the note of a timeout.
            on_start: told of the process once it is there.

        Raises:
            LimitExceeded: no process can be started.
        """
        stdout, stdout_end = self._pipes.open(recording.stdout)
        stderr, stderr_end = self._pipes.open(recording.stderr)
        try:
            pid = spawn(invocation, stdout=stdout_end, stderr=stderr_end)
            ended = self._running[pid] = self._reaper.watch(pid)
            ended.add_done_callback(lambda _: self._running.pop(pid, None))
            if on_start is not None:
                on_start(pid, ended)
        finally:
            os.close(stdout_end)
            os.close(stderr_end)
        try:
            timed_out = not await ends_within(ended, timeout)
            if timed_out:
                await self._shielded(end_program(pid, ended=ended, grace=GRACE_SECONDS))
        except asyncio.CancelledError:
            await self._shielded(end_program(pid, ended=ended, grace=0))
            raise
        finally:
            self._pipes.release(stdout)
            self._pipes.release(stderr)
        if timed_out:
            return Outcome(TIMEOUT_EXIT_CODE, pid, timed_out=True, notes=(timeout_note(limit),))
        return Outcome(ended.result(), pid)

    async def close(self) -> None:
        """End all programs that still run."""
        for pid, ended in list(self._running.items()):
            await end_program(pid, ended=ended, grace=0)

    async def _shielded(self, ending: Coroutine[Any, Any, None]) -> None:
        # A second cancellation may end the wait, never the killing.
        task = asyncio.ensure_future(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        await asyncio.shield(task)
