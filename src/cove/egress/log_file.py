"""The log of all sandboxes' connections and look-ups, in a file that the host opens: this program may open none."""

import asyncio
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from cove.models.network import EgressEntry

_GATHER_SECONDS: Final = 0.05
_MOST_WAITING: Final = 4 * 1024 * 1024
_SAY_AGAIN_SECONDS: Final = 60.0
_log = structlog.get_logger(__name__)


class LogFile:
    """Lines of JSON, written by a thread: a slow disk stops nobody. What cannot be written is counted, and the file
    says so as soon as it can.

    The host moves the file away when it is full; should it not, nothing is added beyond twice its size.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        self._max_bytes = 0
        self._lines: list[bytes] = []
        self._waiting = 0
        self._lost = 0
        self._torn = False
        self._said = float("-inf")
        self._writing: asyncio.Task[None] | None = None
        # Of its own: what asyncio would import for one, this program may no longer read by then.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log")

    def write_to(self, file: int | None, *, max_bytes: int = 0) -> None:
        """From now on to this one, which is closed when there is another; None: no log is kept.

        Raises:
            ValueError: it is no regular file.
        """
        if file is not None and not stat.S_ISREG(os.fstat(file).st_mode):
            raise ValueError("the log is no regular file")
        if self._file is not None:
            os.close(self._file)
        self._file, self._max_bytes = None if file is None else os.dup(file), max_bytes

    def add(self, sandbox_id: str, entry: EgressEntry) -> None:
        """Soon."""
        if self._file is None:
            return
        if self._waiting > _MOST_WAITING:
            self._lost += 1
            return
        line = b'{"sandbox_id":"%s",%s\n' % (sandbox_id.encode(), entry.model_dump_json().encode()[1:])
        self._lines.append(line)
        self._waiting += len(line)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Write what waits."""
        if self._writing is not None:
            await self._writing
        self.write_to(None)

    async def _write_all(self) -> None:
        try:
            while self._lines:
                await asyncio.sleep(_GATHER_SECONDS)  # one write for many
                lines, self._lines, self._waiting = self._lines, [], 0
                lost, self._lost = self._lost, 0
                try:
                    await self._write(lines, lost)
                except (OSError, RuntimeError) as problem:  # the latter: there is no thread to be had
                    self._lost += lost + len(lines)
                    self._torn = True
                    self._say(problem)
        finally:
            self._writing = None

    async def _write(self, lines: list[bytes], lost: int) -> None:
        if self._file is None:
            return
        file = os.dup(self._file)  # the host may hand in another one meanwhile
        try:
            if os.fstat(file).st_size >= 2 * self._max_bytes:
                raise OSError("it is full, and nobody has moved it away")
            before = b"\n" if self._torn else b""
            note = b'{"lost":%d}\n' % lost if lost else b""
            data = before + note + b"".join(lines)
            await asyncio.get_running_loop().run_in_executor(self._thread, _append, file, data)
            self._torn = False
        finally:
            os.close(file)

    def _say(self, problem: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said >= _SAY_AGAIN_SECONDS:
            self._said = now
            _log.error("egress_log_not_written", problem=str(problem), lost=self._lost)


def _append(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
