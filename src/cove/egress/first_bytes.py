"""What a connection says of itself in its first bytes: the host that a TLS or HTTP client wants to reach.

Only looked at, never taken: whoever carries the connection sends all of it on. What cannot be read with certainty is
`Unreadable`; nothing is guessed.
"""

import re
import struct
from dataclasses import dataclass
from typing import Final

from cove.models.host_names import canonical_name

MAX_HELLO: Final = 64 * 1024
"""No client's first message is longer: RFC 8446 bounds extensions to 64 KiB."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _HOST_NAME = 0, 0
_MOST_RECORDS: Final = 64
_REQUEST: Final = re.compile(rb"[A-Z]{1,20} (?:/|\*|[Hh][Tt][Tt][Pp])|CONNECT ")
_MAYBE_REQUEST: Final = re.compile(rb"[A-Z]{1,20}(?: (?:[Hh](?:[Tt][Tt]?)?)?)?")


@dataclass(frozen=True, slots=True)
class Tls:
    """A TLS client; `name` is the server name that it sent, None without one (RFC 6066 §3)."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Http:
    """An HTTP/1 client; its requests have to be read one by one."""


@dataclass(frozen=True, slots=True)
class Other:
    """Neither."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that pretends to be TLS and cannot be understood, or hides its server name; with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Incomplete:
    """More bytes are needed."""


Opening = Tls | Http | Other | Unreadable | Incomplete


def opening(data: bytes) -> Opening:
    """What `data`, the beginning of a connection, is."""
    if not data:
        return Incomplete()
    if data[0] == _HANDSHAKE:
        return _hello(data)
    if _REQUEST.match(data):
        return Http()
    return Incomplete() if _MAYBE_REQUEST.fullmatch(data) else Other()


def _hello(data: bytes) -> Opening:
    try:
        message = _handshake(data)
        if message is None:
            return Incomplete() if len(data) < MAX_HELLO else Unreadable("its TLS greeting is too long")
        return _server_name(message)
    except (struct.error, IndexError, ValueError) as problem:
        return Unreadable(f"its TLS greeting cannot be read: {problem}")


def _handshake(data: bytes) -> bytes | None:
    """The client hello, put together from as many records as it takes; None when some are missing (RFC 8446 §5.1)."""
    message = bytearray()
    at = 0
    for _ in range(_MOST_RECORDS):
        if len(data) < at + 5:
            return None
        kind, major, _, length = struct.unpack_from("!BBBH", data, at)
        if kind != _HANDSHAKE or major != 3 or not 0 < length <= 16384:
            raise ValueError("not a record of a handshake")
        message += data[at + 5 : at + 5 + length]
        if message and message[0] != _CLIENT_HELLO:
            raise ValueError("not a client hello")
        if len(message) >= 4:
            wanted = int.from_bytes(message[1:4])
            if wanted > MAX_HELLO:
                raise ValueError("too long")
            if len(message) >= 4 + wanted:
                return bytes(message[4 : 4 + wanted])
        at += 5 + length
        if len(data) < at:
            return None
    raise ValueError("too many records")


def _server_name(hello: bytes) -> Opening:
    fields = _Fields(hello)
    fields.take(2 + 32)
    fields.vector(1)
    fields.vector(2)
    fields.vector(1)
    if fields.at_end:
        return Tls(None)
    extensions = _Fields(fields.vector(2))
    seen: set[int] = set()
    name: str | None = None
    while not extensions.at_end:
        kind = int.from_bytes(extensions.take(2))
        body = extensions.vector(2)
        if kind in seen:
            raise ValueError("an extension comes twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _only_name(body)
    # An encrypted client hello is let pass: clients send meaningless ones too, and one that a server can open needs a
    # key from the DNS, which our resolver never passes on.
    return Tls(name)


def _only_name(body: bytes) -> str:
    names = _Fields(_Fields(body).vector(2))
    if names.take(1)[0] != _HOST_NAME:
        raise ValueError("an unknown kind of server name")
    name = names.vector(2)
    if not names.at_end:
        raise ValueError("more than one server name")
    return canonical_name(name.decode("ascii"))


class _Fields:
    """Takes fields off bytes, strictly."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ValueError("it ends too early")
        taken, self._at = self._data[self._at : end], end
        return taken

    def vector(self, length_bytes: int) -> bytes:
        return self.take(int.from_bytes(self.take(length_bytes)))
