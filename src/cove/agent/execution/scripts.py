"""Code in an interpreter of its own: started for one call, gone after it."""

import asyncio

from cove.agent.execution.attempt import Attempt, SessionCall
from cove.agent.execution.channel import Interpreter
from cove.agent.execution.ending import end_program, ends_within
from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.launchers import Launcher
from cove.agent.execution.outcomes import Outcome, Recording, Started
from cove.agent.execution.pipes import Pipes

EXIT_SECONDS = 2.0


class Scripts:
    """Runs calls beside each other, each in a fresh interpreter."""

    def __init__(self, environment: SandboxEnvironment, pipes: Pipes) -> None:
        self._environment = environment
        self._pipes = pipes

    async def run(self, launcher: Launcher, call: SessionCall, recording: Recording, on_start: Started) -> Outcome:
        """Run to the end of all that the code has started inside the interpreter, or to the timeout.

        Processes that it leaves running after a normal end go on living; after a timeout, or when the caller is
        cancelled, nothing is left.

        Raises:
            CoveError: no interpreter can be started.
        """
        interpreter = launcher.launch()
        on_start(interpreter.pid, interpreter.ended)
        attempt = Attempt(interpreter, call, recording, self._pipes)
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended_by_itself = False
        try:
            outcome = await attempt.run(self._environment.effective(), launcher, never)
            ended_by_itself = not outcome.timed_out
        finally:
            attempt.release()
            await asyncio.shield(self._dismiss(interpreter, keep_children=ended_by_itself))
        return Outcome(
            outcome.exit_code,
            interpreter.pid,
            timed_out=outcome.timed_out,
            notes=outcome.notes,
            displayed=interpreter.displayed,
            result=outcome.result,
        )

    async def _dismiss(self, interpreter: Interpreter, *, keep_children: bool) -> None:
        if not keep_children:
            await end_program(interpreter.pid, grace=0, ended=interpreter.ended)
        else:
            interpreter.hang_up()
            if not await ends_within(interpreter.ended, EXIT_SECONDS):
                interpreter.kill()
                await ends_within(interpreter.ended, EXIT_SECONDS)
        for reader in interpreter.streams or ():
            self._pipes.release(reader)
