"""How a program ended, as its webhook tells it. What the sandbox says is cut to size first."""

from dataclasses import dataclass

from cove.core.clock import rfc3339
from cove.models.async_executions import CallbackBody, ExecutionStatus
from cove.models.processes import BackgroundProcess, ProcessStatus
from cove.models.stored import StoredExecution

MAX_OUTPUT_BYTES = 1024 * 1024
"""Of stdout and of stderr, each, as UTF-8."""

_MAX_ERROR_CHARACTERS = 2000
_NO_EXIT_CODE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What came of a program, whatever ended it."""

    status: ExecutionStatus
    exit_code: int = _NO_EXIT_CODE
    stdout: str = ""
    stderr: str = ""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    execution_time: float = 0.0
    error: str | None = None

    def body(self, row: StoredExecution, *, at: float) -> CallbackBody:
        """The webhook's body."""
        return CallbackBody(
            execution_id=row.id,
            sandbox_id=row.sandbox_id,
            status=self.status,
            success=self.status is ExecutionStatus.COMPLETED,
            stdout=self.stdout,
            stderr=self.stderr,
            exit_code=self.exit_code,
            execution_time=self.execution_time,
            timestamp=rfc3339(at),
            language=row.language,
            stdout_truncated=self.stdout_truncated,
            stderr_truncated=self.stderr_truncated,
            error=self.error,
        )


def failed(text: str) -> Ending:
    """The platform's part failed, or the sandbox went away: nothing is known of the program's own end."""
    return Ending(status=ExecutionStatus.FAILED, error=text[:_MAX_ERROR_CHARACTERS])


def of_process(process: BackgroundProcess) -> Ending:
    """What the agent says of a program that has ended."""
    result = process.result
    exit_code = _exit_code(process)
    status = _status(process, exit_code)
    stdout, out_cut = _cut(process.stdout if result is None else result.stdout)
    stderr, error_cut = _cut(process.stderr if result is None else result.stderr)
    return Ending(
        status=status,
        exit_code=exit_code,
        stdout=stdout,
        stderr=stderr,
        stdout_truncated=out_cut or (result is not None and result.stdout_truncated),
        stderr_truncated=error_cut or (result is not None and result.stderr_truncated),
        execution_time=max(0.0, process.execution_time),
        error=_error(process, status, exit_code),
    )


def _status(process: BackgroundProcess, exit_code: int) -> ExecutionStatus:
    if process.timed_out or (process.result is not None and process.result.timed_out):
        return ExecutionStatus.TIMEOUT
    well = process.status is ProcessStatus.COMPLETED and exit_code == 0
    return ExecutionStatus.COMPLETED if well else ExecutionStatus.FAILED


def _exit_code(process: BackgroundProcess) -> int:
    code = process.exit_code
    if code is None:
        code = process.result.exit_code if process.result is not None else _NO_EXIT_CODE
    return code if -(2**31) <= code < 2**31 else _NO_EXIT_CODE


def _error(process: BackgroundProcess, status: ExecutionStatus, exit_code: int) -> str | None:
    if status is ExecutionStatus.COMPLETED:
        return None
    if status is ExecutionStatus.TIMEOUT:
        return "The program reached its timeout and was ended."
    if process.result is not None and process.result.limit:
        return f"The program was ended by a limit: {process.result.limit[:200]}."
    if process.status is ProcessStatus.KILLED:
        return "The program was killed."
    return f"The program ended with exit code {exit_code}."


def _cut(text: str) -> tuple[str, bool]:
    """The first part of `text` that fits, and whether something is missing."""
    if 4 * len(text) <= MAX_OUTPUT_BYTES:
        return text, False
    data = text.encode()
    return (text, False) if len(data) <= MAX_OUTPUT_BYTES else (data[:MAX_OUTPUT_BYTES].decode(errors="ignore"), True)
