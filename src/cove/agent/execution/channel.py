"""The agent's end of the channel to one interpreter process."""

import asyncio
import os
import signal
import socket
from contextlib import suppress

from cove.agent.execution.frames import (
    MAX_FRAME_BYTES,
    MAX_RICH_OUTPUTS,
    Displayed,
    Finished,
    FrameDecoder,
    ProtocolViolation,
)
from cove.agent.execution.pipes import PipeReader

_RECEIVE_BYTES = 256 * 1024
MAX_CALL_BYTES = 2 * MAX_FRAME_BYTES


class InterpreterDied(Exception):
    """The process ended in the middle of a call."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"ended with exit code {exit_code}")
        self.exit_code = exit_code


class Interpreter:
    """One interpreter process: sends calls to it and hears how they end.

    Attributes:
        ended: done with the exit code when the process is gone.
        streams: its standard output and error when they stay the same for its whole life.
        environment: the sandbox's variables as it knows them.
    """

    def __init__(
        self,
        pid: int,
        control: socket.socket,
        ended: "asyncio.Future[int]",
        *,
        environment: dict[str, str],
        streams: tuple[PipeReader, PipeReader] | None = None,
    ) -> None:
        self.pid = pid
        self.ended = ended
        self.streams = streams
        self.environment = environment
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder()
        self._displayed: list[Displayed] = []
        self._received = 0
        self._unsent = memoryview(b"")
        self._answer: asyncio.Future[Finished] | None = None
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._on_readable)
        ended.add_done_callback(self._on_end)

    def call(self, frame: bytes, descriptors: list[int]) -> "asyncio.Future[Finished]":
        """Send one call; the future ends with its answer, or with `InterpreterDied`. `descriptors` go along."""
        answer: asyncio.Future[Finished] = self._loop.create_future()
        self._answer = answer
        self._displayed = []
        self._received = 0
        self._unsent = memoryview(frame)
        if self.ended.done():
            answer.set_exception(InterpreterDied(self.exit_code))
            return answer
        self._send(descriptors)
        return answer

    @property
    def exit_code(self) -> int:
        """Of the ended process; as after SIGKILL when nobody can tell."""
        return 137 if self.ended.cancelled() else self.ended.result()

    @property
    def displayed(self) -> tuple[Displayed, ...]:
        """What the current or last call has displayed."""
        return tuple(self._displayed)

    def hang_up(self) -> None:
        """Close the channel: an interpreter that waits for a call ends."""
        if not self.ended.done():
            with suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)

    def interrupt(self) -> None:
        """Send SIGINT."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Send SIGKILL to the process alone."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Its status was not collected yet, so the pid is still its own.
        if not self.ended.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _send(self, descriptors: list[int]) -> None:
        try:
            if descriptors:
                sent = socket.send_fds(self._control, [self._unsent], descriptors)
            else:
                sent = self._control.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            # The channel broke, so the process is dying; its death is what counts.
            self.kill()
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._control.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._control.fileno())
        self._send([])

    def _on_readable(self) -> None:
        try:
            chunk = self._control.recv(_RECEIVE_BYTES)
            messages = self._decoder.feed(chunk)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ProtocolViolation):
            messages, chunk = [], b""
        for message in messages:
            self._on_message(message)
        self._received += len(chunk)
        if not chunk or self._received > MAX_CALL_BYTES:
            self._loop.remove_reader(self._control.fileno())
            self.kill()

    def _on_message(self, message: Displayed | Finished) -> None:
        if isinstance(message, Finished):
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(message)
            return
        if len(self._displayed) < MAX_RICH_OUTPUTS:
            self._displayed.append(message)

    def _on_end(self, ended: "asyncio.Future[int]") -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control.fileno())
            self._loop.remove_writer(self._control.fileno())
            self._control.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(InterpreterDied(self.exit_code))
