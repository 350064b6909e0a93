"""What blocking and asynchronous code do differently: waiting, local files, and what a create returns.

`cove.sdk._sync.primitives` has the same names. Both are written by hand.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, aclosing
from types import TracebackType
from typing import BinaryIO, Generic, TypeVar

import httpx2

from cove.sdk._endpoint import async_transport as transport

__all__ = ["Creation", "begin", "raw_pieces", "read_piece", "transport", "wait", "write_piece"]

T = TypeVar("T")


async def wait(seconds: float) -> None:
    """Let others run for `seconds`."""
    await asyncio.sleep(seconds)


async def read_piece(file: BinaryIO, size: int) -> bytes:
    """At most `size` bytes, read in a thread: a slow disk must not stop the event loop."""
    return await asyncio.to_thread(file.read, size)


async def write_piece(file: BinaryIO, data: bytes) -> None:
    """All of `data`, written in a thread."""
    await asyncio.to_thread(file.write, data)


def raw_pieces(response: httpx2.Response) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
    """The body as it comes off the wire, not decoded."""
    return aclosing(response.aiter_raw())


class Creation(Generic[T]):
    """A thing to be made: `await` it to have it, or `async with` it to have it for a while."""

    def __init__(self, make: Callable[[], Awaitable[AbstractAsyncContextManager[T]]]) -> None:
        self._make = make
        self._made: AbstractAsyncContextManager[T] | None = None

    def __await__(self) -> Generator[None, None, T]:
        return self._enter().__await__()

    async def __aenter__(self) -> T:
        return await self._enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._made is not None:
            await self._made.__aexit__(kind, raised, trace)

    async def _enter(self) -> T:
        self._made = await self._make()
        return await self._made.__aenter__()


def begin(make: Callable[[], Awaitable[AbstractAsyncContextManager[T]]]) -> Creation[T]:
    """Nothing happens before the caller awaits or enters what this returns."""
    return Creation(make)
