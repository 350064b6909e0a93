"""Pseudo-terminals: pty(7), ioctl_tty(2)."""

import fcntl
import os
import struct
import termios
from typing import Final

# termios(3): the line discipline erases whole characters. Python has no name for it.
_IUTF8: Final = 0o40000


def open_terminal(*, columns: int, rows: int) -> tuple[int, int]:
    """A new pseudo-terminal of this mount namespace's devpts: its two ends, not inherited by programs.

    The first one is the side of whoever shows it, and does not block; the second one is the terminal of programs.

    Raises:
        OSError: there are too many, or too many open files.
    """
    shown, used = os.openpty()
    try:
        os.set_blocking(shown, False)
        set_window_size(shown, columns=columns, rows=rows)
        attributes = termios.tcgetattr(used)
        attributes[0] |= _IUTF8
        termios.tcsetattr(used, termios.TCSANOW, attributes)
    except BaseException:
        os.close(shown)
        os.close(used)
        raise
    return shown, used


def set_window_size(descriptor: int, *, columns: int, rows: int) -> None:
    """Change the size; the foreground processes get SIGWINCH when it is another one (TIOCSWINSZ).

    Raises:
        OSError: this is no terminal (any more).
    """
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def take_as_controlling_terminal(descriptor: int) -> None:
    """Make it the terminal of this session, which must have none; the caller leads the session (TIOCSCTTY).

    Raises:
        OSError: EPERM, one of these conditions does not hold.
    """
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
