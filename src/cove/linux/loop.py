"""Loop devices (loop(4)): a file as a block device."""

import errno
import fcntl
import os
import struct
from typing import Final

_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LO_FLAGS_AUTOCLEAR: Final = 4
# struct loop_config: fd, block_size, loop_info64 (232 bytes), reserved[8]
_LOOP_CONFIG: Final = struct.Struct("=II QQQQQ IIII 64s64s32s 2Q 64s")
_ATTEMPTS: Final = 64


def attach_file(file: int) -> tuple[int, str]:
    """Make the open regular file `file` a block device that frees itself with its last user.

    Returns:
        A descriptor of the device, which keeps it until it is mounted, and the device's path.

    Raises:
        OSError: no loop driver, no permission, or no free device.
    """
    config = _LOOP_CONFIG.pack(file, 0, 0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, b"", b"", b"", 0, 0, b"")
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as failure:
                os.close(device)
                # Someone else took the device between the two calls.
                if failure.errno != errno.EBUSY:
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device", "/dev/loop-control")
