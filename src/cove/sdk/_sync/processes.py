# Generated from src/cove/sdk/_async/processes.py by tools/generate_sync_sdk.py. Do not edit.

"""Programs that run in the background of a sandbox."""

import time
from collections.abc import Generator
from contextlib import closing
from typing import Literal, overload

from cove.models.errors import error
from cove.models.execution import MAX_EXECUTION_SECONDS
from cove.models.processes import BackgroundStarted, ProcessKilled, ProcessLogs, ProcessStatus
from cove.sdk import _process_requests as requests
from cove.sdk._events import ExecutionEvent
from cove.sdk._failures import parse
from cove.sdk._process_results import ProcessInfo
from cove.sdk._requests import check_seconds
from cove.sdk._results import Execution
from cove.sdk._sync.agent import AgentLink
from cove.sdk._sync.primitives import Later
from cove.sdk._sync.streaming import event_stream

_MAX_LOG_CHARACTERS = 64 * 1024 * 1024


class Process:
    """A program that was started with `run_code_background` or `commands.run(..., background=True)`.

    It runs on when the client goes away, until its own timeout.

    Attributes:
        id: `proc_...` for code, `cmd_...` for a command.
        execution_id: of this run.
        name: for people.
        status: as far as this object knows; `refresh` asks.
        exit_code: once it has ended, as far as this object knows.
        info: what the agent said last; None right after the start.
    """

    def __init__(self, link: AgentLink, known: BackgroundStarted | ProcessInfo) -> None:
        self._link = link
        self.id = known.process_id
        self.execution_id = known.execution_id
        self.name = known.name
        self.status = known.status
        self.info = known if isinstance(known, ProcessInfo) else None
        self.exit_code = None if self.info is None else self.info.exit_code

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    def refresh(self) -> ProcessInfo:
        """What the agent knows of it now.

        Raises:
            NotFound: it ended long ago, and the agent does not remember it.
        """
        return self._look(None)

    def wait(self, timeout: float | None = None) -> Execution:
        """Its result, once it has ended. A program that failed or was killed is a result too.

        Args:
            timeout: seconds; absent means until the program's own timeout.

        Raises:
            PlatformFailure: TIMEOUT: it still runs after `timeout` seconds, and goes on running.
        """
        seconds = MAX_EXECUTION_SECONDS if timeout is None else check_seconds("timeout", timeout)
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            info = self._look(min(requests.POLL_SECONDS, max(left, 0.0)))
            if info.status is not ProcessStatus.RUNNING:
                return info.outcome()
            if left <= 0:
                raise error(
                    "TIMEOUT",
                    f"Process {self.id} still runs after {seconds:g} s.",
                    remedy="Wait again, or end it with kill().",
                )

    @overload
    def logs(self, stream: str = "stdout", *, follow: Literal[False] = False) -> Later[str]: ...

    @overload
    def logs(self, stream: str = "stdout", *, follow: Literal[True]) -> Generator[str, None]: ...

    def logs(self, stream: str = "stdout", *, follow: bool = False) -> Later[str] | Generator[str, None]:
        """What it has printed so far; with `follow` piece by piece, until it ends.

        The agent keeps the beginning of each stream, as much as was allowed at the start.

        Args:
            stream: `stdout` or `stderr`.
        """
        requests.process_logs(self.id, stream, offset=0)
        return self._follow(stream) if follow else self._text(stream)

    def events(self) -> Generator[ExecutionEvent, None]:
        """What it has printed so far and what it prints from now on, both streams in order; then its result.

        Leaving the loop does not end the program.
        """
        return event_stream(self._link, requests.process_events(self.id))

    def kill(self, signal: int | str | None = None) -> ProcessKilled:
        """End it with all that it started; or send `signal` (`SIGINT`, `INT`, 2) and let it decide.

        One that has ended already is fine.

        Raises:
            InvalidRequest: there is no such signal.
        """
        return parse(ProcessKilled, self._link.send(requests.kill_process(self.id, signal)))

    def _look(self, wait: float | None) -> ProcessInfo:
        info = parse(ProcessInfo, self._link.send(requests.process(self.id, wait=wait)))
        self.info, self.status, self.exit_code, self.name = info, info.status, info.exit_code, info.name
        return info

    def _text(self, stream: str) -> str:
        pieces: list[str] = []
        with closing(self._pieces(stream, wait=None)) as found:
            for piece in found:
                pieces.append(piece)
        return "".join(pieces)

    def _follow(self, stream: str) -> Generator[str, None]:
        with closing(self._pieces(stream, wait=requests.POLL_SECONDS)) as found:
            yield from found

    def _pieces(self, stream: str, *, wait: float | None) -> Generator[str, None]:
        offset = total = 0
        deadline = time.monotonic() + MAX_EXECUTION_SECONDS
        while total <= _MAX_LOG_CHARACTERS and time.monotonic() < deadline:
            call = requests.process_logs(self.id, stream, offset=offset, wait=wait)
            part = parse(ProcessLogs, self._link.send(call))
            if part.text:
                total += len(part.text)
                yield part.text
            if part.complete or (wait is None and part.next_offset <= offset):
                return
            offset = max(offset, part.next_offset)
