"""What one run of a program came to, before it becomes an answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cove.agent.engine import OutputFlow, OutputListener
from cove.agent.execution.frames import Displayed
from cove.agent.execution.output import Capture, Captured, OutputFiles, Passage

TIMEOUT_EXIT_CODE = 124
Started = Callable[[int, "asyncio.Future[int]"], None]
"""Takes the pid of a program that has started, and what is done with its exit code when it was reaped."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended.

    Attributes:
        pid: of its root process; 0 when none was started.
        restarted: the stateful interpreter lost its state.
        notes: lines of ours for standard error.
        limit: of the sandbox that ended it, in words.
    """

    exit_code: int
    pid: int = 0
    timed_out: bool = False
    restarted: bool = False
    notes: tuple[str, ...] = ()
    displayed: tuple[Displayed, ...] = ()
    result: str | None = None
    limit: str | None = None


class Recording:
    """The output of one execution while it is being collected."""

    def __init__(self, stdout: Capture, stderr: Capture) -> None:
        self.stdout = stdout
        self.stderr = stderr

    def finish(self, notes: tuple[str, ...]) -> tuple[Captured, Captured]:
        """Both streams; `notes` become lines at the end of standard error."""
        errors = self.stderr.finish("stderr")
        text = errors.text
        for note in notes:
            text += ("" if not text or text.endswith("\n") else "\n") + note + "\n"
        return self.stdout.finish("stdout"), Captured(text, errors.truncated, errors.file)


def record(execution_id: str, limit: int, files: OutputFiles, on_output: OutputListener | None = None) -> Recording:
    """A recording that keeps `limit` bytes of each stream; `on_output` hears of each piece that is kept."""

    def capture(stream: str) -> Capture:
        listener = partial(on_output, stream) if on_output else None
        return Capture(limit, lambda: files.create(execution_id, stream), listener)

    return Recording(capture("stdout"), capture("stderr"))


def pass_on(flow: OutputFlow) -> Recording:
    """A recording that keeps nothing: all goes to `flow`."""
    return Recording(Passage(flow, "stdout"), Passage(flow, "stderr"))


def timeout_note(seconds: float) -> str:
    """The line that tells of a timeout."""
    return f"timeout: ended after {seconds:g} s"


def limit_note(limit: str) -> str:
    """The line that tells of a limit of the sandbox."""
    return f"stopped by the limit: {limit}"


def loss_note(language: str, cause: str) -> str:
    """The line that tells that an interpreter was lost."""
    return f"{language}: the interpreter {cause}; its variables and imports are gone; the next code runs in a fresh one"
