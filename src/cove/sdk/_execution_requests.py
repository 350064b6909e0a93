"""Requests that run code and commands and wait for their end."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from cove.models.errors import error
from cove.models.execution import (
    DEFAULT_OUTPUT_BYTES,
    MAX_CODE_BYTES,
    MAX_EXECUTION_SECONDS,
    CommandRequest,
    ExecuteRequest,
)
from cove.sdk import _requests as requests
from cove.sdk._requests import Call, SandboxPath

BACKGROUND_SECONDS = 300.0
ASYNC_SECONDS = 1800.0


def execute(code: str, **given: Any) -> Call:
    """`POST /execute/rich`: never repeated once a byte of it may have left."""
    body = _program(code, **given)
    return _running("/execute/rich", body, body.timeout)


def execute_events(code: str, **given: Any) -> Call:
    """`POST /execute/events`: as `execute`, answered piece by piece. Closing the connection ends the program."""
    body = _program(code, **given)
    limit = body.timeout + requests.GRACE_SECONDS
    # The whole may take longer: the caller's own time between two events counts too.
    return Call(
        method="POST",
        path="/execute/events",
        content=requests.as_json(body),
        timeout=MAX_EXECUTION_SECONDS + limit,
        stall=limit,
        max_answer_bytes=requests.MAX_STREAM_BYTES,
    )


def run_command(
    command: str,
    *,
    timeout: float,
    env: Mapping[str, str] | None,
    working_dir: SandboxPath | None,
    max_output_bytes: int | None = None,
) -> Call:
    """`POST /commands/run`: never repeated once a byte of it may have left."""
    body = requests.checked(
        CommandRequest,
        command=command,
        timeout=timeout,
        workdir=directory(working_dir),
        env=None if env is None else dict(env),
        max_output_bytes=DEFAULT_OUTPUT_BYTES if max_output_bytes is None else max_output_bytes,
    )
    check_code_size(body.command)
    return _running("/commands/run", body, body.timeout)


def _program(
    code: str,
    *,
    language: str,
    timeout: float,
    env: Mapping[str, str] | None,
    working_dir: SandboxPath | None,
    max_output_bytes: int | None = None,
) -> ExecuteRequest:
    body = requests.checked(
        ExecuteRequest,
        code=code,
        language=language,
        timeout=timeout,
        workdir=directory(working_dir),
        env=None if env is None else dict(env),
        max_output_bytes=DEFAULT_OUTPUT_BYTES if max_output_bytes is None else max_output_bytes,
    )
    check_code_size(body.code)
    return body


def _running(path: str, body: BaseModel, seconds: float) -> Call:
    limit = seconds + requests.GRACE_SECONDS
    return Call(method="POST", path=path, content=requests.as_json(body), timeout=limit, stall=limit)


def directory(path: SandboxPath | None) -> str:
    """A working directory as requests carry it; empty means that of the interpreter."""
    return "" if path is None else requests.checked_path(path)


def check_code_size(text: str) -> None:
    """
    Raises:
        LimitExceeded: `text` is longer than the agent accepts.
    """
    size = len(requests.encoded(text))
    if size > MAX_CODE_BYTES:
        raise error(
            "REQUEST_TOO_LARGE",
            f"The code is {size} bytes; at most {MAX_CODE_BYTES} are accepted.",
            remedy="Write it to a file in the sandbox and run that.",
        )
