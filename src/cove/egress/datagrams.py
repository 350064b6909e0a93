"""Datagrams of a captured socket: receiving them with the place that was wanted, and answering from there (ip(7))."""

import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

LONGEST: Final = 4096
_ANCILLARY_BYTES: Final = 256
_IP_ORIGDSTADDR, _IPV6_ORIGDSTADDR, _IP_PKTINFO, _IPV6_PKTINFO = 20, 74, 8, 50


@dataclass(frozen=True, slots=True)
class Datagram:
    """One message.

    Attributes:
        sender: to be answered.
        place: packed address that it was sent to.
    """

    data: bytes
    sender: Any
    place: bytes


def receive(sock: socket.socket) -> Datagram | None:
    """The next message; None for one without its place.

    Raises:
        BlockingIOError: there is none.
    """
    data, ancillary, _, sender = sock.recvmsg(LONGEST, _ANCILLARY_BYTES, socket.MSG_DONTWAIT)
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_ORIGDSTADDR):
            return Datagram(data, sender, value[4:8])
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_ORIGDSTADDR):
            return Datagram(data, sender, value[8:24])
    return None


def answer(sock: socket.socket, asked: Datagram, data: bytes) -> None:
    """Answer as the place that was asked.

    Raises:
        OSError: it cannot be sent now, or the asker is gone.
    """
    if len(asked.place) == 4:
        info = (socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=i4s4s", 0, asked.place, bytes(4)))
    else:
        info = (socket.IPPROTO_IPV6, _IPV6_PKTINFO, struct.pack("=16si", asked.place, 0))
    sock.sendmsg([data], [info], socket.MSG_DONTWAIT, asked.sender)
