"""The output of one program on its way to the client of a WebSocket."""

import asyncio
import codecs
from collections.abc import Callable

from cove.agent.clock import timestamp
from cove.agent.http.websocket import WebSocket
from cove.agent.http.websocket_frames import encoded
from cove.models.frames import OutputFrame

MAX_WAITING_BYTES = 256 * 1024
# As JSON at most six times as long: clients exist that take messages of less than 1 MiB only.
MAX_FRAME_BYTES = 128 * 1024


class StreamedOutput:
    """What was printed and not sent yet: one text a stream, so that many small pieces become few frames.

    An `OutputFlow`: while `MAX_WAITING_BYTES` wait for the client, the program has to wait too.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[bytes]] = {}
        self._size = 0
        self._resume: list[Callable[[], None]] = []
        self._decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in ("stdout", "stderr")}
        self._last_character: dict[str, str] = {}
        self._news = asyncio.Event()
        self._ended = False
        self._discarding = False

    @property
    def full(self) -> bool:
        """Whether the program has to wait."""
        return self._size >= MAX_WAITING_BYTES

    def take(self, stream: str, piece: bytes) -> None:
        """A piece of output."""
        if not self._discarding:
            self._waiting.setdefault(stream, []).append(piece)
            self._size += len(piece)
            self._news.set()

    def when_room(self, resume: Callable[[], None]) -> None:
        """Call `resume` when the client has taken some."""
        self._resume.append(resume)

    def end(self) -> None:
        """No more pieces will come."""
        self._ended = True
        self._news.set()

    def discard(self) -> None:
        """Nobody wants more; the program need not wait to be ended."""
        self._discarding = True
        self._waiting.clear()
        self._shrink(self._size)

    async def send(self, socket: WebSocket) -> None:
        """Send what comes, until the end.

        Raises:
            Disconnected: the client has gone.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await socket.send_latest(self._next)
            if self._ended:
                break
        for stream in self._decoders:
            await socket.send_latest(lambda stream=stream: self._frame(stream, b"", final=True))

    async def send_notes(self, socket: WebSocket, stream: str, text: str) -> None:
        """Send what is said of the program, in lines of its own behind the output."""
        if text and self._last_character.get(stream, "\n") != "\n":
            text = "\n" + text
        if text:
            await socket.send(_message(stream, text))

    def has_sent(self, stream: str) -> bool:
        """Whether the program has printed something there."""
        return stream in self._last_character

    def _next(self) -> bytes:
        """The next message: of the stream that has waited longest."""
        if not self._waiting:
            return b""
        stream, pieces = next(iter(self._waiting.items()))
        data = b"".join(pieces)
        del self._waiting[stream]
        if len(data) > MAX_FRAME_BYTES:
            self._waiting[stream] = [data[MAX_FRAME_BYTES:]]
            data = data[:MAX_FRAME_BYTES]
        self._shrink(len(data))
        return self._frame(stream, data)

    def _frame(self, stream: str, data: bytes, *, final: bool = False) -> bytes:
        text = self._decoders[stream].decode(data, final)
        if not text:
            return b""
        self._last_character[stream] = text[-1]
        return _message(stream, text)

    def _shrink(self, size: int) -> None:
        self._size -= size
        if not self.full:
            waiting, self._resume = self._resume, []
            for resume in waiting:
                resume()


def _message(stream: str, text: str) -> bytes:
    return encoded(OutputFrame.model_validate({"type": stream, "data": text, "timestamp": timestamp()}))
