"""Requests to the kernel's network configuration: messages, attributes, acknowledgements (netlink(7))."""

import os
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Final

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
NESTED: Final = 0x8000

_NLMSG_ERROR: Final = 2
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ANSWER_SECONDS: Final = 5.0
_ANSWER_BYTES: Final = 64 * 1024


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, parts: Iterable[bytes]) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NESTED, b"".join(parts))


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One message; `sequence` is what its acknowledgement repeats."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, sequence, 0) + body


def request(protocol: int, messages: Sequence[bytes], *, acknowledged: int) -> None:
    """Send messages together to one of the kernel's netlink families; wait until that many are acknowledged.

    Raises:
        OSError: the kernel refuses one of them, or does not answer.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
        channel.settimeout(_ANSWER_SECONDS)
        channel.bind((0, 0))
        channel.send(b"".join(messages))
        while acknowledged > 0:
            acknowledged -= _acknowledgements(channel.recv(_ANSWER_BYTES))


def _acknowledgements(answer: bytes) -> int:
    found = 0
    while len(answer) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(answer)
        if kind == _NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", answer, _HEADER.size)
            if code:
                raise OSError(-code, os.strerror(-code))
            found += 1
        answer = answer[max(_HEADER.size, (length + 3) & ~3) :]
    return found
