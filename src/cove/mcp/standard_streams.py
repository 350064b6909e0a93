"""Standard input and output as the protocol's wire, out of reach for everything else in the process."""

import array
import fcntl
import os
import select
import termios
from collections.abc import Callable
from typing import Final

from cove.mcp.greeting import MAX_BYTES, greeting_for

_READ_BYTES: Final = 64 * 1024
_POLL_MILLISECONDS: Final = 20


class Wire:
    """The two descriptors, and what was read from the first already.

    Attributes:
        answered: the first message, if it has been answered; the library will answer it again.
    """

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self.held = b""
        self.answered: bytes | None = None
        self.ended = False

    def greet(self, *, until: Callable[[], bool], toolset: str = "all") -> None:
        """Answer the first message if it comes before `until` is true, and if it can be answered from plain data.
        What was read stays in `held`."""
        watch = select.poll()
        watch.register(self.source, select.POLLIN)
        while not until() and len(self.held) <= MAX_BYTES:
            if not watch.poll(_POLL_MILLISECONDS):
                continue
            piece = os.read(self.source, _READ_BYTES)
            self.held += piece
            if not piece:
                self.ended = True
                return
            if b"\n" in piece:
                self._answer_first(toolset)
                return

    @property
    def abandoned(self) -> bool:
        """Whether the client has gone, and nothing that it said is left to be served."""
        if self.ended:
            return not self.held
        watch = select.poll()
        watch.register(self.source, select.POLLRDHUP)
        if not watch.poll(0):
            return False
        unread = array.array("i", [0])
        try:
            fcntl.ioctl(self.source, termios.FIONREAD, unread)
        except OSError:  # a file, which has no other end
            return False
        return unread[0] == 0 and self.held in (b"", (self.answered or b"") + b"\n")

    def _answer_first(self, toolset: str) -> None:
        line = self.held.partition(b"\n")[0]
        greeting = greeting_for(line, toolset=toolset)
        if greeting is None:
            return
        self.answered = line
        while greeting:
            greeting = greeting[os.write(self.sink, greeting) :]


def claim_standard_streams() -> Wire:
    """Move the wire away: from now on descriptor 0 reads nothing, and what is printed goes to stderr."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Wire(source, sink)
