"""Code and commands in a sandbox, with the results that microsandbox's clients read."""

import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cove.compat.microsandbox.directories import WORKDIR_VARIABLE
from cove.compat.microsandbox.lines import STREAMS, OutputLine, Stream, Transcript
from cove.models.errors import error
from cove.models.execution import LANGUAGE_ALIASES, MAX_EXECUTION_SECONDS, Language
from cove.models.execution import CommandResult as CommandOutcome
from cove.sdk import AsyncSandbox, Execution

DEFAULT_SECONDS = 270.0
"""Below the 300 s after which the client of PyPI gives up without a word."""

_NOT_FOUND = 127
Outcome = Execution | CommandOutcome
Shortened = Callable[[Outcome, str], Awaitable[str]]


class CodeResult(BaseModel):
    """Of `sandbox.repl.run`. `language` is as it was asked for."""

    model_config = ConfigDict(frozen=True)

    status: Literal["success", "error"]
    language: str
    output: list[OutputLine]


class CommandResult(BaseModel):
    """Of `sandbox.command.run`."""

    model_config = ConfigDict(frozen=True)

    command: str
    args: list[str]
    exit_code: int
    success: bool
    output: list[OutputLine]


@dataclass(frozen=True, slots=True)
class OutputLimit:
    """How much of each stream an answer holds.

    Attributes:
        characters, lines: beyond these, the middle is left out.
        bytes: beyond these, the rest is in a file of the sandbox only.
        shortened: makes what is shown of a stream (`stdout`, `stderr`) that is longer than `bytes`; else it is its
            beginning, with a mark.
    """

    characters: int = 1024 * 1024
    lines: int = 50_000
    bytes: int = 1024 * 1024
    shortened: Shortened | None = None


def seconds_of(timeout: float | None) -> float:
    """The limit of a run that asks for `timeout`.

    Raises:
        InvalidRequest: it is not a number of seconds that can be waited.
    """
    if timeout is None:
        return DEFAULT_SECONDS
    if not 0 < timeout <= MAX_EXECUTION_SECONDS:
        raise error(
            "INVALID_REQUEST",
            f"timeout is {timeout:g}; it must be above 0 and at most {MAX_EXECUTION_SECONDS:g} seconds.",
            field="timeout",
        )
    return float(timeout)


def language_of(name: str) -> Language:
    """The language of that name, in any case of letters.

    Raises:
        Unsupported: there is none.
    """
    found = LANGUAGE_ALIASES.get(name.strip().lower())
    if found is None:
        raise error(
            "UNSUPPORTED_LANGUAGE",
            f"The language {name[:40]!r} cannot run here.",
            remedy="Languages: python, nodejs (javascript, node), bash, go.",
        )
    return found


async def run_code(
    sandbox: AsyncSandbox,
    code: str,
    *,
    language: str,
    timeout: float | None,
    limit: OutputLimit,
    watch: Callable[[str], None] | None = None,
) -> CodeResult:
    """Run code; variables stay. What the last expression comes to is a line of stdout.

    Raises:
        CoveError: it could not be run. An exception in it, a timeout, an exit are results.
    """
    known, seconds = language_of(language), seconds_of(timeout)
    transcript = Transcript(limit=limit.characters, lines=limit.lines)
    result = await sandbox.run_code(
        code,
        language=known.value,
        timeout=seconds,
        max_output_bytes=limit.bytes,
        on_stdout=_taking(transcript, "stdout", watch),
        on_stderr=_taking(transcript, "stderr", watch),
    )
    if known is Language.JAVASCRIPT and result.result is not None and result.stdout != result.result + "\n":
        # The value is printed by itself where nothing else was.
        transcript.take_line("stdout", result.result)
    _explain(transcript, result, timeout=timeout)
    return CodeResult(
        status="success" if result.success else "error",
        language=language,
        output=await _lines(transcript, result, limit),
    )


async def run_command(
    sandbox: AsyncSandbox,
    command: str,
    args: Sequence[str],
    *,
    timeout: float | None,
    limit: OutputLimit,
    watch: Callable[[str], None] | None = None,
) -> CommandResult:
    """Run a program with arguments, without a shell between: `command` is looked up on PATH.

    Raises:
        CoveError: it could not be run. Whatever it does, and that it does not exist, is a result: 127 then, 124 after a
            timeout, 128 + signal number when a signal ended it.
    """
    if not command:
        raise error("INVALID_REQUEST", "The command is empty.", field="command")
    seconds = seconds_of(timeout)
    transcript = Transcript(limit=limit.characters, lines=limit.lines)
    result = await sandbox.commands.run(
        _text_of(command, args),
        timeout=seconds,
        max_output_bytes=limit.bytes,
        on_stdout=_taking(transcript, "stdout", watch),
        on_stderr=_taking(transcript, "stderr", watch),
    )
    _explain(transcript, result, timeout=timeout)
    if result.exit_code == _NOT_FOUND and not args and " " in command.strip():
        transcript.take_line(
            "stderr",
            'hint: command is one program without its arguments; shell text is command "bash" with args ["-c", TEXT]',
        )
    return CommandResult(
        command=command,
        args=[*args],
        exit_code=result.exit_code,
        success=result.exit_code == 0,
        output=await _lines(transcript, result, limit),
    )


def _text_of(command: str, args: Sequence[str]) -> str:
    """Bash becomes the program, so that both of its streams can be read in their order, as those of code."""
    return f'cd -- "${{{WORKDIR_VARIABLE}:-.}}" && exec -- {shlex.join([command, *args])}'


def _explain(transcript: Transcript, result: Outcome, *, timeout: float | None) -> None:
    if result.timed_out and timeout is None:
        transcript.take_line("stderr", "That limit holds where none is named; `timeout` names another, in seconds.")


def _taking(transcript: Transcript, stream: Stream, watch: Callable[[str], None] | None) -> Callable[[str], None]:
    def take(text: str) -> None:
        transcript.take(stream, text)
        if watch is not None:
            watch(text)

    return take


async def _lines(transcript: Transcript, result: Outcome, limit: OutputLimit) -> list[OutputLine]:
    lines = transcript.lines()
    if limit.shortened is None:
        return lines
    for stream in STREAMS:
        if getattr(result, f"{stream}_truncated"):
            text = await limit.shortened(result, stream)
            lines = [line for line in lines if line.stream != stream]
            lines += [OutputLine(stream=stream, text=line) for line in text.removesuffix("\n").split("\n")]
    return lines
