"""The output of one program on its way to the client of a WebSocket."""

import asyncio
import codecs

from cove.agent.clock import timestamp
from cove.agent.http.websocket import WebSocket
from cove.agent.http.websocket_frames import encoded
from cove.models.frames import OutputFrame

# As JSON at most six times as long: clients exist that take messages of less than 1 MiB only.
MAX_FRAME_CHARACTERS = 128 * 1024


class StreamedOutput:
    """What was printed and not sent yet: one text a stream, so that many small pieces become few frames.

    Holds at most what the engine keeps of both streams.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[bytes]] = {}
        self._texts = {"stdout": _Text(), "stderr": _Text()}
        self._news = asyncio.Event()
        self._ended = False

    def take(self, stream: str, piece: bytes) -> None:
        """A piece of output. An `OutputListener`."""
        self._waiting.setdefault(stream, []).append(piece)
        self._news.set()

    def end(self) -> None:
        """No more pieces will come."""
        self._ended = True
        self._news.set()

    async def send(self, socket: WebSocket) -> None:
        """Send what comes, until the end.

        Raises:
            Disconnected: the client has gone.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await socket.send_latest(self._frame)
            if self._ended:
                return

    async def send_rest(self, socket: WebSocket, stream: str, whole: str) -> None:
        """Send what of `whole`, the stream as the result has it, was not sent: notes, marks of truncation."""
        rest = self._texts[stream].missing_of(whole)
        for start in range(0, len(rest), MAX_FRAME_CHARACTERS):
            await socket.send(_frame(stream, rest[start : start + MAX_FRAME_CHARACTERS]))

    def _frame(self) -> bytes:
        """The next frame: of the stream that has waited longest."""
        stream, pieces = next(iter(self._waiting.items()))
        data = b"".join(pieces)
        del self._waiting[stream]
        if len(data) > MAX_FRAME_CHARACTERS:
            self._waiting[stream] = [data[MAX_FRAME_CHARACTERS:]]
        text = self._texts[stream].feed(data[:MAX_FRAME_CHARACTERS])
        return _frame(stream, text) if text else b""


class _Text:
    """One stream as text, however its bytes are cut."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def feed(self, piece: bytes) -> str:
        """The text that `piece` completes."""
        text = self._decoder.decode(piece)
        self._characters += len(text)
        return text

    def missing_of(self, whole: str) -> str:
        """What of `whole` was not said yet."""
        return whole[self._characters :]


def _frame(stream: str, text: str) -> bytes:
    return encoded(OutputFrame.model_validate({"type": stream, "data": text, "timestamp": timestamp()}))
