"""This terminal, joined to one in a sandbox."""

import asyncio
import codecs
import os
import signal
import sys
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

from cove.cli import output
from cove.cli.sandboxes import opened
from cove.models.errors import CoveError, error
from cove.models.execution import MAX_CODE_BYTES, MAX_EXECUTION_SECONDS
from cove.models.frames import MAX_COLUMNS, MAX_ROWS
from cove.sdk import AsyncControlPlane, AsyncSandbox, AsyncTerminalConnection

_READ_BYTES: Final = 64 * 1024
_END_OF_INPUT: Final = "\x04"
_END_AGAIN_SECONDS: Final = 0.5


def run_script(sandbox_id: str, *, command: str | None, base_url: str | None, api_key: str | None) -> int:
    """Run `command`, else all of stdin, as shell text without a terminal; returns the exit code."""
    text = command if command is not None else _whole_input()
    if not text.strip():
        return 0

    def to_stderr(piece: str) -> None:
        output.pass_on(piece, error=True)

    with opened(sandbox_id, base_url=base_url, api_key=api_key) as sandbox:
        seconds = MAX_EXECUTION_SECONDS
        return sandbox.commands.run(text, timeout=seconds, on_stdout=output.pass_on, on_stderr=to_stderr).exit_code


def run_terminal(
    sandbox_id: str, *, session: str | None, command: str | None, base_url: str | None, api_key: str | None
) -> int:
    """Join this terminal to one in the sandbox until one of both ends; returns the exit code."""

    async def run() -> int:
        async with AsyncControlPlane(base_url=base_url, api_key=api_key) as control:
            sandbox = AsyncSandbox(await control.get(sandbox_id), control)
            columns, rows = _size()
            async with sandbox.terminal.connect(cols=columns, rows=rows, session=session, command=command) as terminal:
                with _raw(sys.stdin.fileno()):
                    await _join(terminal)
                return _end(sandbox_id, terminal)

    return asyncio.run(run())


def _end(sandbox_id: str, terminal: AsyncTerminalConnection) -> int:
    if terminal.exit_code is not None:
        return terminal.exit_code
    if terminal.session is None:
        raise error("NETWORK_ERROR", "The terminal was closed before the shell ended.")
    again = f"cove sandboxes shell {sandbox_id} --session {terminal.session}"
    sys.stderr.write(output.plain(f"The shell goes on: {again}") + "\n")
    return 0


async def _join(terminal: AsyncTerminalConnection) -> None:
    """Show what comes, send what is typed, follow the size of the window."""
    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    assert running
    resized = asyncio.Event()
    loop.add_signal_handler(signal.SIGWINCH, resized.set)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, running.cancel)
    others = [asyncio.ensure_future(_type(terminal)), asyncio.ensure_future(_follow_size(terminal, resized))]
    try:
        async for text in terminal:
            await _show(text)
    except asyncio.CancelledError:
        return
    finally:
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _type(terminal: AsyncTerminalConnection) -> None:
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    with suppress(CoveError):  # the reading side says what happened to the connection
        while data := await _read(sys.stdin.fileno()):
            await terminal.send(decode(data))
        # A program that was not reading yet takes the first of these for something else.
        while True:
            await terminal.send(_END_OF_INPUT)
            await asyncio.sleep(_END_AGAIN_SECONDS)


async def _follow_size(terminal: AsyncTerminalConnection, resized: asyncio.Event) -> None:
    with suppress(CoveError):
        while True:
            await resized.wait()
            resized.clear()
            await terminal.resize(*_size())


async def _read(descriptor: int) -> bytes:
    """What is there to read, once there is something; empty at the end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(descriptor, lambda: None if ready.done() else ready.set_result(None))
    except PermissionError:  # epoll(7) takes no regular files: those are always ready
        return os.read(descriptor, _READ_BYTES)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError:  # the terminal has gone
        return b""


async def _show(text: str) -> None:
    """A terminal that is stopped (Ctrl-S) must not keep the connection from being served."""
    await asyncio.to_thread(output.pass_on, text)


@contextmanager
def _raw(descriptor: int) -> Generator[None]:
    """Every key goes to the sandbox; as before at the end."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _size() -> tuple[int, int]:
    """Columns and rows of this terminal, as far as there is one."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        try:
            columns, rows = os.get_terminal_size(stream.fileno())
        except (OSError, ValueError):
            continue
        if columns > 0 and rows > 0:
            return min(columns, MAX_COLUMNS), min(rows, MAX_ROWS)
    return 80, 24


def _whole_input() -> str:
    data = sys.stdin.buffer.read(MAX_CODE_BYTES + 1)
    if len(data) > MAX_CODE_BYTES:
        raise error("REQUEST_TOO_LARGE", f"The script is longer than {MAX_CODE_BYTES} bytes.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise error("INVALID_REQUEST", "The script is not valid UTF-8.") from None
