"""Collecting the exit statuses of children, and the orphans that a sandbox's first process adopts."""

import asyncio
import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Any

from cove.agent.execution.process_tree import children_of
from cove.linux.process import set_child_subreaper


class Reaper:
    """Waits for the children that are watched and reaps all adopted ones.

    A child is adopted when it is not watched and belongs to another session than this process; a child that some
    other part of the program started and waits for is never touched. Use it in the main thread, on one event loop.
    """

    def __init__(self) -> None:
        self._watched: dict[int, asyncio.Future[int]] = {}
        self._descriptors: dict[int, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._previous: Any = None

    def start(self) -> None:
        """Adopt orphans (pid 1 does anyway) and reap them from now on; a second call does nothing."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        if os.getpid() != 1:
            set_child_subreaper(True)
        self._previous = signal.signal(signal.SIGCHLD, self._on_signal)

    def close(self) -> None:
        """Restore the signal's disposition; who still waits for a child gets a cancelled future."""
        if self._loop is None:
            return
        for pid, future in list(self._watched.items()):
            self._forget(pid)
            future.cancel()
        signal.signal(signal.SIGCHLD, self._previous)
        if os.getpid() != 1:
            set_child_subreaper(False)
        self._loop = None

    def watch(self, pid: int) -> asyncio.Future[int]:
        """The exit code of the new child `pid` (128 + n for signal n). Call it without an await after the fork."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._watched[pid] = future
        # A kernel without pidfd_open(2) leaves SIGCHLD, which is handled too.
        with suppress(OSError):
            descriptor = os.pidfd_open(pid)
            self._descriptors[pid] = descriptor
            loop.add_reader(descriptor, self._collect, pid)
        return future

    def adopted(self) -> list[int]:
        """Children that were started by others and lost their parent."""
        return [pid for pid in children_of(os.getpid()) if self._is_adopted(pid)]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Deferred: between a fork and its `watch` a child looks like an orphan.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._sweep)

    def _sweep(self) -> None:
        for pid in [pid for pid in self._watched if pid not in self._descriptors]:
            self._collect(pid)
        while True:
            pid = _next_ended_child()
            if pid is None:
                return
            if not self._is_adopted(pid):
                break
            _reap(pid)
        # The first ended child is someone's own, and hides the others from waitid(2).
        for pid in self.adopted():
            _reap(pid)

    def _collect(self, pid: int) -> None:
        try:
            status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            code = 255  # reaped by someone else: the status is lost
        else:
            if status is None:
                return
            code = status.si_status if status.si_code == os.CLD_EXITED else 128 + status.si_status
        future = self._watched[pid]
        self._forget(pid)
        if not future.done():
            future.set_result(code)

    def _forget(self, pid: int) -> None:
        del self._watched[pid]
        descriptor = self._descriptors.pop(pid, None)
        if descriptor is not None:
            if self._loop is not None:
                self._loop.remove_reader(descriptor)
            os.close(descriptor)

    def _is_adopted(self, pid: int) -> bool:
        try:
            return pid not in self._watched and os.getsid(pid) != os.getsid(0)
        except ProcessLookupError:
            return False


def _next_ended_child() -> int | None:
    try:
        status = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if status is None else status.si_pid


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
