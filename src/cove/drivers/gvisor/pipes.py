"""The pipes to a sandbox that is not born yet. What comes out of them is bounded, and not trusted."""

import asyncio
import contextlib
import json
import os
from typing import Any, Final, Self

from cove.drivers.gvisor.guest import protocol

_TAIL: Final = 4096


class GuestPipes:
    """Standard input, output and error of a sandbox, the driver's ends.

    Attributes:
        theirs: the ends for the sandbox: input, output, error.
    """

    def __init__(self) -> None:
        stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
        self._stdout, stdout = os.pipe2(os.O_CLOEXEC)
        self._stderr, stderr = os.pipe2(os.O_CLOEXEC)
        self.theirs = (stdin, stdout, stderr)
        self._received = bytearray()
        self._errors = bytearray()
        self._loop = asyncio.get_running_loop()
        for handle in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(handle, False)
        self._loop.add_reader(self._stderr, self._keep_errors)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def started(self) -> None:
        """The sandbox has its ends."""
        for handle in self.theirs:
            os.close(handle)
        self.theirs = (-1, -1, -1)

    def close(self) -> None:
        """Idempotent. A sandbox that is not born yet ends by it."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._stderr)
        for handle in (self._stdin, self._stdout, self._stderr, *self.theirs):
            if handle >= 0:
                os.close(handle)

    @property
    def errors(self) -> str:
        """The last of what was written to standard error."""
        self._keep_errors()
        return self._errors.decode(errors="replace").strip()

    async def send(self, line: bytes) -> None:
        """Write a line.

        Raises:
            OSError: the sandbox has ended.
        """
        view = memoryview(line + b"\n")
        while view:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await self._ready(self._stdin, write=True)

    async def read_line(self) -> bytes:
        """The next line; at the end, or when it is too long, what there is."""
        while b"\n" not in self._received:
            try:
                data = os.read(self._stdout, protocol.MAX_LINE)
            except BlockingIOError:
                await self._ready(self._stdout, write=False)
                continue
            if not data or len(self._received) > protocol.MAX_LINE:
                break
            self._received += data
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        return line

    async def receive(self) -> dict[str, Any] | None:
        """The next line as a JSON object; None at the end, or when it is not one."""
        with contextlib.suppress(ValueError):
            message = json.loads(await self.read_line())
            if isinstance(message, dict):
                return message  # pyright: ignore[reportUnknownVariableType]
        return None

    async def _ready(self, handle: int, *, write: bool) -> None:
        ready = asyncio.Event()
        add, remove = (
            (self._loop.add_writer, self._loop.remove_writer)
            if write
            else (self._loop.add_reader, self._loop.remove_reader)
        )
        add(handle, ready.set)
        try:
            await ready.wait()
        finally:
            remove(handle)

    def _keep_errors(self) -> None:
        if self._closed:
            return
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._stderr, protocol.MAX_LINE)
            if not data:
                self._loop.remove_reader(self._stderr)
            self._errors += data
            del self._errors[:-_TAIL]
