"""How a process ended that is nobody's child here: ioctl_pidfd(2), Linux 6.15."""

import fcntl
import struct
from typing import Final

_INFO: Final = struct.Struct("=QQ11Ii")
"""`struct pidfd_info`: mask, cgroup, eleven ids, exit status."""

_INFO_EXIT: Final = 1 << 3
_GET_INFO: Final = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11


def exit_status(pidfd: int) -> int | None:
    """Its status as wait(2) has it, once its parent has taken note of its end; None before, and on older kernels."""
    info = bytearray(_INFO.pack(_INFO_EXIT, *([0] * 13)))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    mask, *_, status = _INFO.unpack(info)
    return status if mask & _INFO_EXIT else None
