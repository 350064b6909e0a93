"""One call in one interpreter process."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from cove.agent.execution.channel import Interpreter, InterpreterDied
from cove.agent.execution.frames import Finished, encode_frame
from cove.agent.execution.launchers import Launcher
from cove.agent.execution.outcomes import TIMEOUT_EXIT_CODE, Outcome, Recording, timeout_note
from cove.agent.execution.pipes import PipeReader, Pipes
from cove.agent.execution.process_tree import (
    descendants,
    end_tree,
    listing_seconds,
    signal_all,
    spare_existing,
)

INTERRUPT_PAUSES = (0.1, 0.15, 0.15)
DEATH_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class SessionCall:
    """One call of an interpreter.

    Attributes:
        workdir: None leaves the interpreter where it is.
        rich: collect what is displayed.
        result_limit: characters of the last expression's text.
        script: the interpreter is for this call alone: the call lasts until nothing is left that would keep a script
            alive (threads, servers, timers).
    """

    code: str
    timeout: float
    workdir: str | None
    variables: Mapping[str, str]
    rich: bool
    result_limit: int
    script: bool = False


class Attempt:
    """Runs one call: its output goes to a recording, and it is interrupted and then killed when it takes too long."""

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
        """Run to the end, to the timeout, or until `cancelled` is done.

        An outcome that says `restarted` means that the interpreter is lost.
        """
        frame = self._frame(variables)
        answer = self._interpreter.call(frame, self._ends)
        answer.add_done_callback(_seen)
        await asyncio.wait([answer, cancelled], timeout=self._call.timeout, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return _outcome(answer)
        obeyed = launcher.interruptible and await self._interrupt(answer)
        if not obeyed:
            await end_tree(self._interpreter.pid, spared=self._spared)
            await asyncio.wait([self._interpreter.ended], timeout=DEATH_SECONDS)
        notes = (timeout_note(self._call.timeout),)
        return Outcome(TIMEOUT_EXIT_CODE, timed_out=True, restarted=not obeyed, notes=notes)

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
                "script": self._call.script,
            }
        )

    async def _interrupt(self, answer: "asyncio.Future[Finished]") -> bool:
        """Ask the interpreter to stop; children of the call are ended whether it obeys or not."""
        pid = self._interpreter.pid
        for attempt, pause in enumerate(INTERRUPT_PAUSES):
            self._interpreter.interrupt()
            if attempt == 0:
                with suppress(TimeoutError):  # too many: the next step ends them all the same
                    signal_all(descendants(pid, spared=self._spared, seconds=listing_seconds()), signal.SIGTERM)
            else:
                await end_tree(pid, spared=self._spared, keep_root=True)
            await asyncio.wait([answer], timeout=pause)
            if answer.done():
                break
        obeyed = answer.done() and not self._interpreter.ended.done()
        if obeyed:
            await end_tree(pid, spared=self._spared, keep_root=True)
        return obeyed


def _seen(answer: "asyncio.Future[Finished]") -> None:
    # How an interpreter ends that was killed, or whose caller has gone, is no news.
    if not answer.cancelled():
        answer.exception()


def _outcome(answer: "asyncio.Future[Finished]") -> Outcome:
    try:
        finished = answer.result()
    except InterpreterDied as death:
        return Outcome(death.exit_code, restarted=True)
    return Outcome(finished.exit_code, result=finished.result)
