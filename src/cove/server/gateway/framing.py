"""HTTP/1.1 message bodies, sans-I/O: where a body ends (RFC 9112 §6-§7), and how it is framed again for the other side.

Readers take bytes as they come and give payload; writers frame payload. A chunked body is always framed anew, so chunk
extensions and trailers (which some servers mix into the header fields) end here.
"""

import re
from typing import Protocol

from cove.server.gateway.heads import Framing, FramingError, is_field_line

MAX_CHUNK_LINE = 1024
MAX_TRAILERS = 16 * 1024

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")


class BodyReader(Protocol):
    """Finds the end of one body.

    Attributes:
        done: the last byte has been read.
        rest: bytes that came after the end.
    """

    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """Payload in `data`, perhaps none.

        Raises:
            FramingError: the framing is broken.
        """
        ...

    def end(self) -> None:
        """The peer has closed.

        Raises:
            FramingError: in the middle of the body.
        """
        ...


class LengthReader:
    """A body of known length, which may be 0."""

    def __init__(self, length: int) -> None:
        self.done = length == 0
        self.rest = b""
        self._left = length

    def feed(self, data: bytes) -> bytes:
        """See `BodyReader`."""
        if len(data) <= self._left:
            self._left -= len(data)
            self.done = self._left == 0
            return data
        payload, self.rest = data[: self._left], data[self._left :]
        self._left = 0
        self.done = True
        return payload

    def end(self) -> None:
        """See `BodyReader`."""
        if not self.done:
            raise FramingError("The connection was closed before the end of the body.")


class UntilCloseReader:
    """A response body that ends when the connection does."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """See `BodyReader`."""
        return data

    def end(self) -> None:
        """See `BodyReader`."""
        self.done = True


class ChunkedReader:
    """A body in the chunked coding; its extensions and trailers are checked and dropped."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._partial = b""
        self._left = 0
        self._in_trailers = False
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """See `BodyReader`."""
        if self._partial:
            data, self._partial = self._partial + data, b""
        parts: list[bytes] = []
        position = 0
        while position < len(data) and not self.done:
            if not self._left and not self._in_trailers:
                position = _whole_chunks(data, position, parts)
                if position == len(data):
                    break
            advance = self._trailer if self._in_trailers else self._payload if self._left else self._size
            position = advance(data, position, parts)
        self.rest = data[position:] if self.done else b""
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def end(self) -> None:
        """See `BodyReader`."""
        if not self.done:
            raise FramingError("The connection was closed before the last chunk.")

    def _size(self, data: bytes, position: int, _parts: list[bytes]) -> int:
        line_end = data.find(b"\r\n", position, position + MAX_CHUNK_LINE)
        if line_end < 0:
            return self._keep(data, position, MAX_CHUNK_LINE)
        match = _CHUNK_LINE.fullmatch(data, position, line_end)
        if match is None:
            raise FramingError("A chunk size is malformed.")
        size = int(match[1], 16)
        # The CRLF after the payload counts as part of the chunk, so that a chunk has ended when nothing is left.
        self._left = size + 2 if size else 0
        self._in_trailers = size == 0
        return line_end + 2

    def _payload(self, data: bytes, position: int, parts: list[bytes]) -> int:
        available = len(data) - position
        payload = min(self._left - 2, available)
        if payload > 0:
            parts.append(data[position : position + payload])
            self._left -= payload
            position += payload
        if self._left > 2:
            return position
        if len(data) - position < 2:
            return self._keep(data, position, 2)
        if data[position : position + 2] != b"\r\n":
            raise FramingError("A chunk does not end in CRLF.")
        self._left = 0
        return position + 2

    def _trailer(self, data: bytes, position: int, _parts: list[bytes]) -> int:
        line_end = data.find(b"\r\n", position, position + MAX_TRAILERS)
        if line_end < 0:
            return self._keep(data, position, MAX_TRAILERS)
        if line_end == position:
            self.done = True
            return line_end + 2
        self._trailer_bytes += line_end - position
        if self._trailer_bytes > MAX_TRAILERS or not is_field_line(data[position:line_end]):
            raise FramingError("The trailer fields are malformed or too large.")
        return line_end + 2

    def _keep(self, data: bytes, position: int, limit: int) -> int:
        """Puts an incomplete line aside until more comes."""
        if len(data) - position >= limit:
            raise FramingError("A line in the chunked body is too long.")
        self._partial = data[position:]
        if b"\n" in self._partial or b"\r" in self._partial[:-1]:
            raise FramingError("A line in the chunked body does not end in CRLF.")
        return len(data)


def _whole_chunks(data: bytes, position: int, parts: list[bytes]) -> int:
    """Takes the complete, plain chunks at `position`; whatever is special is left to the caller.

    A loop of its own because a sender of one-byte chunks costs its share of time for each of them.
    """
    match_size, take, end = _PLAIN_SIZE.match, parts.append, len(data)
    while (match := match_size(data, position)) is not None:
        start = match.end()
        stop = start + int(match[1], 16)
        if stop == start or stop + 2 > end or data[stop : stop + 2] != b"\r\n":
            break
        take(data[start:stop])
        position = stop + 2
    return position


class BodyWriter(Protocol):
    """Frames payload for the other side."""

    def frame(self, payload: bytes) -> bytes:
        """Bytes to send for `payload`; none for none."""
        ...

    def end(self) -> bytes:
        """Bytes that close the body."""
        ...


class PlainWriter:
    """Length or close of the connection delimits the body: payload goes out as it is."""

    def frame(self, payload: bytes) -> bytes:
        """See `BodyWriter`."""
        return payload

    def end(self) -> bytes:
        """See `BodyWriter`."""
        return b""


class ChunkedWriter:
    """The chunked coding in its plainest form."""

    def frame(self, payload: bytes) -> bytes:
        """See `BodyWriter`."""
        return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""

    def end(self) -> bytes:
        """See `BodyWriter`."""
        return b"0\r\n\r\n"


def request_body(framing: Framing) -> tuple[BodyReader, BodyWriter]:
    """Reader and writer for a request's body; without framing there is none."""
    if framing.chunked:
        return ChunkedReader(), ChunkedWriter()
    return LengthReader(framing.length or 0), PlainWriter()


def response_body(framing: Framing, *, empty: bool, client_minor: int) -> tuple[BodyReader, BodyWriter]:
    """Reader and writer for a response's body.

    Args:
        framing: as the response declares it.
        empty: request method or status rule a body out, whatever the framing says.
        client_minor: an HTTP/1.0 client knows no chunks; for it the close of the connection ends the body.
    """
    if empty:
        return LengthReader(0), PlainWriter()
    if framing.length is not None:
        return LengthReader(framing.length), PlainWriter()
    reader = ChunkedReader() if framing.chunked else UntilCloseReader()
    return reader, ChunkedWriter() if client_minor == 1 else PlainWriter()
