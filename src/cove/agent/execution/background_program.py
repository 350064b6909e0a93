"""One program in the background: what it prints, how it goes, how it ends."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace

from pydantic_core import to_json

from cove.agent.clock import timestamp
from cove.agent.execution.answers import execution_result
from cove.agent.execution.ending import GRACE_SECONDS, end_program
from cove.agent.execution.outcomes import Outcome, Recording
from cove.agent.execution.output_log import OutputBudget, OutputLog, Part
from cove.agent.execution.signals import ending_signal, signal_group
from cove.models.errors import CoveError, error
from cove.models.execution import MAX_EXECUTION_SECONDS, ExecutionResult
from cove.models.processes import BackgroundProcess, BackgroundStarted, ProcessLogs, ProcessStatus

PART_BYTES = 256 * 1024
END_SECONDS = 2.0
PLATFORM_EXIT_CODE = 125
_SIGKILL = 9
_log = logging.getLogger("cove.agent")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a program is called, from its request.

    Attributes:
        command: the command, or the first line of the code.
    """

    process_id: str
    execution_id: str
    name: str | None
    language: str
    command: str


class Changes:
    """Wakes everyone who waits for the next change."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def announce(self) -> None:
        """There is one."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Return when `condition` holds, `seconds` from now at the latest."""
        deadline = time.monotonic() + seconds
        while not condition() and (left := deadline - time.monotonic()) > 0:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=left)
            finally:
                self._waiters.discard(waiter)


class BackgroundProgram:
    """A program that runs for nobody's connection, and what is kept of it after its end.

    Attributes:
        started: done when its first process is there, or with the error that no process could be started.
        ended_at: monotonic time of its end.
    """

    def __init__(self, identity: Identity, log: Callable[[str, Callable[[], None]], OutputLog]) -> None:
        """`log` makes the log of `stdout` or `stderr`, which calls the function it is given at each change."""
        self.identity = identity
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended_at: float | None = None
        self._changes = Changes()
        self._logs = {stream: log(stream, self._changes.announce) for stream in ("stdout", "stderr")}
        self._recording = Recording(self._logs["stdout"], self._logs["stderr"])
        self._began = time.monotonic()
        self._start_time = timestamp()
        self._end_time: str | None = None
        self._outcome: Outcome | None = None
        self._display_bytes = 0
        self._process: tuple[int, asyncio.Future[int]] | None = None
        self._killed = False
        self._signals: set[int] = set()

    @property
    def running(self) -> bool:
        """It has not ended yet."""
        return self._outcome is None

    @property
    def pid(self) -> int:
        """Of its root process, the last one it had."""
        return self._process[0] if self._process else 0

    async def run(self, work: Callable[[Recording], Awaitable[Outcome]], budget: OutputBudget) -> Outcome:
        """Do `work` and keep what comes of it. A failing platform is told by `started`, or in the program's output."""
        try:
            outcome = await work(self._recording)
        except CoveError as failure:
            outcome = self._failed(failure)
        except asyncio.CancelledError:
            self._end(Outcome(128 + _SIGKILL), budget)
            raise
        except Exception:
            _log.exception("internal error, background program %s", self.identity.process_id)
            outcome = self._failed(error("INTERNAL_ERROR", "The agent failed at this program."))
        self._end(outcome, budget)
        return outcome

    def on_start(self, pid: int, ended: "asyncio.Future[int]") -> None:
        """A root process of it is there: the first one, or that of its next step."""
        self._process = (pid, ended)
        if self._killed:
            signal_group(pid, _SIGKILL)
        if not self.started.done():
            self.started.set_result(None)

    async def kill(self, number: int | None) -> str:
        """Signal its processes; with None or SIGKILL, end its whole tree for certain. Returns what was done."""
        await asyncio.wait([self.started], timeout=END_SECONDS)
        if not self.running or self._process is None:
            return f"{self.identity.process_id} has already ended"
        pid, ended = self._process
        if number is None or number == _SIGKILL:
            self._killed = True
            await end_program(pid, grace=GRACE_SECONDS if number is None else 0, ended=ended)
            await self.wait_ended(END_SECONDS)
            return f"{self.identity.process_id} was ended"
        self._signals.add(number)
        if not ended.done():
            signal_group(pid, number)
        return f"signal {number} was sent to {self.identity.process_id}"

    async def wait_ended(self, seconds: float) -> None:
        """Return when it has ended, `seconds` from now at the latest."""
        await self._changes.until(lambda: not self.running, seconds)

    async def read(self, stream: str, offset: int, *, wait: float) -> ProcessLogs:
        """The next part of `stream` from byte `offset` on; waits until there is one, or the program has ended."""
        log = self._logs[stream]
        parts: list[Part] = []

        def found() -> bool:
            parts[:] = [log.read(offset, PART_BYTES)]
            return parts[0].next_offset > offset or not self.running

        await self._changes.until(found, wait)
        part = parts[0]
        return ProcessLogs(
            process_id=self.identity.process_id,
            stream=stream,
            text=part.text,
            offset=part.offset,
            next_offset=part.next_offset,
            complete=not self.running and part.next_offset >= log.end,
            status=self.status,
        )

    async def follow(self) -> AsyncGenerator[tuple[str, bytes]]:
        """Each piece of output that the result will hold: what there is already, then what comes, until the end."""
        positions = dict.fromkeys(self._logs, 0)
        while True:
            over = not self.running
            for stream, log in self._logs.items():
                while piece := log.kept(positions[stream], PART_BYTES):
                    positions[stream] += len(piece)
                    yield stream, piece
            if over:
                return
            await self._changes.until(lambda: not self.running or self._has_more(positions), MAX_EXECUTION_SECONDS)

    def _has_more(self, positions: dict[str, int]) -> bool:
        return any(log.kept(positions[stream], 1) for stream, log in self._logs.items())

    @property
    def status(self) -> ProcessStatus:
        """Killed means: through `kill`. A timeout is a failure."""
        outcome = self._outcome
        if outcome is None:
            return ProcessStatus.RUNNING
        if self._killed or (not outcome.timed_out and ending_signal(outcome.exit_code) in self._signals):
            return ProcessStatus.KILLED
        return ProcessStatus.COMPLETED if outcome.exit_code == 0 else ProcessStatus.FAILED

    def receipt(self, message: str) -> BackgroundStarted:
        """The answer to its start."""
        return BackgroundStarted(
            process_id=self.identity.process_id,
            execution_id=self.identity.execution_id,
            status=self.status,
            start_time=self._start_time,
            message=message,
            name=self.identity.name,
        )

    def describe(self, *, detailed: bool = False) -> BackgroundProcess:
        """Everything about it; with `detailed` its result too, once it has ended."""
        outcome, seconds = self._outcome, self._seconds
        exit_code = None if outcome is None else outcome.exit_code
        return BackgroundProcess(
            process_id=self.identity.process_id,
            execution_id=self.identity.execution_id,
            name=self.identity.name,
            status=self.status,
            language=self.identity.language,
            command=self.identity.command,
            pid=self.pid,
            start_time=self._start_time,
            started_at=self._start_time,
            end_time=self._end_time,
            completed_at=self._end_time,
            exit_code=exit_code,
            signal=None if outcome is None or outcome.timed_out else ending_signal(outcome.exit_code),
            duration=seconds,
            execution_time=seconds,
            timed_out=outcome is not None and outcome.timed_out,
            limit=None if outcome is None else outcome.limit,
            stdout=self._logs["stdout"].tail(),
            stderr=self._logs["stderr"].tail(),
            result=self.result() if detailed else None,
        )

    def result(self) -> ExecutionResult | None:
        """What `/execute` would have answered; None while it runs."""
        outcome, errors = self._outcome, self._logs["stderr"]
        if outcome is None:
            return None
        # Notes are the last lines of the log already, unless they are cut off with it.
        streams = self._recording.finish(outcome.notes if errors.truncated else ())
        made = execution_result(self.identity.execution_id, self.identity.language, outcome, streams, self._seconds)
        return made.model_copy(update={"timestamp": self._end_time})

    def forget(self, budget: OutputBudget) -> None:
        """Free what it keeps in memory."""
        for log in self._logs.values():
            log.forget()
        budget.give(self._display_bytes)
        self._display_bytes = 0

    @property
    def _seconds(self) -> float:
        return round((self.ended_at or time.monotonic()) - self._began, 6)

    def _failed(self, failure: CoveError) -> Outcome:
        if not self.started.done():
            self.started.set_exception(failure)
        return Outcome(PLATFORM_EXIT_CODE, notes=(f"{failure.code}: {failure}",))

    def _end(self, outcome: Outcome, budget: OutputBudget) -> None:
        outcome = self._charge_displays(outcome, budget)
        for note in outcome.notes:
            self._logs["stderr"].note(note)
        self._outcome = outcome
        self.ended_at = time.monotonic()
        self._end_time = timestamp()
        if not self.started.done():
            self.started.set_result(None)
        for log in self._logs.values():
            log.close()

    def _charge_displays(self, outcome: Outcome, budget: OutputBudget) -> Outcome:
        size = sum(len(to_json(displayed.data)) for displayed in outcome.displayed) + len(outcome.result or "")
        self._display_bytes = budget.take(size)
        if self._display_bytes == size:
            return outcome
        budget.give(self._display_bytes)
        self._display_bytes = 0
        note = (
            f"display: {len(outcome.displayed)} rich outputs were left out (background programs keep too much already)"
        )
        return replace(outcome, notes=(*outcome.notes, note), displayed=(), result=None)
