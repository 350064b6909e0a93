"""What blocking and asynchronous code do differently: waiting, local files, and what a create returns.

`cove.sdk._async.primitives` has the same names. Both are written by hand.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, ParamSpec, TypeVar

import httpx2

from cove.sdk._endpoint import transport

__all__ = ["Creation", "Later", "TextCallback", "begin", "blocking", "raw_pieces", "tell", "transport", "wait"]

T = TypeVar("T")
P = ParamSpec("P")
Later = Annotated[T, "here already"]
"""What a method that has two forms returns in its awaitable one."""

TextCallback = Callable[[str], object]
"""Told of a piece of text."""
Creation = Annotated[T, "made by the time it is returned"]


def wait(seconds: float) -> None:
    """Block for `seconds`."""
    time.sleep(seconds)


def tell(callback: TextCallback | None, text: str) -> None:
    """Call `callback`, if there is one."""
    if callback is not None:
        callback(text)


def blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns."""
    return function(*args, **kwargs)


@contextmanager
def raw_pieces(response: httpx2.Response) -> Generator[Iterator[bytes], None, None]:
    """The body as it comes off the wire, not decoded."""
    try:
        yield response.iter_raw()
    finally:
        response.close()


def begin(make: Callable[[], AbstractContextManager[T]]) -> T:
    """Make it now."""
    return make().__enter__()
