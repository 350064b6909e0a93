"""The server's part of a WebSocket handshake (RFC 6455, section 4.2)."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

from cove.models.errors import CoveError, error

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_MAX_QUERY_FIELDS = 20
_REMEDY = "Use a WebSocket client (RFC 6455)."


class Handshake(NamedTuple):
    """A request for a WebSocket, as it came.

    Attributes:
        headers: names in lower case.
    """

    path: str
    query: bytes
    method: str
    version: str
    headers: Sequence[tuple[bytes, bytes]]

    def arguments(self) -> dict[str, str]:
        """The fields of the query string; the last of two with one name counts.

        Raises:
            CoveError: INVALID_REQUEST, too many of them.
        """
        try:
            fields = parse_qsl(
                self.query.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS
            )
        except ValueError:
            raise error("INVALID_REQUEST", f"The query has more than {_MAX_QUERY_FIELDS} fields.") from None
        return dict(fields)


def answer(handshake: Handshake, request_id: str) -> bytes:
    """The `101` answer. No extension is accepted: compression takes 135 KB for each connection.

    Raises:
        CoveError: INVALID_REQUEST, this is not a valid handshake.
    """
    key = _checked_key(handshake)
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: %s\r\nx-request-id: %s\r\n\r\n" % (accept, request_id.encode("ascii"))
    )


def _checked_key(handshake: Handshake) -> bytes:
    if handshake.method != "GET" or handshake.version != "1.1":
        raise _refusal("it is not a GET request of HTTP/1.1")
    if _single(handshake, b"sec-websocket-version") != b"13":
        raise _refusal("`Sec-WebSocket-Version` is not 13")
    key = _single(handshake, b"sec-websocket-key")
    try:
        nonce = base64.b64decode(key, validate=True)
    except binascii.Error:
        nonce = b""
    if len(nonce) != _KEY_BYTES:
        raise _refusal(f"`Sec-WebSocket-Key` is not the base64 of {_KEY_BYTES} bytes")
    return key


def _single(handshake: Handshake, wanted: bytes) -> bytes:
    values = [value.strip() for name, value in handshake.headers if name == wanted]
    if len(values) != 1:
        raise _refusal(f"there is not one `{wanted.decode('ascii')}`")
    return values[0]


def _refusal(reason: str) -> CoveError:
    return error("INVALID_REQUEST", f"The WebSocket handshake is not valid: {reason}.", remedy=_REMEDY)
