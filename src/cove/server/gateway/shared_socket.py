"""A transport over a socket whose file description a sandbox may share.

The other holder can switch O_NONBLOCK off, take bytes away after they were announced, or raise error conditions that
wake an event loop for nothing. The transports of event loops rely on none of that happening: one of their reads or
writes could then block the whole server. Here each call says MSG_DONTWAIT itself (recv(2), send(2)), and a socket that
wakes for nothing again and again is given up.
"""

import asyncio
import contextlib
import socket
from typing import Any, Final

READ_BYTES: Final = 192 * 1024
"""Processor time for an answer of 1 MB: 0.93 ms with 128 KiB, 0.76 ms with 192 KiB; from 512 KiB on, where each read
gets fresh memory from the kernel, 1.7 ms and more."""
MAX_FRUITLESS: Final = 64

_SEND: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class SharedSocketTransport(asyncio.Transport):
    """See `asyncio.Transport`; it owns `sock`, and reads as soon as it is made."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._sock = sock
        self._descriptor = sock.fileno()
        self._protocol = protocol
        self._pending = bytearray()
        self._high = self._low = 0
        self._fruitless = 0
        self._protocol_paused = self._reading = self._closing = self._ending = False
        self.set_write_buffer_limits()
        protocol.connection_made(self)
        self.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing is known."""
        return default

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._closing

    # --- reading

    def pause_reading(self) -> None:
        """Reads no more for now."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._descriptor)

    def resume_reading(self) -> None:
        """Reads on."""
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        if not self._reading:
            return
        try:
            data = self._sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            self._nothing()
        except OSError as problem:
            self._fail(problem)
        else:
            self._fruitless = 0
            if data:
                self._protocol.data_received(data)
            else:
                self.pause_reading()
                if not self._protocol.eof_received():
                    self.close()

    def _nothing(self) -> None:
        """It was readable and is not. Registered anew, since some loops stop watching after an error condition."""
        self._fruitless += 1
        if self._fruitless > MAX_FRUITLESS:
            self._fail(ConnectionAbortedError("The socket wakes its reader for nothing."))
            return
        self.pause_reading()
        self.resume_reading()

    # --- writing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._pending)

    def can_write_eof(self) -> bool:
        """TCP can be closed in one direction."""
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends now what can be sent now."""
        if self._closing or self._ending:
            return
        sent = 0
        if not self._pending:
            try:
                sent = self._sock.send(data, _SEND)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as problem:
                self._fail(problem)
                return
            if sent == len(data):
                return
            self._loop.add_writer(self._descriptor, self._writable)
        self._pending += memoryview(data)[sent:]
        if len(self._pending) > self._high and not self._protocol_paused:
            self._protocol_paused = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        """Ends the sending direction after what was written."""
        if not self._ending and not self._closing:
            self._ending = True
            if not self._pending:
                self._shut_down()

    def _writable(self) -> None:
        if not self._pending:
            return
        try:
            sent = self._sock.send(self._pending, _SEND)
        except (BlockingIOError, InterruptedError):
            self._fruitless += 1
            if self._fruitless > MAX_FRUITLESS:
                self._fail(ConnectionAbortedError("The socket wakes its writer for nothing."))
            return
        except OSError as problem:
            self._fail(problem)
            return
        self._fruitless = 0
        del self._pending[:sent]
        if not self._pending:
            self._loop.remove_writer(self._descriptor)
            if self._closing:
                self._loop.call_soon(self._lost, None)
                return
            if self._ending:
                self._shut_down()
        if self._protocol_paused and len(self._pending) <= self._low:
            self._protocol_paused = False
            self._protocol.resume_writing()

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):  # the peer has gone: reading finds out
            self._sock.shutdown(socket.SHUT_WR)

    # --- the end

    def close(self) -> None:
        """Closes after what was written."""
        if self._closing:
            return
        self.pause_reading()
        self._closing = True
        if not self._pending:
            self._loop.call_soon(self._lost, None)

    def abort(self) -> None:
        """Closes at once."""
        self._fail(None)

    def _fail(self, problem: Exception | None) -> None:
        waiting = bool(self._pending)
        if self._closing and not waiting:
            return  # `_lost` is on its way
        self.pause_reading()
        self._closing = True
        if waiting:
            self._loop.remove_writer(self._descriptor)
            self._pending.clear()
        self._loop.call_soon(self._lost, problem)

    def _lost(self, problem: Exception | None) -> None:
        try:
            self._protocol.connection_lost(problem)
        finally:
            self._sock.close()
