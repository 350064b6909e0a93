"""Carrying the bytes of a connection from one socket to the other, inside the kernel (splice(2)).

No byte is copied into this program. Each direction borrows a pipe only while it has bytes under way, so that an idle
connection holds two sockets and nothing else.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from typing import Final

from cove.egress.bandwidth import MOST_AT_ONCE, Bandwidth, Budget

PIPE_BYTES: Final = MOST_AT_ONCE
_SPLICE: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if hasattr(os, "SPLICE_F_MOVE") else 0
_IDLE_PIPES: Final = 64
STILL_SECONDS: Final = 120.0


class Pipes:
    """Pipes that wait to be borrowed."""

    def __init__(self) -> None:
        self._idle: list[tuple[int, int]] = []

    def borrow(self) -> tuple[int, int]:
        """Reading and writing end of an empty pipe."""
        if self._idle:
            return self._idle.pop()
        ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # an ordinary user has used up what he may have in pipes
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return ends

    def give_back(self, ends: tuple[int, int], *, is_empty: bool) -> None:
        """Take a pipe back; one that holds bytes is closed."""
        if is_empty and len(self._idle) < _IDLE_PIPES:
            self._idle.append(ends)
        else:
            for end in ends:
                os.close(end)

    def close(self) -> None:
        """Close those that wait."""
        while self._idle:
            self.give_back(self._idle.pop(), is_empty=False)


class Direction:
    """Bytes from `source` to `target`, until `source` ends or either of them breaks."""

    def __init__(
        self,
        source: socket.socket,
        target: socket.socket,
        pipes: Pipes,
        *,
        budget: Budget,
        count: Callable[[int], None],
        ended: Callable[[OSError | None], None],
        most: int | None = None,
    ) -> None:
        """
        Args:
            budget: of the sandbox, for this direction.
            count: told of the bytes that were read.
            ended: called once: with None when all was passed on and `target` was told of the end; or `most` was.
            most: bytes to carry, and then no more.
        """
        self._loop = asyncio.get_running_loop()
        self._source, self._target = source.fileno(), target.fileno()
        self._target_socket = target
        self._pipes = pipes
        self._pipe: tuple[int, int] | None = None
        self._inside = 0
        self._budget = budget
        self._count = count
        self._ended = ended
        self._left = most
        self._reading = False
        self._over = False

    def start(self) -> None:
        """Begin; to be called once."""
        self._read_on()

    def stop(self) -> None:
        """End without a word."""
        if not self._over:
            self._over = True
            self._read_no_more()
            self._loop.remove_writer(self._target)
            if self._budget.is_limited:
                self._budget.leave(self._take)
            self._release()

    def _read_on(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._source, self._readable)

    def _read_no_more(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._source)

    def _readable(self) -> None:
        if self._budget.has_turn():
            self._take()
        else:
            self._read_no_more()
            self._budget.stand_in_line(self._take)

    def _take(self) -> None:
        try:
            pipe = self._pipe = self._pipe or self._pipes.borrow()
            piece = self._budget.piece if self._left is None else min(self._left, self._budget.piece)
            taken = os.splice(self._source, pipe[1], piece, flags=_SPLICE)
        except BlockingIOError:
            self._release()
            self._read_on()
            return
        except OSError as problem:
            self._finish(problem)
            return
        if taken == 0:
            self._release()
            self._read_no_more()
            self._end_target()
            return
        self._inside += taken
        if self._left is not None:
            self._left -= taken
        self._budget.spend(taken)
        self._count(taken)
        self._write(pipe)

    def _write(self, pipe: tuple[int, int]) -> None:
        try:
            while self._inside:
                self._inside -= os.splice(pipe[0], self._target, self._inside, flags=_SPLICE)
        except BlockingIOError:
            self._read_no_more()
            self._loop.add_writer(self._target, self._writable)
        except OSError as problem:
            self._finish(problem)
        else:
            self._release()
            if self._left == 0:
                self._finish(None)
            else:
                self._read_on()

    def _writable(self) -> None:
        self._loop.remove_writer(self._target)
        if self._pipe:
            self._write(self._pipe)

    def _release(self) -> None:
        if self._pipe:
            self._pipes.give_back(self._pipe, is_empty=self._inside == 0)
            self._pipe = None

    def _end_target(self) -> None:
        try:
            self._target_socket.shutdown(socket.SHUT_WR)
        except OSError as problem:
            self._finish(None if problem.errno == errno.ENOTCONN else problem)
        else:
            self._finish(None)

    def _finish(self, problem: OSError | None) -> None:
        if not self._over:
            self.stop()
            self._ended(problem)


async def carry_some(
    source: socket.socket,
    target: socket.socket,
    pipes: Pipes,
    *,
    most: int,
    budget: Budget,
    count: Callable[[int], None],
) -> int:
    """Carry `most` bytes one way; fewer when `source` ends before, of which `target` is told; how many it were.

    Args:
        count: told of them.

    Raises:
        OSError: the connection broke, on either side, or has stood still for `STILL_SECONDS`.
    """
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    carried = 0

    def counted(taken: int) -> None:
        nonlocal carried
        carried += taken
        count(taken)

    def ended(problem: OSError | None) -> None:
        if problem is not None:
            done.set_exception(problem)
        else:
            done.set_result(None)

    direction = Direction(source, target, pipes, budget=budget, count=counted, ended=ended, most=most)
    direction.start()
    try:
        while not done.done():
            before = carried
            await asyncio.wait({done}, timeout=STILL_SECONDS)
            if carried == before and not done.done():
                raise TimeoutError(errno.ETIMEDOUT, "nothing has moved for too long")
        await done
    finally:
        direction.stop()
    return carried


async def carry(
    inside: socket.socket,
    outside: socket.socket,
    pipes: Pipes,
    *,
    bandwidth: Bandwidth,
    sent: Callable[[int], None],
    received: Callable[[int], None],
) -> None:
    """Carry both directions until both have ended, or one has broken.

    Args:
        bandwidth: of the sandbox.
        sent, received: told of the bytes that the program in the sandbox has sent, and gets; see `Direction`.

    Raises:
        OSError: the connection broke, on either side.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    open_directions = 2

    def ended(problem: OSError | None) -> None:
        nonlocal open_directions
        open_directions -= 1
        if done.done():
            return
        if problem is not None:
            done.set_exception(problem)
        elif open_directions == 0:
            done.set_result(None)

    directions = (
        Direction(inside, outside, pipes, budget=bandwidth.sent, count=sent, ended=ended),
        Direction(outside, inside, pipes, budget=bandwidth.received, count=received, ended=ended),
    )
    try:
        for direction in directions:
            direction.start()
        await done
    finally:
        for direction in directions:
            direction.stop()
