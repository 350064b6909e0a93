"""A transport that sends what is written in one turn of the event loop with one system call."""

import asyncio
from typing import Any

_MAX_HELD_BYTES = 64 * 1024


class JoiningTransport(asyncio.Transport):
    """Wraps a transport. The head and the body of an answer then arrive together, and wake their reader once."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> None:
        """Hold `data` until the end of this turn, or send at once when much is held."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)
        self._size += len(data)
        if self._size > _MAX_HELD_BYTES:
            self._flush()

    def write_eof(self) -> None:
        """Send what is held, then the end of the stream."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Send what is held, then close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close without sending."""
        self._held.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether no more can be sent."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the transport says."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection over."""
        self._flush()
        self._transport.set_protocol(protocol)

    def detach(self) -> asyncio.Transport:
        """Send what is held; the wrapped transport, for a protocol that is done with this one."""
        self._flush()
        return self._transport

    def _flush(self) -> None:
        if self._held:
            data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            self._held.clear()
            self._size = 0
            self._transport.write(data)
