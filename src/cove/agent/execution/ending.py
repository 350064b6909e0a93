"""Ending a program for certain: SIGTERM to its whole tree, a short grace, SIGKILL to what is left of it."""

import asyncio
import signal
from collections.abc import Mapping

from cove.agent.execution.process_tree import (
    ProcessRecord,
    below,
    descendants,
    end_all_others,
    end_tree,
    listing_seconds,
    read_process,
    read_processes,
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
    known: dict[int, ProcessRecord] = {}
    try:
        known = {record.pid: record for record in descendants(pid, seconds=listing_seconds())}
        if grace:
            signal_all([root, *known.values()], signal.SIGTERM)
            known = await _watch_tree(root, ended, known, grace)
    except TimeoutError:
        end_all_others()
    if lives(root):
        await end_tree(pid)
    # When the root obeyed, its children went to another parent before they could be found below it.
    left = [record for record in known.values() if lives(record)]
    if left:
        signal_all(left, signal.SIGSTOP)
        await end_tree(*(record.pid for record in left))
    if ended is not None:
        await ends_within(ended, GRACE_SECONDS)


async def end_session(leader: int) -> None:
    """End what the program with the root process `leader`, which is no more, has left: the members of its session
    and all that is below them."""
    try:
        members = [
            record.pid for record in read_processes(seconds=listing_seconds()).values() if record.session == leader
        ]
    except TimeoutError:
        end_all_others()
        return
    if members:
        await end_tree(*members)


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
    """What belongs to the tree, when all of it has ended or `seconds` have passed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while loop.time() < deadline:
        await _pause(ended)
        table = read_processes(seconds=listing_seconds())
        if not any(_lives_in(table, record) for record in (root, *known.values())):
            break
        known |= {record.pid: record for record in below(table, [root.pid, *known])}
    return known


def _lives_in(table: Mapping[int, ProcessRecord], record: ProcessRecord) -> bool:
    current = table.get(record.pid)
    return current is not None and current.started == record.started and current.state not in "ZX"


async def _pause(ended: "asyncio.Future[int] | None") -> None:
    if ended is None or ended.done():
        await asyncio.sleep(_POLL_SECONDS)
    else:
        await ends_within(ended, _POLL_SECONDS)
