"""The loopback interface of a new network namespace (netdevice(7))."""

import fcntl
import socket
import struct
from typing import Final

_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP_RUNNING: Final = 0x1 | 0x40


def bring_loopback_up() -> None:
    """Switch `lo` on in this network namespace; the kernel gives it 127.0.0.1 and ::1 itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", _IFF_UP_RUNNING, b""))
