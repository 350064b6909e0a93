"""What the host daemon and the egress program say to each other, on a unix socket (SOCK_SEQPACKET).

One JSON object a packet; each request has one answer. Requests: {"call": name, "sandbox": id, ...}; answers:
{"ok": value} or {"error": text}. `open` comes with the sandbox's captured sockets, `log` with the file to write to.
"""

import json
import socket
from collections.abc import Sequence
from typing import Any, Final

import pydantic

from cove.linux.readiness import readable, writable

SOCKET_NAME: Final = "egress.sock"
"""In the directory `run` of the data directory."""
MAX_PACKET: Final = 256 * 1024
MAX_SOCKETS: Final = 8
_OBJECT: Final = pydantic.TypeAdapter(dict[str, Any])
REPORTED_ENTRIES: Final = 400
"""At most, in one answer to `report`."""


def new_socket() -> socket.socket:
    """For either end; its buffers hold the longest packet."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    widen(sock)
    return sock


def widen(sock: socket.socket) -> None:
    """Let a packet of `MAX_PACKET` be sent (socket(7)): beyond what the system allows to everybody only root may."""
    force = 32  # SO_SNDBUFFORCE
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, 2 * MAX_PACKET)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_PACKET)


async def send(sock: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """One packet.

    Raises:
        OSError: the other side is gone, or the packet is too long.
    """
    data = json.dumps(message, separators=(",", ":")).encode()
    while True:
        try:
            socket.send_fds(sock, [data], list(descriptors), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            await writable(sock.fileno())
        else:
            return


async def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next packet, and the descriptors that came with it.

    Raises:
        EOFError: the other side is gone.
        ValueError: it is no JSON object; its descriptors are closed.
    """
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(sock, MAX_PACKET, MAX_SOCKETS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            await readable(sock.fileno())
        else:
            break
    if not data:
        raise EOFError
    try:
        return _OBJECT.validate_json(data), descriptors
    except ValueError:
        for descriptor in descriptors:
            socket.close(descriptor)
        raise
