"""What the HTTP routes need of the execution engine. They know these Protocols and no implementation."""

from collections.abc import Callable, Mapping
from typing import Protocol

from cove.models.execution import CommandRequest, CommandResult, ExecuteRequest, ExecutionResult

OutputListener = Callable[[str, bytes], None]
"""Takes `stdout` or `stderr`, and a piece of it."""


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


class Engine(Protocol):
    """Runs programs. Cancelling a call ends the program and all that it started."""

    async def start(self) -> None:
        """Begin to prepare interpreters; returns at once."""
        ...

    async def execute(self, request: ExecuteRequest, *, on_output: OutputListener | None = None) -> ExecutionResult:
        """Run code; `on_output` hears of each piece of output that the result will hold, as it comes.

        Raises:
            CoveError: UNSUPPORTED_LANGUAGE, or the platform failed. A failing program is a result.
        """
        ...

    async def rehearse(self) -> None:
        """Run an empty program that is counted nowhere, so that the first real one finds everything in place."""
        ...

    async def run_command(self, request: CommandRequest, *, on_output: OutputListener | None = None) -> CommandResult:
        """Run a command; same rules as `execute`."""
        ...

    async def close(self) -> None:
        """End everything that it started."""
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
