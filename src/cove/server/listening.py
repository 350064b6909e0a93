"""The server's port."""

import socket
from typing import Final

from cove.models.errors import error

BACKLOG: Final = 1024
"""Connections that wait to be accepted."""


def bind(host: str, port: int) -> socket.socket:
    """A listening address; port 0 takes a free one.

    Raises:
        CoveError: CONFLICT when it is taken, or not of this machine.
    """
    listener: socket.socket | None = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Connections wait from here on; nobody who is told of the port is refused.
        listener.listen(BACKLOG)
    except OSError as problem:
        if listener is not None:
            listener.close()
        raise error(
            "CONFLICT",
            f"Cannot listen on {host}:{port}: {problem.strerror}.",
            remedy="Choose another with --port or --host; port 0 takes a free one.",
        ) from problem
    return listener
