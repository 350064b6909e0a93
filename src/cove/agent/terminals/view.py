"""What one client sees of a terminal."""

import asyncio
import codecs
from collections.abc import Callable

MAX_WAITING_BYTES = 64 * 1024


class View:
    """Output that waits for one client. When it is full, the terminal is not read, and its programs wait.

    Attributes:
        news: set when there is something to do for whoever sends.
        displaced: another client has taken over.
    """

    def __init__(self, replay: bytes, on_room: Callable[[], None]) -> None:
        """`on_room` is called when there is room again."""
        self.news = asyncio.Event()
        self.displaced = False
        self._waiting = bytearray(replay)
        self._on_room = on_room
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if replay:
            self.news.set()

    @property
    def full(self) -> bool:
        """Whether no more should be shown now."""
        return len(self._waiting) >= MAX_WAITING_BYTES

    @property
    def empty(self) -> bool:
        """Whether everything was taken."""
        return not self._waiting

    def show(self, data: bytes) -> None:
        """Add output."""
        self._waiting += data
        self.news.set()

    def take(self) -> str:
        """All that waits, as text; a character that is not complete comes with the next part."""
        text = self._decoder.decode(bytes(self._waiting))
        self._waiting.clear()
        self._on_room()
        return text

    def displace(self) -> None:
        """Another client is shown the terminal now."""
        self.displaced = True
        self._waiting.clear()
        self.news.set()
