"""What blocking and asynchronous code do differently: waiting, local files, and what a create returns.

`cove.sdk._async.primitives` has the same names. Both are written by hand.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, BinaryIO, TypeVar

import httpx2

from cove.sdk._endpoint import transport

__all__ = ["Creation", "begin", "raw_pieces", "read_piece", "transport", "wait", "write_piece"]

T = TypeVar("T")
Creation = Annotated[T, "made by the time it is returned"]


def wait(seconds: float) -> None:
    """Block for `seconds`."""
    time.sleep(seconds)


def read_piece(file: BinaryIO, size: int) -> bytes:
    """At most `size` bytes."""
    return file.read(size)


def write_piece(file: BinaryIO, data: bytes) -> None:
    """All of `data`."""
    file.write(data)


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
