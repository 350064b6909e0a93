"""One program on a pseudo-terminal, with at most one client that looks at it."""

import asyncio
import os
from contextlib import suppress

from cove.agent.clock import timestamp
from cove.agent.execution.ending import end_program, lives
from cove.agent.execution.process_tree import descendants
from cove.agent.terminals.view import View
from cove.linux.terminals import set_window_size

SCROLLBACK_BYTES = 64 * 1024
HANGUP_SECONDS = 0.3
_READ_BYTES = 64 * 1024
_MAX_LAST_BYTES = 256 * 1024
"""What may still be read when the program has ended: others may go on writing for ever."""


class Terminal:
    """A program, its terminal, and what it has shown last.

    Attributes:
        exit_code: of the ended program; 128 + signal number when a signal ended it.
        kept: it goes on without a client, and its last output is shown to the next one.
    """

    def __init__(
        self, pid: int, descriptor: int, ended: "asyncio.Future[int]", *, columns: int, rows: int, kept: bool
    ) -> None:
        """`descriptor`, the far end of the terminal, is handed over."""
        self.pid = pid
        self.columns = columns
        self.rows = rows
        self.kept = kept
        self.exit_code: int | None = None
        self.started_at = timestamp()
        self._ended = ended
        self._descriptor = descriptor
        self._open = True
        self._reading = False
        self._hung_up = False
        self._view: View | None = None
        self._scrollback = bytearray()
        self._unwritten = memoryview(b"")
        self._written = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        ended.add_done_callback(self._finish)
        self._steer()

    @property
    def attached(self) -> bool:
        """Whether a client looks at it."""
        return self._view is not None

    def attach(self) -> View:
        """Show it to a client; the one before is displaced."""
        if self._view is not None:
            self._view.displace()
        self._view = View(self._replay(), self._steer)
        if self.exit_code is not None:
            self._view.news.set()
        self._steer()
        return self._view

    def detach(self, view: View) -> None:
        """The client has gone; nothing happens when it was displaced before."""
        if self._view is view:
            self._view = None
            self._steer()

    def resize(self, *, columns: int, rows: int) -> None:
        """Tell the programs another size of the window."""
        if self._open:
            with suppress(OSError):
                set_window_size(self._descriptor, columns=columns, rows=rows)
                self.columns, self.rows = columns, rows

    async def write(self, data: bytes) -> None:
        """Type `data`; returns when the terminal has taken all of it. For one caller at a time."""
        self._unwritten = memoryview(data)
        self._written.clear()
        self._write()
        if self._unwritten:
            self._loop.add_writer(self._descriptor, self._write)
            await self._written.wait()

    async def end(self) -> None:
        """Hang up (SIGHUP to the session), and end the program and all below it."""
        known = descendants(self.pid) if self.exit_code is None else []
        self._close()
        await end_program(self.pid, grace=HANGUP_SECONDS, ended=self._ended)
        # Those whose parents obeyed first are below the program no longer.
        for record in known:
            if lives(record):
                await end_program(record.pid, grace=0)

    def _steer(self) -> None:
        wanted = self._open and not self._hung_up and (self.kept if self._view is None else not self._view.full)
        if wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._loop.add_reader(self._descriptor, self._read)
        elif self._open:
            self._loop.remove_reader(self._descriptor)

    def _read(self) -> int:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: no program has it open any more
            data = b""
        if not data:
            self._hung_up = True
        if self.kept:
            self._scrollback += data
            del self._scrollback[: max(len(self._scrollback) - SCROLLBACK_BYTES, 0)]
        if self._view is not None and data:
            self._view.show(data)
        self._steer()
        return len(data)

    def _write(self) -> None:
        if self._open and self._unwritten:
            try:
                self._unwritten = self._unwritten[os.write(self._descriptor, self._unwritten) :]
            except BlockingIOError:
                return
            except OSError:
                self._unwritten = memoryview(b"")
        if not self._unwritten or not self._open:
            self._unwritten = memoryview(b"")
            if self._open:
                self._loop.remove_writer(self._descriptor)
            self._written.set()

    def _finish(self, ended: "asyncio.Future[int]") -> None:
        left = _MAX_LAST_BYTES
        while self._open and not self._hung_up and left > 0 and (read := self._read()):
            left -= read
        self._close()
        self.exit_code = 137 if ended.cancelled() else ended.result()
        if self._view is not None:
            self._view.news.set()

    def _close(self) -> None:
        if not self._open:
            return
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        self._open = self._reading = False
        os.close(self._descriptor)
        self._write()

    def _replay(self) -> bytes:
        """The scrollback from the beginning of a line, or of a character at least, when its beginning is lost."""
        kept = bytes(self._scrollback)
        if len(kept) < SCROLLBACK_BYTES:
            return kept
        line = kept.find(b"\n") + 1
        start = line or next((index for index, byte in enumerate(kept[:4]) if byte & 0xC0 != 0x80), 0)
        return kept[start:]
