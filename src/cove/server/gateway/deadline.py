"""A deadline that is cheap to move: connections move theirs with every read."""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `expired` once the time last set has passed.

    The loop's timer is left alone when the deadline moves back, and looks again when it fires.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at = 0.0
        self._fires_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Expire `seconds` from now, whatever was set before."""
        self._at = self._loop.time() + seconds
        if self._timer is not None and self._at < self._fires_at:
            self.cancel()
        if self._timer is None:
            self._schedule()

    def cancel(self) -> None:
        """Never expire."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._fires_at = self._at
        self._timer = self._loop.call_at(self._at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._loop.time() < self._at - 0.001:
            self._schedule()
        else:
            self._expired()
