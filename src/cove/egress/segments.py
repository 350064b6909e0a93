"""How many TCP segments a connection has taken (tcp(7), TCP_INFO)."""

import socket
import struct
from typing import Final

_COUNTERS: Final = struct.Struct("=II")
_OFFSET: Final = 136
"""Of `tcpi_segs_out` in `struct tcp_info` (linux/tcp.h); `tcpi_segs_in` follows it."""


def segments(sock: socket.socket) -> tuple[int, int]:
    """Received and sent by this end; zeros where the kernel does not tell."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _OFFSET + _COUNTERS.size)
    except OSError:
        return 0, 0
    if len(info) < _OFFSET + _COUNTERS.size:
        return 0, 0
    out, come = _COUNTERS.unpack_from(info, _OFFSET)
    return come, out
