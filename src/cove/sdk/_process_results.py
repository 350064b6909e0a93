"""What is known of programs that run without the client."""

from cove.models.base import Contract
from cove.models.processes import BackgroundProcess
from cove.sdk._results import Execution


class ProcessInfo(BackgroundProcess):
    """A background program as the agent describes it; `result` is there once it has ended."""

    result: Execution | None = None  # pyright: ignore[reportIncompatibleVariableOverride] - it is frozen

    def outcome(self) -> Execution:
        """The result of a program that has ended; made of the other fields where the agent keeps none."""
        if self.result is not None:
            return self.result
        code = 1 if self.exit_code is None else self.exit_code
        return Execution(
            stdout=self.stdout,
            stderr=self.stderr,
            exit_code=code,
            success=code == 0,
            execution_time=self.execution_time or self.duration,
            language=self.language,
            execution_id=self.execution_id,
            timed_out=self.timed_out,
            limit=self.limit,
        )


class ProcessInfos(Contract):
    """Answer to `GET /execute/processes`, newest first."""

    processes: tuple[ProcessInfo, ...] = ()
