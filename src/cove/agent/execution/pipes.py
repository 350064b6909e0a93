"""Reading the pipes of programs without ever blocking them or waiting for them."""

import array
import asyncio
import fcntl
import os
import termios
from collections import deque

from cove.agent.execution.output import Capture

READ_BYTES = 64 * 1024
READS_PER_TURN = 8
MAX_LEFTOVER = 256


class PipeReader:
    """Drains one pipe as long as someone may write to it.

    Attributes:
        open: the end of the stream was not reached yet.
    """

    def __init__(self, descriptor: int, sink: Capture | None) -> None:
        self.open = True
        self._sink = sink
        self._paused = False
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._on_readable)

    @property
    def sink(self) -> Capture | None:
        """Gets the bytes; with None they are discarded. While it is full, nothing is read."""
        return self._sink

    @sink.setter
    def sink(self, sink: Capture | None) -> None:
        self._sink = sink
        self._resume()

    def drain(self) -> None:
        """Read what is in the pipe now; what is written later does not count."""
        waiting = self._waiting_bytes()
        while self.open:
            read = self._read()
            waiting -= read
            if waiting <= 0 and read < READ_BYTES:
                # One read more than needed finds the end of the stream, if it is there.
                self._read_end()
                return

    def close(self) -> None:
        """Stop reading; writers get EPIPE from now on."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def _on_readable(self) -> None:
        for _ in range(READS_PER_TURN):
            read = self._read()
            if self.open and self._sink is not None and self._sink.full:
                self._pause(self._sink)
                return
            if not self.open or read < READ_BYTES:
                return

    def _pause(self, sink: Capture) -> None:
        self._paused = True
        self._loop.remove_reader(self._descriptor)
        sink.when_room(self._resume)

    def _resume(self) -> None:
        if self._paused and self.open:
            self._loop.add_reader(self._descriptor, self._on_readable)
        self._paused = False

    def _read(self) -> int:
        try:
            chunk = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            chunk = b""
        if not chunk:
            self.close()
        elif self._sink is not None:
            self._sink.write(chunk)
        return len(chunk)

    def _read_end(self) -> None:
        if self.open and self._waiting_bytes() == 0:
            self._read()

    def _waiting_bytes(self) -> int:
        if not self.open:
            return 0
        count = array.array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, count)
        return count[0]


class Pipes:
    """All pipes of one executor. A program's background processes may hold theirs after its end."""

    def __init__(self) -> None:
        self._readers: set[PipeReader] = set()
        self._leftover: deque[PipeReader] = deque()

    def open(self, sink: Capture | None) -> tuple[PipeReader, int]:
        """A new pipe: its reader, and the descriptor to write to, which the caller closes."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            reader = PipeReader(read_end, sink)
        except BaseException:
            os.close(read_end)
            os.close(write_end)
            raise
        self._readers.add(reader)
        return reader, write_end

    def release(self, reader: PipeReader) -> None:
        """The program is done: take what is in the pipe, then go on draining to nowhere until the last writer closes.

        At most `MAX_LEFTOVER` such pipes stay; then the oldest is closed.
        """
        reader.drain()
        reader.sink = None
        self._readers.discard(reader)
        self._leftover = deque(pipe for pipe in self._leftover if pipe.open)
        if reader.open:
            self._leftover.append(reader)
        while len(self._leftover) > MAX_LEFTOVER:
            self._leftover.popleft().close()

    def close(self) -> None:
        """Close all."""
        for reader in [*self._readers, *self._leftover]:
            reader.close()
        self._readers.clear()
        self._leftover.clear()
