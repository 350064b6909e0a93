"""The channel between the agent and an interpreter: frames of a 4-byte big-endian length and a JSON object.

The interpreter runs the user's program in its own process, so the agent takes nothing on trust that comes from there:
lengths are bounded before anything is kept, and objects are validated.
"""

import json
import struct
from typing import Annotated, Any, Literal, cast

from pydantic import Field, TypeAdapter, ValidationError

from cove.models.base import Contract

TABLE_TYPE = "application/vnd.dataframe+json"
MAX_FRAME_BYTES = 24 * 1024 * 1024
MAX_RICH_OUTPUTS = 64
MAX_RICH_BYTES = 16 * 1024 * 1024
_LENGTH = struct.Struct(">I")


class ProtocolViolation(Exception):
    """What came over the channel is not what an interpreter of ours sends."""


class Displayed(Contract):
    """One displayed object: MIME type -> content, already text or JSON."""

    kind: Literal["displayed"]
    data: dict[str, Any]
    metadata: dict[str, Any] = {}


class Finished(Contract):
    """The end of a call. `result` is the text of the last expression's value."""

    kind: Literal["finished"]
    exit_code: int = Field(ge=0, le=255)
    result: str | None = None


Message = Displayed | Finished
_messages: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def encode_frame(message: dict[str, Any]) -> bytes:
    """One frame, ready to be sent; objects that JSON has no form for become their text."""
    body = json.dumps(message, separators=(",", ":"), default=str).encode()
    return _LENGTH.pack(len(body)) + body


class FrameDecoder:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that are complete with `chunk`.

        Raises:
            ProtocolViolation: the stream is unusable from here on.
        """
        self._buffer += chunk
        messages: list[Message] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ProtocolViolation(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(_parse(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return messages


def _parse(body: bytes) -> Message:
    try:
        # NaN and Infinity are not JSON (RFC 8259, section 6): clients could not read them.
        parsed = json.loads(body, parse_constant=_no_value)
        return _messages.validate_python(_encodable(parsed) if b"\\ud" in body.lower() else parsed)
    except (ValueError, RecursionError, ValidationError) as problem:
        raise ProtocolViolation(str(problem)) from None


def _no_value(constant: str) -> None:
    return None


def _encodable(value: Any) -> Any:
    """`value` without lone surrogates, which UTF-8 cannot carry."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_encodable(item) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in cast(dict[str, Any], value).items()}
    return value
