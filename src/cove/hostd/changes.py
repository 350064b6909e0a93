"""Which sandboxes ended by themselves, for a control plane that wants to know at once."""

import asyncio
import secrets
from collections import deque
from typing import Final

from cove.models.hosts import HostChanges

LONGEST_WAIT_SECONDS: Final = 60.0
_KEPT: Final = 1024


class ChangeLog:
    """The last endings, under rising numbers. After a restart it starts anew, which every reader is told."""

    def __init__(self) -> None:
        self._epoch = secrets.token_hex(8)
        self._last = 0
        self._ended: deque[tuple[str, str]] = deque(maxlen=_KEPT)
        self._news = asyncio.Event()

    def note(self, sandbox_id: str, reason: str = "") -> None:
        """A sandbox has ended by itself; `reason`: the limit that it ran into, if that is known."""
        self._ended.append((sandbox_id, reason))
        self._last += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    def reason_of(self, sandbox_id: str) -> str:
        """The limit that one of them ran into; empty when that is not known (any more)."""
        return next((reason for name, reason in reversed(self._ended) if name == sandbox_id), "")

    async def since(self, cursor: str, seconds: float) -> HostChanges:
        """What ended since `cursor` (empty: from now on); waits for something, bounded."""
        seen = self._number_in(cursor)
        if seen is None:
            return self._answer((), complete=False)
        if seen == self._last:
            await self._wait(min(seconds, LONGEST_WAIT_SECONDS))
        missed = self._last - seen
        kept = list(self._ended)[-missed:] if missed else []
        return self._answer(tuple(kept), complete=missed <= _KEPT)

    def _number_in(self, cursor: str) -> int | None:
        epoch, _, number = cursor.partition(".")
        known = epoch == self._epoch and number.isdecimal() and len(number) < 20
        return int(number) if known and int(number) <= self._last else None

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def _answer(self, ended: tuple[tuple[str, str], ...], *, complete: bool) -> HostChanges:
        return HostChanges(
            cursor=f"{self._epoch}.{self._last}",
            ended=tuple(name for name, _ in ended),
            complete=complete,
            reasons={name: reason for name, reason in ended if reason},
        )
