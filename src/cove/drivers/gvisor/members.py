"""Sandboxes that are not born yet: restored from their template's checkpoint, waiting to be told who they are.

A restore takes 200 to 400 ms, a birth some milliseconds: a few members are kept ready for each template that is warm.
They end when the host daemon does, since they wait at the end of a pipe of its.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from cove.drivers.gvisor.bundle import Box
from cove.drivers.gvisor.pipes import GuestPipes
from cove.drivers.kits import Kit
from cove.models.errors import CoveError
from cove.models.limits import Limits
from cove.models.templates import TemplateManifest

_QUIET_SECONDS: Final = 0.2
_SHELVES: Final = 4


@dataclass
class Member:
    """One unborn sandbox.

    Attributes:
        slot: its user ids.
        pidfd: of its kernel; -1 before that runs.
        reopened: its disk and its user ids are those of a stopped sandbox, and stay when it goes.
        lifeline: the write end of a pipe; the sandbox ends when it is closed. -1: nothing waits for that.
    """

    box: Box
    kit: Kit
    slot: int
    pipes: GuestPipes
    pidfd: int = -1
    reopened: bool = False
    lifeline: int = -1


Make = Callable[[TemplateManifest, Limits], Awaitable[Member]]
Discard = Callable[[Member], Awaitable[None]]


@dataclass
class _Shelf:
    """Ready members of one template with one set of limits."""

    template: TemplateManifest
    limits: Limits
    ready: deque[Member] = field(default_factory=deque[Member])


class MemberShelves:
    """Keeps `size` members ready for each of the few templates that were asked for last."""

    def __init__(self, make: Make, discard: Discard, *, size: int) -> None:
        self._make = make
        self._discard = discard
        self._size = size
        self._shelves: dict[str, _Shelf] = {}
        self._outdated: deque[Member] = deque()
        self._refilling: asyncio.Task[None] | None = None
        self._taken_at = 0.0
        self._closed = False

    def take(self, template: TemplateManifest, limits: Limits) -> Member | None:
        """A ready member, if there is one; the next is made in the background."""
        self._taken_at = asyncio.get_running_loop().time()
        shelf = self._shelves.get(template.name)
        fits = shelf is not None and (shelf.template.digest, shelf.limits) == (template.digest, limits)
        member = shelf.ready.popleft() if shelf and fits and shelf.ready else None
        self.want(template, limits)
        return member

    def want(self, template: TemplateManifest, limits: Limits) -> None:
        """Have members made in the background; those that were made for an older wish are given up."""
        if not self._size or self._closed:
            return
        shelf = self._shelves.pop(template.name, None)
        if shelf is None or (shelf.template.digest, shelf.limits) != (template.digest, limits):
            self._outdated.extend(shelf.ready if shelf else ())
            shelf = _Shelf(template, limits)
        self._shelves[template.name] = shelf  # the last is the newest
        while len(self._shelves) > _SHELVES:
            self._outdated.extend(self._shelves.pop(next(iter(self._shelves))).ready)
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.ensure_future(self._refill())

    def names(self) -> set[str]:
        """Kits of the members."""
        ready = (member for shelf in self._shelves.values() for member in shelf.ready)
        return {member.kit.name for member in (*ready, *self._outdated)}

    async def close(self) -> None:
        """End all members. Idempotent."""
        self._closed = True
        if self._refilling:
            self._refilling.cancel()
            await asyncio.gather(self._refilling, return_exceptions=True)
        self._outdated.extend(member for shelf in self._shelves.values() for member in shelf.ready)
        self._shelves.clear()
        while self._outdated:
            await self._discard(self._outdated.popleft())

    async def _refill(self) -> None:
        """One at a time, and only when no sandbox was started for a moment, so that starts are not slowed down."""
        with contextlib.suppress(CoveError):  # the next `create` says what is wrong
            while True:
                await self._quiet()
                while self._outdated:
                    await self._discard(self._outdated.popleft())
                short = next((shelf for shelf in self._shelves.values() if len(shelf.ready) < self._size), None)
                if short is None:
                    return
                member = await self._make(short.template, short.limits)
                if self._shelves.get(short.template.name) is short:
                    short.ready.append(member)
                else:
                    self._outdated.append(member)

    async def _quiet(self) -> None:
        loop = asyncio.get_running_loop()
        while (quiet := loop.time() - self._taken_at) < _QUIET_SECONDS:  # noqa: ASYNC110 (a time, not an event)
            await asyncio.sleep(_QUIET_SECONDS - quiet)
