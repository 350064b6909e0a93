"""Waiting, in an event loop, for a descriptor that is not a stream's."""

import asyncio
from collections.abc import Callable


async def readable(descriptor: int) -> None:
    """Return when there is something to read, or an end to be seen; of a pidfd, when its process has ended
    (pidfd_open(2)). Nobody else may wait for the same.
    """
    loop = asyncio.get_running_loop()
    await _ready(descriptor, loop.add_reader, loop.remove_reader)


async def writable(descriptor: int) -> None:
    """Return when there is room to write, or nobody left to take it. Nobody else may wait for the same."""
    loop = asyncio.get_running_loop()
    await _ready(descriptor, loop.add_writer, loop.remove_writer)


async def _ready(
    descriptor: int, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool]
) -> None:
    ready = asyncio.Event()
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)
