"""Output of a program that is read while the program runs, and again after its end."""

import codecs
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from cove.agent.execution.output import Capture

TAIL_BYTES = 4096


class OutputBudget:
    """How many bytes of output all background programs together keep in the agent's memory."""

    def __init__(self, limit: int, reclaim: Callable[[], bool]) -> None:
        """`reclaim` frees something by calling `give`; it returns False when there is nothing to free."""
        self._left = limit
        self._reclaim = reclaim

    def take(self, wanted: int) -> int:
        """How much of `wanted` may be kept."""
        while self._left < wanted and self._reclaim():
            continue
        granted = min(wanted, max(self._left, 0))
        self._left -= granted
        return granted

    def give(self, count: int) -> None:
        """These bytes are kept no longer."""
        self._left += count


class Part(NamedTuple):
    """A part of a stream as text.

    Attributes:
        offset: byte position in the stream where it begins.
        next_offset: byte position where it ends.
    """

    text: str
    offset: int
    next_offset: int


class OutputLog(Capture):
    """A capture whose bytes can be read by their position in the stream.

    What the budget does not allow in memory is in the file from there on, like what is over the limit.
    """

    def __init__(
        self,
        limit: int,
        create_file: Callable[[], tuple[int, str] | None],
        *,
        budget: OutputBudget,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when there is something more to read."""
        super().__init__(limit, create_file)
        self._budget = budget
        self._changed = changed
        self._tail = b""
        self._closed = False

    @property
    def end(self) -> int:
        """Up to where the stream can be read; once it is closed, its very end."""
        return self.total if self._closed else max(len(self._kept), self._in_file)

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the stream."""
        wanted = max(0, min(len(chunk), self._limit - len(self._kept)))
        granted = self._budget.take(wanted)
        if granted < wanted:
            self._limit = len(self._kept) + granted
        super().write(chunk)
        self._tail = (self._tail + chunk[-TAIL_BYTES:])[-TAIL_BYTES:]
        self._changed()

    def note(self, line: str) -> None:
        """Add a line of ours at the end of the stream."""
        broken = self._tail and not self._tail.endswith(b"\n")
        self.write((("\n" if broken else "") + line + "\n").encode())

    def close(self) -> None:
        """Nothing is written any more."""
        self._closed = True
        self._close_file()
        self._changed()

    def forget(self) -> None:
        """Free the memory that it takes."""
        self._budget.give(len(self._kept))
        self._kept = bytearray()
        self._tail = b""

    def tail(self) -> str:
        """The last part of what was printed."""
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(self._tail, self._closed)
        return text.lstrip("\ufffd") if self.total > len(self._tail) else text

    def kept(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on of what is in memory, which is what the result will hold."""
        return bytes(self._kept[offset : offset + size])

    def read(self, offset: int, size: int) -> Part:
        """The next part from `offset` on, up to `size` bytes; it begins later when those bytes are not kept.

        A character is never cut: one that is not complete yet comes with the next part.
        """
        data = self.kept(offset, size) or self._read_file(offset, size)
        if not data:
            skipped = max(offset, self.end)
            return Part("", skipped, skipped)
        last = self._closed and offset + len(data) >= self.end
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data, last)
        rest = len(decoder.getstate()[0])
        if rest == len(data) and offset + len(data) >= self._stored:
            # What follows was not kept, so the character never becomes complete.
            text, rest = ("", rest) if self._may_grow else (decoder.decode(b"", True), 0)
        return Part(text, offset, offset + len(data) - rest)

    @property
    def _stored(self) -> int:
        return max(len(self._kept), self._in_file)

    @property
    def _may_grow(self) -> bool:
        return not self._closed and self._stored == self.total

    def _read_file(self, offset: int, size: int) -> bytes:
        size = min(size, self._in_file - offset)
        if size <= 0 or self._path is None:
            return b""
        if self._descriptor is not None:
            return os.pread(self._descriptor, size, offset)
        return _read_regular_file(self._path, offset, size)


def _read_regular_file(path: str, offset: int, size: int) -> bytes:
    """Programs can replace the file: whatever they put there, this neither follows nor waits."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, size, offset) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)
