"""Stateful interpreters: one call after the other, and a fresh process when the old one is lost."""

import asyncio

from cove.agent.execution.attempt import DEATH_SECONDS, INTERRUPT_PAUSES, Attempt, SessionCall
from cove.agent.execution.channel import Interpreter
from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.launchers import Launcher
from cove.agent.execution.outcomes import TIMEOUT_EXIT_CODE, Outcome, Recording, loss_note
from cove.agent.execution.pipes import Pipes
from cove.agent.execution.process_tree import end_tree


class Session:
    """The stateful interpreter of one language in one sandbox."""

    def __init__(self, launcher: Launcher, environment: SandboxEnvironment, pipes: Pipes) -> None:
        self._launcher = launcher
        self._environment = environment
        self._pipes = pipes
        self._turn = asyncio.Lock()
        self._interpreter: Interpreter | None = None
        self._calls: set[asyncio.Task[Outcome]] = set()

    @property
    def busy(self) -> bool:
        """Whether a call is running."""
        return self._turn.locked()

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
        attempt = Attempt(interpreter, call, recording, self._pipes)
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
            notes=(*notes, *outcome.notes, *self._loss(outcome)),
            displayed=interpreter.displayed,
            result=outcome.result,
        )

    def _loss(self, outcome: Outcome) -> tuple[str, ...]:
        if not outcome.restarted:
            return ()
        if not outcome.timed_out:
            cause = f"ended in the middle of the call (exit code {outcome.exit_code})"
        elif self._launcher.interruptible:
            cause = "did not stop when interrupted and was killed"
        else:
            cause = "was killed"
        return (loss_note(self._launcher.language, cause),)

    def _forget(self) -> None:
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None and interpreter.streams is not None:
            for reader in interpreter.streams:
                self._pipes.release(reader)
