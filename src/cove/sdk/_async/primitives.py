"""What blocking and asynchronous code do differently: waiting, local files, and what a create returns.

`cove.sdk._sync.primitives` has the same names. Both are written by hand.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, aclosing
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import httpx2

from cove.sdk._endpoint import async_transport as transport

__all__ = ["Creation", "Later", "TextCallback", "begin", "blocking", "raw_pieces", "tell", "transport", "wait"]

T = TypeVar("T")
P = ParamSpec("P")
Later = Coroutine[Any, Any, T]
"""What a method that has two forms returns in its awaitable one."""

TextCallback = Callable[[str], object]
"""Told of a piece of text; what it returns is awaited when it can be."""


async def wait(seconds: float) -> None:
    """Let others run for `seconds`."""
    await asyncio.sleep(seconds)


async def tell(callback: TextCallback | None, text: str) -> None:
    """Call `callback`, if there is one."""
    if callback is not None:
        told = callback(text)
        if inspect.isawaitable(told):
            await told


async def blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns, called in a thread: a slow disk must not stop the event loop."""
    return await asyncio.to_thread(function, *args, **kwargs)


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
