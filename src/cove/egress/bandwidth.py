"""Keeping what a sandbox sends and gets below a rate: one budget for each way, shared by all its connections."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

BYTES_PER_MEGABIT: Final = 125_000
MOST_AT_ONCE: Final = 256 * 1024
_LEAST_AT_ONCE: Final = 4096
_PIECES_PER_SECOND: Final = 50
_BURST_SECONDS: Final = 0.1


class Budget:
    """Bytes that may be carried in one direction: a token bucket, for which those who want to carry stand in line.

    Whoever has its turn carries one piece at most, says how many bytes it was, and stands in line again: so each
    connection has the same share, and a short one never waits for the end of a long one. Without a rate there is no
    line and nothing is counted.

    Attributes:
        piece: the most bytes to carry in one turn.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rate: float | None = None
        self._burst = self._level = 0.0
        self._at = 0.0
        self._line: deque[Callable[[], None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.piece = MOST_AT_ONCE

    @property
    def is_limited(self) -> bool:
        """Whether there is a rate."""
        return self._rate is not None

    def limit(self, rate: float | None) -> None:
        """Bytes a second, from now on; None for as much as there is."""
        if rate == self._rate:
            return
        self._refill()
        was, self._rate = self._rate, rate
        if rate is None:
            self.piece = MOST_AT_ONCE
        else:
            self.piece = max(_LEAST_AT_ONCE, min(MOST_AT_ONCE, int(rate / _PIECES_PER_SECOND)))
            self._burst = max(float(self.piece), rate * _BURST_SECONDS)
            self._level = self._burst if was is None else min(self._level, self._burst)
            self._at = self._loop.time()
        self._serve()

    def has_turn(self) -> bool:
        """Whether a piece may be carried now."""
        if self._rate is None:
            return True
        self._refill()
        return self._level > 0 and not self._line

    def stand_in_line(self, turn: Callable[[], None]) -> None:
        """Call `turn` when it may carry a piece; it has to do so there and then."""
        self._line.append(turn)
        if self._timer is None:
            self._serve()

    def leave(self, turn: Callable[[], None]) -> None:
        """Not any more."""
        if turn in self._line:
            self._line.remove(turn)

    def spend(self, count: int) -> None:
        """So many bytes were carried."""
        if self._rate is not None:
            self._level -= count

    async def pace(self, count: int) -> None:
        """Wait until `count` bytes may be carried, and spend them."""
        while count > 0 and self._rate is not None:
            now = min(count, self.piece)
            if self.has_turn():
                self.spend(now)
            else:
                await self._turn(now)
            count -= now

    async def _turn(self, count: int) -> None:
        mine: asyncio.Future[None] = self._loop.create_future()

        def come() -> None:
            if not mine.done():
                self.spend(count)
                mine.set_result(None)

        self.stand_in_line(come)
        try:
            await mine
        finally:
            self.leave(come)

    def _refill(self) -> None:
        now = self._loop.time()
        if self._rate is not None:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now

    def _serve(self) -> None:
        """Let those come whose turn it is, and wait for the next one's."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._refill()
        while self._line and (self._rate is None or self._level > 0):
            self._line.popleft()()
        if self._line and self._rate is not None and self._timer is None:
            self._timer = self._loop.call_later(max(0.0, 1 - self._level) / self._rate, self._serve)


class Bandwidth:
    """Of one sandbox.

    Attributes:
        sent, received: of what its programs send, and get.
    """

    def __init__(self) -> None:
        self.sent, self.received = Budget(), Budget()

    def limit(self, megabits: int | None) -> None:
        """Million bits a second, each way; None for as much as there is."""
        rate = None if megabits is None else float(megabits * BYTES_PER_MEGABIT)
        self.sent.limit(rate)
        self.received.limit(rate)
