"""From the outcome of a run to the answer on the wire."""

from typing import Any

from cove.agent.clock import timestamp
from cove.agent.execution.frames import TABLE_TYPE, Displayed
from cove.agent.execution.outcomes import Outcome
from cove.agent.execution.output import Captured
from cove.models.execution import CommandResult, ExecutionResult, Language, RichOutput

# The richest first: the one that gives an output its type.
_TYPES = (
    TABLE_TYPE,
    "image/png",
    "image/jpeg",
    "image/svg+xml",
    "text/html",
    "application/json",
    "text/markdown",
    "text/latex",
)


def execution_result(
    execution_id: str, language: str, outcome: Outcome, streams: tuple[Captured, Captured], seconds: float
) -> ExecutionResult:
    """The answer of `/execute`."""
    stdout, stderr = streams
    text = stdout.text
    if language == Language.JAVASCRIPT and not text and outcome.result is not None:
        text = outcome.result + "\n"
    return ExecutionResult(
        stdout=text,
        stderr=stderr.text,
        exit_code=outcome.exit_code,
        execution_time=round(seconds, 6),
        success=outcome.exit_code == 0,
        timestamp=timestamp(),
        language=language,
        execution_id=execution_id,
        result=outcome.result,
        rich_outputs=tuple(map(_rich_output, outcome.displayed)),
        timed_out=outcome.timed_out,
        kernel_restarted=outcome.restarted,
        stdout_truncated=stdout.truncated,
        stderr_truncated=stderr.truncated,
        stdout_file=stdout.file,
        stderr_file=stderr.file,
        limit=outcome.limit,
        **_latest(outcome.displayed),
    )


def command_result(
    execution_id: str, command: str, outcome: Outcome, streams: tuple[Captured, Captured], seconds: float
) -> CommandResult:
    """The answer of `/commands/run`."""
    stdout, stderr = streams
    return CommandResult(
        stdout=stdout.text,
        stderr=stderr.text,
        exit_code=outcome.exit_code,
        execution_time=round(seconds, 6),
        success=outcome.exit_code == 0,
        pid=outcome.pid,
        command=command,
        timestamp=timestamp(),
        execution_id=execution_id,
        timed_out=outcome.timed_out,
        stdout_truncated=stdout.truncated,
        stderr_truncated=stderr.truncated,
        stdout_file=stdout.file,
        stderr_file=stderr.file,
        limit=outcome.limit,
    )


def _rich_output(displayed: Displayed) -> RichOutput:
    kinds = [kind for kind in _TYPES if kind in displayed.data]
    others = [kind for kind in displayed.data if kind != "text/plain"]
    return RichOutput(type=(kinds or others or ["text/plain"])[0], data=displayed.data, metadata=displayed.metadata)


def _latest(displayed: tuple[Displayed, ...]) -> dict[str, Any]:
    """The last output of each kind that has a field of its own."""
    merged: dict[str, Any] = {}
    for output in displayed:
        merged.update(output.data)
    table, document = merged.get(TABLE_TYPE), merged.get("application/json")
    return {
        "png": _text(merged.get("image/png")),
        "html": _text(merged.get("text/html")),
        "svg": _text(merged.get("image/svg+xml")),
        "markdown": _text(merged.get("text/markdown")),
        # The field is an object on the wire; another JSON value is put into one.
        "json_output": document if document is None or isinstance(document, dict) else {"data": document},
        "dataframe": table if isinstance(table, dict) else None,
    }


def _text(value: Any) -> str | None:
    return value.strip() if isinstance(value, str) else None
