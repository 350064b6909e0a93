"""Running one program to its end: Bash, compiled Go, commands."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any

from cove.agent.execution.outcomes import TIMEOUT_EXIT_CODE, Outcome, Recording, timeout_note
from cove.agent.execution.pipes import Pipes
from cove.agent.execution.process_tree import (
    ProcessRecord,
    descendants,
    end_tree,
    read_process,
    send_signal,
    signal_all,
)
from cove.agent.execution.reaper import Reaper
from cove.agent.execution.spawning import Invocation, spawn

GRACE_SECONDS = 0.3
_POLL_SECONDS = 0.02


class Programs:
    """Starts programs, waits for them, and ends the whole tree of those that take too long."""

    def __init__(self, reaper: Reaper, pipes: Pipes) -> None:
        self._reaper = reaper
        self._pipes = pipes
        self._running: dict[int, asyncio.Future[int]] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def run(self, invocation: Invocation, recording: Recording, *, timeout: float, limit: float) -> Outcome:
        """Run to the end, or `timeout` seconds; when the caller is cancelled, the program's tree is ended too.

        What the program leaves running in the background after a normal end goes on living.

        Args:
            timeout: seconds left for this program.
            limit: seconds to name in the note of a timeout.

        Raises:
            LimitExceeded: no process can be started.
        """
        stdout, stdout_end = self._pipes.open(recording.stdout)
        stderr, stderr_end = self._pipes.open(recording.stderr)
        try:
            pid = spawn(invocation, stdout=stdout_end, stderr=stderr_end)
            ended = self._running[pid] = self._reaper.watch(pid)
            ended.add_done_callback(lambda _: self._running.pop(pid, None))
        finally:
            os.close(stdout_end)
            os.close(stderr_end)
        try:
            timed_out = not await _ends_within(ended, timeout)
            if timed_out:
                await self._shielded(self._end(pid, ended, grace=GRACE_SECONDS))
        except asyncio.CancelledError:
            await self._shielded(self._end(pid, ended, grace=0))
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
            await self._end(pid, ended, grace=0)

    async def _shielded(self, ending: Coroutine[Any, Any, None]) -> None:
        # A second cancellation may end the wait, never the killing.
        task = asyncio.ensure_future(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        await asyncio.shield(task)

    async def _end(self, pid: int, ended: "asyncio.Future[int]", *, grace: float) -> None:
        root = None if ended.done() else read_process(pid)
        if root is None:
            return
        known = {record.pid: record for record in descendants(pid)}
        if grace:
            signal_all([root, *known.values()], signal.SIGTERM)
            known = await _watch_descendants(pid, ended, known, grace)
        await end_tree(pid)
        # When the root obeyed, its children went to another parent before they could be found below it.
        for record in known.values():
            await _end_stray(record)
        await _ends_within(ended, GRACE_SECONDS)


async def _watch_descendants(
    pid: int, ended: "asyncio.Future[int]", known: dict[int, ProcessRecord], seconds: float
) -> dict[int, ProcessRecord]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while loop.time() < deadline:
        if await _ends_within(ended, _POLL_SECONDS) and not any(map(_lives, known.values())):
            break
        for parent in [pid, *known]:
            known |= {record.pid: record for record in descendants(parent)}
    return known


async def _end_stray(record: ProcessRecord) -> None:
    if _lives(record):
        send_signal(record, signal.SIGSTOP)
        await end_tree(record.pid)


def _lives(record: ProcessRecord) -> bool:
    current = read_process(record.pid)
    return current is not None and current.started == record.started and current.state not in "ZX"


async def _ends_within(ended: "asyncio.Future[int]", seconds: float) -> bool:
    if ended.done():
        return True
    await asyncio.wait([ended], timeout=seconds)
    return ended.done()
