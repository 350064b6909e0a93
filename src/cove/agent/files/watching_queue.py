"""Changes on their way to a client that watches: bounded, without repetitions."""

import asyncio
import os
from collections import deque
from typing import Literal, NamedTuple

from cove.agent.clock import timestamp
from cove.agent.files.paths import shown
from cove.models.frames import ChangeFrame, OverflowFrame

MAX_CHANGES = 4096
Kind = Literal["created", "modified", "deleted", "renamed"]


class Change(NamedTuple):
    """Something happened to `path`; `old_path` is where it was before a rename."""

    path: bytes
    kind: Kind
    is_directory: bool = False
    old_path: bytes | None = None


class ChangeQueue:
    """At most `MAX_CHANGES` changes; what is more is dropped, and one `OverflowFrame` says so.

    A change is left out when the client will hear the same of the same path anyway: a file that is written to in a
    thousand pieces is modified once.

    Attributes:
        news: set when there is something to take, or nothing more will come.
    """

    def __init__(self, root: bytes) -> None:
        self.news = asyncio.Event()
        self._root = root
        self._waiting: deque[ChangeFrame | OverflowFrame] = deque()
        self._last: dict[str, Kind] = {}
        self._overflowed = False
        self._finished = False

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self._finished

    def put(self, change: Change) -> None:
        """Add a change, or drop it when the queue is full."""
        path = _text(change.path)
        last = self._last.get(path)
        if last == change.kind or (change.kind == "modified" and last == "created"):
            return
        if len(self._waiting) >= MAX_CHANGES:
            self.overflow()
            return
        if self._overflowed:
            return
        self._last[path] = change.kind
        old_path = None if change.old_path is None else _text(change.old_path)
        if old_path is not None:
            self._last[old_path] = "renamed"
        self._add(
            ChangeFrame(
                path=path,
                event=change.kind,
                timestamp=timestamp(),
                is_directory=change.is_directory,
                old_path=old_path,
            )
        )

    def overflow(self) -> None:
        """Changes were lost; none is taken until the client was told so."""
        if not self._overflowed:
            self._overflowed = True
            self._add(OverflowFrame(path=_text(self._root), timestamp=timestamp()))

    def finish(self) -> None:
        """Nothing more will come."""
        self._finished = True
        self.news.set()

    def take(self) -> ChangeFrame | OverflowFrame:
        """The oldest; there must be one."""
        frame = self._waiting.popleft()
        if isinstance(frame, OverflowFrame):
            self._overflowed = False
        else:
            self._forget(frame.path, frame.event)
            if frame.old_path is not None:
                self._forget(frame.old_path, "renamed")
        return frame

    def _forget(self, path: str, kind: Kind) -> None:
        if self._last.get(path) == kind:
            del self._last[path]

    def _add(self, frame: ChangeFrame | OverflowFrame) -> None:
        self._waiting.append(frame)
        self.news.set()


def _text(path: bytes) -> str:
    return shown(os.fsdecode(path))
