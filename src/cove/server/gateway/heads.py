"""HTTP/1.1 message heads, sans-I/O: strict parsing (RFC 9112 §3-§6), so that no two parties read a message differently.

Refused rather than repaired, because each is a known way to smuggle a request: bare LF, obs-fold, control bytes,
white space before a colon, Content-Length with Transfer-Encoding, two Content-Lengths, two Hosts, a transfer coding
other than `chunked`.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from cove.server.gateway.settings import MAX_HEAD_BYTES

MAX_FIELDS = 128

_END = b"\r\n\r\n"
_BARE_LF = re.compile(rb"(?<!\r)\n")
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]{0,23}) ([\x21\x22\x24-\x7e]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\x0a-\x1f\x7f]*+(?:\r\n|\Z))*+")
_PROTOCOL = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~/-]{1,64}")
_MAX_LENGTH_DIGITS = 18
_ABSOLUTE = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE)
_HOST = re.compile(rb"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)

WEBSOCKET = b"websocket"

_NOTHING = frozenset[bytes]()

Fields = tuple[tuple[bytes, bytes, bytes], ...]
"""Header fields in order: name in lower case, name as sent, value."""


class FramingError(Exception):
    """A message that cannot be trusted to have one meaning.

    Attributes:
        status: what to answer if it was a request.
        code: from the error table.
    """

    def __init__(self, message: str, *, status: int = 400, code: str = "INVALID_REQUEST") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Framing(NamedTuple):
    """How a body ends: `chunked`, by `length`, or neither: a request has none then, a response lasts until close."""

    chunked: bool = False
    length: int | None = None


# The heads are not frozen: that would triple the time to make one, and each message needs two.
@dataclass(slots=True)
class Head:
    """What request and response heads share; never changed.

    Attributes:
        minor: of the HTTP version, 0 or 1.
        values: lower-case name to its values, in order.
        connection: members of Connection, in lower case.
    """

    minor: int
    fields: Fields
    values: dict[bytes, list[bytes]] = field(repr=False)
    framing: Framing
    connection: frozenset[bytes]

    def first(self, name: bytes) -> bytes | None:
        """The first value of the field, or None."""
        found = self.values.get(name)
        return found[0] if found else None

    def tokens(self, name: bytes) -> frozenset[bytes]:
        """Members of a comma separated field, in lower case."""
        return _members(self.values.get(name))

    @property
    def persistent(self) -> bool:
        """Whether the sender means to keep the connection (RFC 9112 §9.3); never for HTTP/1.0."""
        return self.minor == 1 and b"close" not in self.connection


@dataclass(slots=True)
class RequestHead(Head):
    """A request without its body.

    Attributes:
        target: in origin form, or `*`; of a CONNECT as it was sent.
        host: value of Host (or of an absolute-form target); empty when an HTTP/1.0 client sent none.
        hostname: `host` in lower case without port and trailing dot.
    """

    method: bytes
    target: bytes
    host: bytes
    hostname: str

    @property
    def path(self) -> bytes:
        """Target without its query."""
        return self.target.partition(b"?")[0]

    @property
    def upgrade(self) -> bytes | None:
        """The one protocol, in lower case, that the client wants to go on with (RFC 9110 §7.8).

        HTTP/2 is none of them: through it the client would speak past everything that is checked here.
        """
        if self.minor == 0 or self.framing.chunked or self.framing.length or b"upgrade" not in self.values:
            return None
        wanted = self.tokens(b"upgrade") if b"upgrade" in self.connection else frozenset[bytes]()
        protocol = next(iter(wanted)) if len(wanted) == 1 else b""
        return protocol if _PROTOCOL.fullmatch(protocol) and not protocol.startswith(b"h2") else None

    @property
    def wants_websocket(self) -> bool:
        """Whether this is a WebSocket handshake (RFC 6455 §4.1)."""
        return self.method == b"GET" and self.upgrade == WEBSOCKET

    @property
    def takes_pages(self) -> bool:
        """Whether a person will look at the answer."""
        return any(b"text/html" in value.lower() for value in self.values.get(b"accept", ()))

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return self.minor == 1 and b"100-continue" in self.tokens(b"expect")


@dataclass(slots=True)
class ResponseHead(Head):
    """A response without its body."""

    status: int
    reason: bytes


class HeadBuffer:
    """Collects bytes until a whole head is there; holds no more than one head and what came with it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._scanned = 0

    def __len__(self) -> int:
        return len(self._data)

    def append(self, data: bytes) -> None:
        """Adds bytes as they came."""
        self._data += data

    def take_head(self) -> bytes | None:
        """The next head without its empty line, or None when more bytes are needed.

        Raises:
            FramingError: too long (431), or already recognisable as broken.
        """
        end = self._data.find(_END, max(0, self._scanned - 3), MAX_HEAD_BYTES)
        if end < 0:
            self._check_partial()
            return None
        head = bytes(memoryview(self._data)[:end])
        del self._data[: end + 4]
        self._scanned = 0
        return head

    def take_rest(self) -> bytes:
        """Everything that is left; the buffer is empty afterwards."""
        rest = bytes(self._data)
        self._data.clear()
        self._scanned = 0
        return rest

    def skip_empty_line(self) -> None:
        """Drops one CRLF before a request line, which some clients send after a body (RFC 9112 §2.2)."""
        if self._data.startswith(b"\r\n"):
            del self._data[:2]

    def _check_partial(self) -> None:
        if len(self._data) >= MAX_HEAD_BYTES:
            raise FramingError(
                f"The header fields are larger than {MAX_HEAD_BYTES} bytes.", status=431, code="HEADERS_TOO_LARGE"
            )
        if _BARE_LF.search(self._data, self._scanned):
            raise FramingError("A line of the head ends in LF without CR.")
        if self._data and not (65 <= self._data[0] <= 90 or self._data[0] == 13):
            raise FramingError("This is not an HTTP/1.1 request.")
        self._scanned = len(self._data)


def parse_request(raw: bytes) -> RequestHead:
    """Reads a request head (without its final empty line).

    Raises:
        FramingError: it is malformed or ambiguous.
    """
    line, _, rest = raw.partition(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise _bad_request_line(line)
    method, target, minor = match[1], match[2], int(match[3])
    fields, values = _parse_fields(rest)
    framing = _framing_of(values, minor)
    if len(values.get(b"authorization", ())) > 1:
        raise FramingError("There is more than one Authorization field.")
    host = _host_of(values, minor)
    if method != b"CONNECT":
        target, host = _origin_form(target, host)
        if target == b"*" and method != b"OPTIONS":
            raise FramingError("The target * is for OPTIONS only.")
    options = _members(values.get(b"connection"))
    return RequestHead(minor, fields, values, framing, options, method, target, host, _hostname_of(host))


def parse_response(raw: bytes) -> ResponseHead:
    """Reads a response head (without its final empty line).

    Raises:
        FramingError: it is malformed or ambiguous.
    """
    line, _, rest = raw.partition(b"\r\n")
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise FramingError("The status line is malformed.")
    fields, values = _parse_fields(rest)
    minor = int(match[1])
    options = _members(values.get(b"connection"))
    return ResponseHead(minor, fields, values, _framing_of(values, minor), options, int(match[2]), match[3] or b"")


def _members(values: list[bytes] | None) -> frozenset[bytes]:
    if values is None:
        return _NOTHING
    if len(values) == 1 and b"," not in values[0]:
        return frozenset((values[0].lower(),)) if values[0] else _NOTHING
    return frozenset(part.strip(b" \t").lower() for value in values for part in value.split(b",")) - {b""}


def is_field_line(line: bytes) -> bool:
    """Whether `line` is one well-formed header or trailer field."""
    return _FIELD.fullmatch(line) is not None


def _bad_request_line(line: bytes) -> FramingError:
    if re.fullmatch(rb"[^\r\n\x00]* HTTP/[0-9.]+", line) and not line.endswith((b"HTTP/1.1", b"HTTP/1.0")):
        return FramingError("Only HTTP/1.1 and HTTP/1.0 are served here.", status=505)
    return FramingError("The request line is malformed.")


def _parse_fields(raw: bytes) -> tuple[Fields, dict[bytes, list[bytes]]]:
    if not raw:
        return (), {}
    if raw.count(b"\r\n") >= MAX_FIELDS:
        raise FramingError(f"There are more than {MAX_FIELDS} header fields.", status=431, code="HEADERS_TOO_LARGE")
    # A line that ends the head would have ended it earlier.
    if _FIELDS.fullmatch(raw) is None or raw.endswith(b"\r\n"):
        raise FramingError("A header field is malformed.")
    values: dict[bytes, list[bytes]] = {}
    fields: list[tuple[bytes, bytes, bytes]] = []
    for line in raw.split(b"\r\n"):
        name, _, padded = line.partition(b":")
        lower, value = name.lower(), padded.strip(b" \t")
        fields.append((lower, name, value))
        if lower in values:
            values[lower].append(value)
        else:
            values[lower] = [value]
    return tuple(fields), values


def _framing_of(values: dict[bytes, list[bytes]], minor: int) -> Framing:
    lengths, codings = values.get(b"content-length"), values.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None:
            raise FramingError("Content-Length and Transfer-Encoding exclude each other.")
        if minor == 0 or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise FramingError("The only transfer coding is chunked, once, in HTTP/1.1.")
        return Framing(chunked=True)
    if lengths is None:
        return Framing()
    if len(lengths) != 1 or not lengths[0].isdigit() or len(lengths[0]) > _MAX_LENGTH_DIGITS:
        raise FramingError("Content-Length is not one decimal number.")
    return Framing(length=int(lengths[0]))


def _host_of(values: dict[bytes, list[bytes]], minor: int) -> bytes:
    hosts = values.get(b"host")
    if hosts is None:
        if minor == 1:
            raise FramingError("The Host field is missing.")
        return b""
    if len(hosts) != 1 or not (hosts[0] == b"" or _HOST.fullmatch(hosts[0])):
        raise FramingError("The Host field is malformed.")
    return hosts[0]


def _origin_form(target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """Target and host; an absolute-form target's authority replaces Host (RFC 9112 §3.2.2)."""
    if target.startswith(b"/") or target == b"*":
        return target, host
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not _HOST.fullmatch(match[1]):
        raise FramingError("The request target is not a path.")
    rest = match[2]
    return (rest if rest.startswith(b"/") else b"/" + rest), match[1]


def _hostname_of(host: bytes) -> str:
    match = _HOST.fullmatch(host)
    return match[1].decode("ascii").lower().removesuffix(".") if match else ""
