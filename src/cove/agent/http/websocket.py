"""One WebSocket: whole text messages in both directions, paced, with bounded buffers (RFC 6455, contract §4.4)."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SEND_EOF, Protocol, Side, State

from cove.models.frames import MAX_FRAME_BYTES, PACE_SECONDS

MAX_QUEUED_MESSAGES = 64
MAX_QUEUED_BYTES = 1024 * 1024
CLOSE_SECONDS = 5.0
ANSWER_SECONDS = 0.02
"""How long the next message waits for the client to have read the one before. See `WebSocket.send`."""
_SLICE_BYTES = 16 * 1024
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_log = logging.getLogger("cove.agent.websocket")
# Nothing of it is of use: what a client does wrong is told to the client.
_log.setLevel(logging.CRITICAL)


class Disconnected(Exception):
    """The connection has ended, or is ending: nothing more can be sent or received."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """How clients that are gone are noticed.

    Attributes:
        ping_seconds: between two pings. Who has sent nothing at all from one to the next is gone.
        stall_seconds: how long a client may take no byte of what waits for it.
    """

    ping_seconds: float = 20.0
    stall_seconds: float = 300.0


class WebSocket(asyncio.Protocol):
    """The server's end of an open WebSocket, for one task that receives and any number that send.

    Messages that nobody takes stop the reading, and what the client does not read stops the senders: neither is kept
    in memory. While it is stopped so, a client is not expected to answer pings.
    """

    def __init__(
        self, transport: asyncio.Transport, *, liveness: Liveness, on_lost: Callable[["WebSocket"], None]
    ) -> None:
        """`transport` is handed over; call `start` when the handshake was answered on it."""
        self.transport = transport
        self._protocol = Protocol(Side.SERVER, max_size=MAX_FRAME_BYTES, logger=_log)
        self._loop = asyncio.get_running_loop()
        self._liveness = liveness
        self._on_lost = on_lost
        self._parts: list[bytes] = []
        self._binary = False
        self._messages: deque[str] = deque()
        self._queued = 0
        self._unparsed = b""
        self._paused = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._turn = asyncio.Lock()
        self._sent = 0
        self._sent_at = 0.0
        self._answered = asyncio.Event()
        self._answered.set()
        self._stalled_at = 0.0
        self._heard = True
        self._closing = False
        self._ticking: asyncio.TimerHandle | None = None

    def start(self, received: bytes) -> None:
        """Begin to read; `received` came behind the handshake already."""
        self.transport.set_protocol(self)
        self._ticking = self._loop.call_later(self._liveness.ping_seconds, self._tick)
        if received:
            self.data_received(received)

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return self._protocol.state is State.OPEN and not self._lost.is_set()

    # --- for the handlers

    async def receive(self) -> str:
        """The next message; a binary one is read as text, and dropped when it is none.

        Raises:
            Disconnected: there will be no more.
        """
        while not self._messages:
            if not self.open:
                raise Disconnected
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._queued -= len(message)
        self._parse(b"")
        return message

    async def wait_lost(self) -> None:
        """Return when the connection is gone, for those who do not receive meanwhile."""
        await self._lost.wait()

    async def send(self, message: bytes, *, patience: float = ANSWER_SECONDS) -> None:
        """Send one message when the client can take it.

        A client exists that loses messages that it reads together (contract §4.4). So a ping goes with each, and the
        next one waits for the answer: `patience` seconds at most, and `PACE_SECONDS` in any case.

        Raises:
            Disconnected: it cannot be sent.
        """
        await self.send_latest(lambda: message, patience=patience)

    async def send_latest(self, produce: Callable[[], bytes], *, patience: float = ANSWER_SECONDS) -> None:
        """Like `send`, with a message that is made when its turn has come; nothing is sent when it is empty."""
        async with self._turn:
            await self._wait_for_turn(patience)
            message = produce()
            if message:
                self._protocol.send_text(message)
                self._sent += 1
                self._protocol.send_ping(b"%d" % self._sent)
                self._answered.clear()
                self._flush()
                self._sent_at = self._loop.time()

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close after what was sent; returns when the client has confirmed it, or did not in time."""
        try:
            async with self._turn:
                await self._wait_for_turn(ANSWER_SECONDS)
                self._begin_close(code, reason)
        except Disconnected:
            self.transport.abort()
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._lost.wait()
        except TimeoutError:
            # What it has not read yet it still may; pings end it when it does not.
            self.transport.close()

    def shutdown(self) -> None:
        """The server ends: say so, without waiting."""
        if self.open:
            self._begin_close(CloseCode.GOING_AWAY, "")

    # --- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        self._heard = True
        self._parse(data)

    def eof_received(self) -> None:
        """The client sends no more: a WebSocket is not used in one direction only."""
        self._protocol.receive_eof()
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Both directions are closed."""
        self._end()
        if self._ticking is not None:
            self._ticking.cancel()
        self._on_lost(self)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        self._stalled_at = self._loop.time()
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has read."""
        self._heard = True
        self._writable.set()

    # --- inside

    async def _wait_for_turn(self, patience: float) -> None:
        while True:
            await self._writable.wait()
            if not self.open:
                raise Disconnected
            elapsed = self._loop.time() - self._sent_at
            if not self._answered.is_set() and elapsed < patience:
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience - elapsed):
                        await self._answered.wait()
            elif elapsed < PACE_SECONDS:
                await asyncio.sleep(PACE_SECONDS - elapsed)
            else:
                return

    def _parse(self, data: bytes) -> None:
        self._unparsed += data
        while self._unparsed and not self._full():
            piece, self._unparsed = self._unparsed[:_SLICE_BYTES], self._unparsed[_SLICE_BYTES:]
            self._protocol.receive_data(piece)
            for event in self._protocol.events_received():
                if not isinstance(event, Frame):
                    continue
                if event.opcode in _DATA:
                    self._take(event)
                elif event.opcode is Opcode.PONG and event.data == b"%d" % self._sent:
                    self._answered.set()
            self._flush()
            if not self.open:
                self._unparsed = b""
        self._steer()

    def _full(self) -> bool:
        return self.open and (len(self._messages) >= MAX_QUEUED_MESSAGES or self._queued >= MAX_QUEUED_BYTES)

    def _steer(self) -> None:
        full = self._full()
        if full == self._paused or self._lost.is_set():
            return
        self._paused = full
        if full:
            self.transport.pause_reading()
        else:
            self._heard = True
            self.transport.resume_reading()

    def _take(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._binary = frame.opcode is Opcode.BINARY
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        data = b"".join(self._parts)
        self._parts.clear()
        if self._closing:
            return
        try:
            message = data.decode("utf-8")
        except UnicodeDecodeError:
            if not self._binary:
                self._protocol.fail(CloseCode.INVALID_DATA, "not UTF-8")
            return
        self._messages.append(message)
        self._queued += len(message)
        self._arrived.set()

    def _begin_close(self, code: int, reason: str) -> None:
        self._protocol.send_close(code, reason)
        self._closing = True
        self._messages.clear()
        self._queued = 0
        self._flush()
        self._parse(b"")
        self._arrived.set()

    def _flush(self) -> None:
        pieces = self._protocol.data_to_send()
        data = b"".join(pieces)
        if data:
            self.transport.write(data)
        if SEND_EOF in pieces:
            self.transport.close()
        if not self.open:
            # What has come is still received; then the connection counts as ended.
            self._arrived.set()
            self._writable.set()
            self._answered.set()

    def _end(self) -> None:
        self._lost.set()
        self._arrived.set()
        self._writable.set()
        self._answered.set()
        self._unparsed = b""
        self._parts.clear()

    def _tick(self) -> None:
        """Look whether the client is still there, and ask it for a sign of life."""
        waits_for_us = self._paused or not self._writable.is_set()
        stalled = not self._writable.is_set() and self._loop.time() - self._stalled_at > self._liveness.stall_seconds
        if stalled or not (self._heard or waits_for_us):
            if self.open:
                self._protocol.fail(CloseCode.INTERNAL_ERROR, "no answer to a ping")
                self._flush()
            self.transport.abort()
            return
        self._heard = False
        if self.open and self._writable.is_set():
            self._protocol.send_ping(b"")
            self._flush()
        self._ticking = self._loop.call_later(self._liveness.ping_seconds, self._tick)
