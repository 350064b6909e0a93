"""What the HTTP routes need of the execution engine. They know these Protocols and no implementation."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Protocol

from cove.models.execution import CommandRequest, CommandResult, ExecuteRequest, ExecutionResult
from cove.models.processes import (
    BackgroundCommand,
    BackgroundExecute,
    BackgroundProcess,
    BackgroundStarted,
    ProcessLogs,
)

OutputListener = Callable[[str, bytes], None]
"""Takes `stdout` or `stderr`, and a piece of it."""


class OutputFlow(Protocol):
    """Takes all output of a program, as fast as it can: while it is full, the program waits to print more."""

    @property
    def full(self) -> bool:
        """Whether it wants no more now. What was read already still comes."""
        ...

    def take(self, stream: str, piece: bytes) -> None:
        """An `OutputListener`."""
        ...

    def when_room(self, resume: Callable[[], None]) -> None:
        """Call `resume` once, when it is no longer full."""
        ...


class Counters(Protocol):
    """How much was executed since the sandbox started."""

    @property
    def active(self) -> int:
        """Programs that run now."""
        ...

    @property
    def total(self) -> int:
        """Programs that were started, the active ones included."""
        ...

    @property
    def errors(self) -> int:
        """Programs that ended with another exit code than 0."""
        ...

    @property
    def average_ms(self) -> Mapping[str, float]:
        """Language (or `command`) -> mean duration in milliseconds."""
        ...


class Program(Protocol):
    """One program in the background, running or ended."""

    @property
    def running(self) -> bool:
        """It has not ended yet."""
        ...

    def describe(self, *, detailed: bool = False) -> BackgroundProcess:
        """Everything about it; with `detailed` its result too, once it has ended."""
        ...

    def result(self) -> ExecutionResult | None:
        """What `/execute` would have answered; None while it runs."""
        ...

    def follow(self) -> AsyncGenerator[tuple[str, bytes]]:
        """Each piece of output that the result will hold, from the first one on, until the program has ended."""
        ...

    async def read(self, stream: str, offset: int, *, wait: float) -> ProcessLogs:
        """The next part of `stdout` or `stderr` from a byte offset on; waits until there is one, or it has ended."""
        ...

    async def wait_ended(self, seconds: float) -> None:
        """Return when it has ended, `seconds` from now at the latest."""
        ...


class Background(Protocol):
    """Programs that run for nobody's connection."""

    def __iter__(self) -> Iterator[Program]:
        """All that are known, the oldest first."""
        ...

    async def start_code(self, request: BackgroundExecute) -> BackgroundStarted:
        """Start code in an interpreter of its own; returns when it has started.

        Raises:
            CoveError: as `Engine.execute`; RESOURCE_LIMIT_EXCEEDED when too many run; CONFLICT when the request's
                `execution_id` was executed and is forgotten.
        """
        ...

    async def start_command(self, request: BackgroundCommand) -> BackgroundStarted:
        """Start a command; same rules as `start_code`."""
        ...

    def find(self, identifier: str) -> Program:
        """The program with that process id or execution id; raises PROCESS_NOT_FOUND."""
        ...

    async def kill(self, identifier: str, signal: int | str | None) -> tuple[str, str]:
        """Signal a program, or with None end its whole tree: returns its id and what was done, in words.

        Args:
            identifier: process id, execution id, or the pid of any process in the sandbox.

        Raises:
            CoveError: INVALID_REQUEST for what is no signal, PROCESS_NOT_FOUND, FORBIDDEN.
        """
        ...


class Engine(Protocol):
    """Runs programs. Cancelling a call ends the program and all that it started."""

    async def start(self) -> None:
        """Begin to prepare interpreters; returns at once."""
        ...

    async def execute(
        self, request: ExecuteRequest, *, on_output: OutputListener | None = None, flow: OutputFlow | None = None
    ) -> ExecutionResult:
        """Run code; `on_output` hears of each piece of output that the result will hold, as it comes.

        With `flow` the output goes there, whole: the result holds none of it, only notes of ours.

        Raises:
            CoveError: UNSUPPORTED_LANGUAGE, or the platform failed. A failing program is a result.
        """
        ...

    async def rehearse(self) -> None:
        """Run an empty program that is counted nowhere, so that the first real one finds everything in place."""
        ...

    async def run_command(self, request: CommandRequest, *, flow: OutputFlow | None = None) -> CommandResult:
        """Run a command; same rules as `execute`."""
        ...

    async def close(self) -> None:
        """End everything that it started."""
        ...

    @property
    def background(self) -> Background:
        """Programs in the background."""
        ...

    @property
    def python_busy(self) -> bool:
        """Whether the shared Python kernel runs a call."""
        ...

    def counters(self) -> Counters:
        """Figures for `/metrics`."""
        ...


class Variables(Protocol):
    """The environment variables of the whole sandbox."""

    def get(self) -> dict[str, str]:
        """All of them."""
        ...

    def replace(self, variables: Mapping[str, str]) -> None:
        """Set exactly these."""
        ...

    def merge(self, variables: Mapping[str, str]) -> None:
        """Set these and keep the others; raises ValueError when that is too much."""
        ...

    def clear(self) -> None:
        """Remove all."""
        ...
