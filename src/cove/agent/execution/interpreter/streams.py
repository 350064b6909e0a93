"""The standard streams of the kernel process: plain descriptors, so that output of C code and children counts too."""

import ctypes
import os
import sys
from typing import TextIO

_libc = ctypes.PyDLL(None)


class StandardStreams:
    """Connects descriptors 1 and 2 to the pipes of the current call, and to /dev/null between calls."""

    def __init__(self) -> None:
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        self._stdout = _writer(1)
        self._stderr = _writer(2)
        self._install()

    @property
    def errors(self) -> TextIO:
        """The real standard error, whatever the program put in sys.stderr."""
        return self._stderr

    def connect(self, stdout: int, stderr: int) -> None:
        """Use the pipes of a new call; both descriptors are closed here."""
        for descriptor, target in ((stdout, 1), (stderr, 2)):
            os.dup2(descriptor, target, inheritable=True)
            os.close(descriptor)
        if self._stdout.closed:
            self._stdout = _writer(1)
        if self._stderr.closed:
            self._stderr = _writer(2)
        self._install()

    def disconnect(self) -> None:
        """Flush everything, Python's buffers and C's, and leave the call's pipes."""
        for stream in {sys.stdout, sys.stderr, self._stdout, self._stderr}:
            _flush(stream)
        _libc.fflush(None)
        for target in (1, 2):
            os.dup2(self._null, target, inheritable=True)

    def _install(self) -> None:
        # A replacement that was never undone would swallow the output of every later call.
        sys.stdout = sys.__stdout__ = self._stdout
        sys.stderr = sys.__stderr__ = self._stderr


def _writer(descriptor: int) -> TextIO:
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def _flush(stream: TextIO | None) -> None:
    try:
        if stream is not None and not stream.closed:
            stream.flush()
    except (OSError, ValueError, AttributeError):
        return  # the program's own object, in whatever state
