"""Ending a program for certain: SIGTERM to its whole tree, a short grace, SIGKILL to what is left of it."""

import asyncio
import signal

from cove.agent.execution.process_tree import (
    ProcessRecord,
    descendants,
    end_tree,
    read_process,
    send_signal,
    signal_all,
)

GRACE_SECONDS = 0.3
_POLL_SECONDS = 0.02


async def end_program(pid: int, *, grace: float, ended: "asyncio.Future[int] | None" = None) -> None:
    """End `pid` and all that is below it, within about `grace` + 1 s; does nothing when it has ended.

    Args:
        grace: seconds between SIGTERM and SIGKILL; with 0 there is no SIGTERM.
        ended: done when `pid` was reaped, for a child of this process: its pid is then no longer its own.
    """
    root = None if ended is not None and ended.done() else read_process(pid)
    if root is None:
        return
    known = {record.pid: record for record in descendants(pid)}
    if grace:
        signal_all([root, *known.values()], signal.SIGTERM)
        known = await _watch_tree(root, ended, known, grace)
    if lives(root):
        await end_tree(pid)
    # When the root obeyed, its children went to another parent before they could be found below it.
    for record in known.values():
        if lives(record):
            send_signal(record, signal.SIGSTOP)
            await end_tree(record.pid)
    if ended is not None:
        await ends_within(ended, GRACE_SECONDS)


def lives(record: ProcessRecord) -> bool:
    """Whether exactly this process still runs."""
    current = read_process(record.pid)
    return current is not None and current.started == record.started and current.state not in "ZX"


async def ends_within(ended: "asyncio.Future[int]", seconds: float) -> bool:
    """Whether `ended` is done, `seconds` from now at the latest."""
    if ended.done():
        return True
    await asyncio.wait([ended], timeout=seconds)
    return ended.done()


async def _watch_tree(
    root: ProcessRecord, ended: "asyncio.Future[int] | None", known: dict[int, ProcessRecord], seconds: float
) -> dict[int, ProcessRecord]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while loop.time() < deadline:
        await _pause(ended)
        if not lives(root) and not any(map(lives, known.values())):
            break
        for parent in [root.pid, *known]:
            known |= {record.pid: record for record in descendants(parent)}
    return known


async def _pause(ended: "asyncio.Future[int] | None") -> None:
    if ended is None or ended.done():
        await asyncio.sleep(_POLL_SECONDS)
    else:
        await ends_within(ended, _POLL_SECONDS)
