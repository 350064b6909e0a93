"""Programs in the background of a sandbox: started by one request, asked about by others."""

import asyncio
import os
import shlex
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

from cove.agent.execution.background_program import BackgroundProgram, Identity
from cove.agent.execution.counters import Tally
from cove.agent.execution.ending import GRACE_SECONDS, end_program
from cove.agent.execution.limit_events import LimitEvents
from cove.agent.execution.outcomes import Outcome, Recording
from cove.agent.execution.output import OutputFiles
from cove.agent.execution.output_log import OutputBudget, OutputLog
from cove.agent.execution.process_tree import read_process, send_signal
from cove.models.errors import CoveError, error
from cove.models.processes import BackgroundStarted

MAX_RUNNING = 64
MAX_KEPT = 200
"""Programs that are known, the running ones included."""
KEPT_SECONDS = 3600.0
KEPT_BYTES = 32 * 1024 * 1024
SAFE_SECONDS = 60.0
"""So long after its end a program's output is not given up for that of others: who started it comes to read it."""
MAX_REMEMBERED = 4096
START_SECONDS = 5.0
CLOSE_SECONDS = 2.0
MAX_COMMAND_CHARACTERS = 1000

Work = Callable[[BackgroundProgram, Recording], Awaitable[Outcome]]


class BackgroundPrograms:
    """All background programs of one sandbox, those that run and those that have ended lately."""

    def __init__(self, tally: Tally, events: LimitEvents) -> None:
        self._tally = tally
        self._events = events
        self._files = OutputFiles()
        self._budget = OutputBudget(KEPT_BYTES, self._give_up_oldest)
        self._programs: dict[str, BackgroundProgram] = {}
        self._by_execution: dict[str, BackgroundProgram] = {}
        self._forgotten: deque[str] = deque(maxlen=MAX_REMEMBERED)
        self._tasks: set[asyncio.Task[None]] = set()
        self._expiry: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[BackgroundProgram]:
        """All, the oldest first."""
        return iter(tuple(self._programs.values()))

    async def start(
        self,
        work: Work,
        *,
        prefix: str,
        language: str,
        command: str,
        limit: int,
        timeout: float,
        name: str | None = None,
        execution_id: str | None = None,
        tally: str,
    ) -> BackgroundStarted:
        """Start a program; with an `execution_id` that was used before, answer for the program that it started.

        Args:
            prefix: of the process id.
            limit: bytes of each stream that its result holds.
            timeout: seconds that `work` gives it.
            tally: what it counts as.

        Raises:
            CoveError: RESOURCE_LIMIT_EXCEEDED, CONFLICT (that execution is over and forgotten), or as `work` fails
                before its first process has started.
        """
        known = self._by_execution.get(execution_id or "")
        if known is None:
            self._require_room(execution_id)
            identity = Identity(
                process_id=f"{prefix}{uuid.uuid4().hex[:16]}",
                execution_id=execution_id or f"exec_{uuid.uuid4().hex}",
                name=name,
                language=language,
                command=command[:MAX_COMMAND_CHARACTERS],
            )
            program = self._begin(identity, limit, self._judged(work, timeout), tally)
        else:
            program = known
        await asyncio.wait([program.started], timeout=START_SECONDS)
        if program.started.done():
            program.started.result()
        return program.receipt("Started in the background." if known is None else "Started by an earlier request.")

    def find(self, identifier: str) -> BackgroundProgram:
        """The program with that process id or execution id.

        Raises:
            NotFound: PROCESS_NOT_FOUND.
        """
        program = self._programs.get(identifier) or self._by_execution.get(identifier)
        if program is None:
            raise _not_found(identifier)
        return program

    async def kill(self, identifier: str, number: int | None) -> tuple[str, str]:
        """Signal a program, or with None end its whole tree: returns its process id and what was done, in words.

        Args:
            identifier: a process id, an execution id, or the pid of any process in the sandbox.

        Raises:
            CoveError: PROCESS_NOT_FOUND; FORBIDDEN for the agent's own process.
        """
        pid = int(identifier) if identifier.isascii() and identifier.isdigit() and len(identifier) <= 10 else None
        rooted = next((program for program in self if program.running and program.pid == pid), None)
        if pid is None or rooted is not None:
            program = rooted or self.find(identifier)
            return program.identity.process_id, await program.kill(number)
        return identifier, await _kill_process(pid, number)

    async def close(self) -> None:
        """End all that still run."""
        if self._expiry is not None:
            self._expiry.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    def _require_room(self, execution_id: str | None) -> None:
        if execution_id is not None and execution_id in self._forgotten:
            raise error(
                "CONFLICT",
                f"{execution_id} has been executed, and its result is no longer kept.",
                remedy="Use a new execution_id to run it again.",
            )
        self._drop_expired()
        if sum(program.running for program in self) >= MAX_RUNNING:
            raise error(
                "RESOURCE_LIMIT_EXCEEDED",
                f"The limit of {MAX_RUNNING} background programs that run at a time is reached.",
                remedy="Wait until one has ended, or end one with POST /execute/kill/{process_id}.",
                limit=MAX_RUNNING,
            )

    def _judged(self, work: Work, timeout: float) -> Work:
        async def judged(program: BackgroundProgram, recording: Recording) -> Outcome:
            with self._events.watched() as watch:
                outcome = await work(program, recording)
                return await watch.judged(outcome, recording, seconds=timeout)

        return judged

    def _begin(self, identity: Identity, limit: int, work: Work, tally: str) -> BackgroundProgram:
        def log(stream: str, changed: Callable[[], None]) -> OutputLog:
            def create_file() -> tuple[int, str] | None:
                return self._files.create(identity.execution_id, stream)

            return OutputLog(limit, create_file, budget=self._budget, changed=changed)

        program = BackgroundProgram(identity, log)
        self._programs[identity.process_id] = program
        self._by_execution[identity.execution_id] = program
        task = asyncio.ensure_future(self._run(program, work, tally))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return program

    async def _run(self, program: BackgroundProgram, work: Work, tally: str) -> None:
        with self._tally.running(tally) as done:
            outcome = await program.run(lambda recording: work(program, recording), self._budget)
            done(outcome.exit_code)
        if program.started.exception() is not None:
            self._remove(program)
            return
        self._drop_expired()

    def _drop_expired(self) -> None:
        now = time.monotonic()
        ended = [program for program in self if program.ended_at is not None]
        surplus = len(self._programs) - MAX_KEPT
        for number, program in enumerate(ended):
            if number < surplus or now - (program.ended_at or now) >= KEPT_SECONDS:
                self._forget(program)
        self._expect_expiry(now)

    def _expect_expiry(self, now: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        ends = [program.ended_at for program in self if program.ended_at is not None]
        self._expiry = None
        if ends:
            delay = max(min(ends) + KEPT_SECONDS - now, 0)
            self._expiry = asyncio.get_running_loop().call_later(delay, self._drop_expired)

    def _give_up_oldest(self) -> bool:
        latest = time.monotonic() - SAFE_SECONDS
        for program in self:
            if program.ended_at is not None and program.ended_at < latest:
                self._forget(program)
                return True
        return False

    def _forget(self, program: BackgroundProgram) -> None:
        self._remove(program)
        self._forgotten.append(program.identity.execution_id)

    def _remove(self, program: BackgroundProgram) -> None:
        del self._programs[program.identity.process_id]
        del self._by_execution[program.identity.execution_id]
        program.forget(self._budget)


def command_line(command: str, args: tuple[str, ...] | None) -> str:
    """A command as one would type it."""
    return command if args is None else shlex.join((command, *args))


def first_line(code: str) -> str:
    """What names a piece of code in a list."""
    return next((line.strip() for line in code.splitlines() if line.strip()), "")


async def _kill_process(pid: int, number: int | None) -> str:
    if pid in (1, os.getpid()):
        raise error("FORBIDDEN", "That is the sandbox's own agent.", remedy="DELETE the sandbox to end everything.")
    record = read_process(pid)
    if record is None or record.state in "ZX":
        raise _not_found(str(pid))
    if number is None:
        await end_program(pid, grace=GRACE_SECONDS)
        return f"process {pid} was ended"
    send_signal(record, number)
    return f"signal {number} was sent to process {pid}"


def _not_found(identifier: str) -> CoveError:
    return error(
        "PROCESS_NOT_FOUND",
        f"There is no process {identifier[:80]!r}.",
        remedy="GET /execute/processes lists background programs, GET /processes all processes.",
        process_id=identifier[:80],
    )
