"""What a request to run something must fulfil before anything is started."""

from pathlib import Path
from typing import TypeVar

from cove.models.errors import error
from cove.models.execution import (
    LANGUAGE_ALIASES,
    MAX_CODE_BYTES,
    MAX_EXECUTION_SECONDS,
    CommandRequest,
    ExecuteRequest,
    Language,
)
from cove.models.limits import Limits
from cove.models.processes import BackgroundCommand, BackgroundExecute

USUAL_SECONDS = 300.0
"""Clients send timeouts up to this without anybody having asked for them: they are cut to what the sandbox allows."""
_UNASKED = frozenset({1800.0, MAX_EXECUTION_SECONDS})
"""Longer ones that mean as long as it may: that of asynchronous executions by default, and the longest of all."""

RequestT = TypeVar("RequestT", bound=ExecuteRequest | CommandRequest | BackgroundExecute | BackgroundCommand)


class Checks:
    """Knows the languages, the workspace and the limits of this sandbox."""

    def __init__(self, languages: tuple[str, ...], workspace: str, limits: Limits) -> None:
        self.languages = frozenset(languages)
        self._workspace = workspace
        self._seconds = min(limits.max_execution_seconds or MAX_EXECUTION_SECONDS, MAX_EXECUTION_SECONDS)
        self._output_bytes = limits.max_output_bytes

    def bounded(self, request: RequestT) -> RequestT:
        """The request within the time and the output that programs of this sandbox may have.

        Raises:
            CoveError: INVALID_REQUEST for a timeout above that which somebody must have chosen.
        """
        seconds = request.timeout
        if seconds > self._seconds and seconds > USUAL_SECONDS and seconds not in _UNASKED:
            raise error(
                "INVALID_REQUEST",
                f"`timeout` is {seconds:g} s; a program in this sandbox may run for {self._seconds:g} s at most.",
                remedy="Ask for less, or create the sandbox with a higher `max_execution_seconds`.",
                field="timeout",
                limit=self._seconds,
            )
        output = request.max_output_bytes
        if seconds <= self._seconds and (self._output_bytes is None or output <= self._output_bytes):
            return request
        fewest = output if self._output_bytes is None else min(output, self._output_bytes)
        return request.model_copy(update={"timeout": min(seconds, self._seconds), "max_output_bytes": fewest})

    def language(self, name: str) -> Language:
        """The language of that name or alias.

        Raises:
            CoveError: UNSUPPORTED_LANGUAGE.
        """
        language = LANGUAGE_ALIASES.get(name.strip().lower())
        if language is None or language not in self.languages:
            known = ", ".join(sorted(self.languages))
            raise error(
                "UNSUPPORTED_LANGUAGE",
                f"language {name[:40]!r} cannot run in this sandbox",
                remedy=f"Languages here: {known}.",
            )
        return language

    def directory(self, workdir: str) -> str:
        """The absolute working directory; empty means the workspace.

        Raises:
            CoveError: INVALID_PATH when there is none.
        """
        require_text(workdir)
        path = Path(self._workspace, workdir)
        if not workdir:
            return self._workspace if path.is_dir() else "/"
        try:
            exists = path.is_dir()
        except OSError:  # too long a name
            exists = False
        if not exists:
            raise error(
                "INVALID_PATH",
                f"the working directory {workdir[:200]!r} does not exist",
                remedy="Create it first (POST /files/mkdir), or leave workdir empty.",
            )
        return str(path)


def require_code(code: str) -> None:
    """Raise INVALID_REQUEST or REQUEST_TOO_LARGE for a text that no interpreter takes."""
    require_text(code)
    if len(code.encode()) > MAX_CODE_BYTES:
        raise error("REQUEST_TOO_LARGE", f"the code is longer than {MAX_CODE_BYTES} bytes")


def arguments_of(request: CommandRequest) -> list[str]:
    """What to execute: the command with its arguments, or a shell that reads the command.

    Raises:
        CoveError: INVALID_REQUEST for text that execve(2) cannot pass on.
    """
    argv = ["bash", "-c", request.command] if request.args is None else [request.command, *request.args]
    for argument in argv:
        require_text(argument)
    return argv


def require_text(value: str) -> None:
    """Raise INVALID_REQUEST for text that cannot reach a program as it is."""
    if "\0" in value:
        raise error("INVALID_REQUEST", "the request contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise error("INVALID_REQUEST", "the request contains text that is not valid Unicode") from None
