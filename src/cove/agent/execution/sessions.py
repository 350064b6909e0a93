"""Stateful interpreters: one call after the other, and a fresh process when the old one is lost."""

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from cove.agent.execution.channel import Interpreter, InterpreterDied
from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.frames import Finished, encode_frame
from cove.agent.execution.launchers import Launcher
from cove.agent.execution.outcomes import TIMEOUT_EXIT_CODE, Outcome, Recording, loss_note, timeout_note
from cove.agent.execution.pipes import PipeReader, Pipes
from cove.agent.execution.process_tree import descendants, end_tree, signal_all, spare_existing

INTERRUPT_PAUSES = (0.1, 0.15, 0.15)
DEATH_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class SessionCall:
    """One call of a stateful interpreter."""

    code: str
    timeout: float
    workdir: str | None
    variables: Mapping[str, str]
    rich: bool
    result_limit: int


class Session:
    """The stateful interpreter of one language in one sandbox."""

    def __init__(self, launcher: Launcher, environment: SandboxEnvironment, pipes: Pipes) -> None:
        self._launcher = launcher
        self._environment = environment
        self._pipes = pipes
        self._turn = asyncio.Lock()
        self._interpreter: Interpreter | None = None
        self._calls: set[asyncio.Task[Outcome]] = set()

    def start(self) -> None:
        """Start the interpreter, without waiting until it is ready.

        Raises:
            CoveError: it cannot be started.
        """
        if self._interpreter is None:
            self._interpreter = self._launcher.launch()

    async def run(self, call: SessionCall, recording: Recording) -> Outcome:
        """Run one call when it is its turn. When the caller is cancelled, so is the program.

        Raises:
            CoveError: no interpreter can be started.
        """
        try:
            async with asyncio.timeout(call.timeout):
                await self._turn.acquire()
        except TimeoutError:
            note = f"timeout: not started; earlier calls kept the interpreter busy for {call.timeout:g} s"
            return Outcome(TIMEOUT_EXIT_CODE, timed_out=True, notes=(note,))
        cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A task of its own: it keeps the turn until the program is really gone, whoever stops waiting for it.
        task = asyncio.ensure_future(self._run(call, recording, cancelled))
        self._calls.add(task)
        task.add_done_callback(self._on_done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled.set_result(None)
            await asyncio.wait([task], timeout=2 * DEATH_SECONDS + sum(INTERRUPT_PAUSES))
            raise

    async def close(self) -> None:
        """End the interpreter and everything below it."""
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None and not interpreter.ended.done():
            await end_tree(interpreter.pid)
            await asyncio.wait([interpreter.ended], timeout=DEATH_SECONDS)
        if self._calls:
            await asyncio.wait(self._calls, timeout=DEATH_SECONDS)

    def _on_done(self, task: "asyncio.Task[Outcome]") -> None:
        self._calls.discard(task)
        self._turn.release()
        if not task.cancelled():
            task.exception()  # seen, even when nobody waits any more

    async def _run(self, call: SessionCall, recording: Recording, cancelled: "asyncio.Future[None]") -> Outcome:
        died = self._interpreter is not None and self._interpreter.ended.done()
        notes: tuple[str, ...] = ()
        if died:
            self._forget()
            notes = (loss_note(self._launcher.language, "had ended since the last call"),)
        self.start()
        interpreter = self._interpreter
        assert interpreter is not None
        attempt = _Attempt(interpreter, call, recording, self._pipes)
        try:
            outcome = await attempt.run(self._environment.effective(), self._launcher, cancelled)
        finally:
            attempt.release()
            if interpreter.ended.done():
                self._forget()
        return Outcome(
            outcome.exit_code,
            interpreter.pid,
            timed_out=outcome.timed_out,
            restarted=outcome.restarted or died,
            notes=notes + outcome.notes,
            displayed=interpreter.displayed,
            result=outcome.result,
        )

    def _forget(self) -> None:
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None and interpreter.streams is not None:
            for reader in interpreter.streams:
                self._pipes.release(reader)


class _Attempt:
    """One call in one interpreter process."""

    def __init__(self, interpreter: Interpreter, call: SessionCall, recording: Recording, pipes: Pipes) -> None:
        self._interpreter = interpreter
        self._call = call
        self._pipes = pipes
        self._ends: list[int] = []
        self._spared = spare_existing(interpreter.pid)
        if interpreter.streams is not None:
            self._readers = interpreter.streams
            for reader, sink in zip(self._readers, (recording.stdout, recording.stderr), strict=True):
                reader.drain()  # what came between the calls belongs to none
                reader.sink = sink
        else:
            self._readers = (self._open(recording, "stdout"), self._open(recording, "stderr"))

    def _open(self, recording: Recording, name: str) -> PipeReader:
        reader, end = self._pipes.open(getattr(recording, name))
        self._ends.append(end)
        return reader

    async def run(self, variables: dict[str, str], launcher: Launcher, cancelled: "asyncio.Future[None]") -> Outcome:
        frame = self._frame(variables)
        answer = self._interpreter.call(frame, self._ends)
        await asyncio.wait([answer, cancelled], timeout=self._call.timeout, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return self._outcome(answer, launcher)
        obeyed = launcher.interruptible and await self._interrupt(answer)
        notes = [timeout_note(self._call.timeout)]
        if not obeyed:
            await end_tree(self._interpreter.pid, spared=self._spared)
            await asyncio.wait([self._interpreter.ended], timeout=DEATH_SECONDS)
            cause = "did not stop when interrupted and was killed" if launcher.interruptible else "was killed"
            notes.append(loss_note(launcher.language, cause))
        if answer.done():
            answer.exception()  # seen: how a killed interpreter ends is no news
        return Outcome(TIMEOUT_EXIT_CODE, timed_out=True, restarted=not obeyed, notes=tuple(notes))

    def release(self) -> None:
        """Take the rest of the output; the pipes of a living process stay in use."""
        for end in self._ends:
            os.close(end)
        self._ends.clear()
        for reader in self._readers:
            if self._interpreter.streams is None:
                self._pipes.release(reader)
            else:
                reader.drain()
                reader.sink = None

    def _frame(self, variables: dict[str, str]) -> bytes:
        changed = variables != self._interpreter.environment
        self._interpreter.environment = variables
        return encode_frame(
            {
                "code": self._call.code,
                "workdir": self._call.workdir,
                "environment": variables if changed else None,
                "variables": dict(self._call.variables),
                "rich": self._call.rich,
                "result_limit": self._call.result_limit,
            }
        )

    def _outcome(self, answer: "asyncio.Future[Finished]", launcher: Launcher) -> Outcome:
        try:
            finished = answer.result()
        except InterpreterDied as death:
            note = loss_note(launcher.language, f"ended in the middle of the call (exit code {death.exit_code})")
            return Outcome(death.exit_code, restarted=True, notes=(note,))
        return Outcome(finished.exit_code, result=finished.result)

    async def _interrupt(self, answer: "asyncio.Future[Finished]") -> bool:
        """Ask the interpreter to stop; children of the call are ended whether it obeys or not."""
        pid = self._interpreter.pid
        for attempt, pause in enumerate(INTERRUPT_PAUSES):
            self._interpreter.interrupt()
            if attempt == 0:
                signal_all(descendants(pid, spared=self._spared), signal.SIGTERM)
            else:
                await end_tree(pid, spared=self._spared, keep_root=True)
            await asyncio.wait([answer], timeout=pause)
            if answer.done():
                break
        obeyed = answer.done() and not self._interpreter.ended.done()
        if obeyed:
            await end_tree(pid, spared=self._spared, keep_root=True)
        return obeyed
