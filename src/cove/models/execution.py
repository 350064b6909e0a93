"""Running code and commands inside a sandbox (the agent's wire)."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from cove.models.base import Contract
from cove.models.environment import EnvVars

MAX_CODE_BYTES = 4 * 1024 * 1024
MAX_EXECUTION_SECONDS = 24 * 3600.0
DEFAULT_OUTPUT_BYTES = 1024 * 1024


class Language(StrEnum):
    """Languages of `/execute`."""

    PYTHON = "python"
    JAVASCRIPT = "javascript"
    BASH = "bash"
    GO = "go"


LANGUAGE_ALIASES: dict[str, Language] = {
    "python": Language.PYTHON,
    "python3": Language.PYTHON,
    "py": Language.PYTHON,
    "javascript": Language.JAVASCRIPT,
    "js": Language.JAVASCRIPT,
    "node": Language.JAVASCRIPT,
    "nodejs": Language.JAVASCRIPT,
    "bash": Language.BASH,
    "sh": Language.BASH,
    "shell": Language.BASH,
    "go": Language.GO,
    "golang": Language.GO,
}


def _none_to_default(value: Any) -> Any:
    return "" if value is None else value


WorkingDirectory = Annotated[
    str,
    BeforeValidator(_none_to_default),
    Field(validation_alias=AliasChoices("workdir", "working_dir"), max_length=4096),
]


class ExecuteRequest(Contract):
    """Body of `POST /execute` and `/execute/rich`.

    Attributes:
        code: program text, at most `MAX_CODE_BYTES` bytes of UTF-8.
        language: a name or alias from `LANGUAGE_ALIASES`.
        timeout: seconds; the program and all it started are ended then.
        workdir: working directory; empty means: stay where the kernel is (stateful), or /workspace.
        env: variables for this call only; they win over those of the sandbox.
        max_output_bytes: cap of stdout and of stderr in the answer, each.
    """

    code: str
    language: str = "python"
    timeout: float = Field(default=60.0, gt=0, le=MAX_EXECUTION_SECONDS)
    workdir: WorkingDirectory = ""
    env: EnvVars | None = None
    capture_rich: bool = True
    max_output_bytes: int = Field(default=DEFAULT_OUTPUT_BYTES, ge=0, le=16 * 1024 * 1024)


class RichOutput(Contract):
    """One displayed object.

    Attributes:
        type: the richest MIME type of it.
        data: MIME type -> content; binary content is base64 text, JSON is an object.
    """

    type: str
    data: dict[str, Any]
    metadata: dict[str, Any] = {}


class ExecutionResult(Contract):
    """What a program did. Fields `png` to `dataframe` hold the last output of that kind (contract §4.2).

    Attributes:
        exit_code: of the program; 124 after a timeout, 128 + signal number when a signal ended it.
        execution_time: seconds.
        timed_out: the limit was reached; stdout and stderr hold what was printed until then.
        kernel_restarted: the stateful interpreter died during the call, or had died before it: earlier
            variables are gone.
        stdout_truncated: more was printed than is returned; `stdout_file` is where (bounded) all of it lies.
        limit: the limit that ended the program, in words, for example `memory 512 MiB`.
    """

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    execution_time: float = 0.0
    success: bool = True
    timestamp: str = ""
    language: str = "python"
    execution_id: str = ""
    png: str | None = None
    html: str | None = None
    json_output: dict[str, Any] | None = Field(default=None, alias="json")
    svg: str | None = None
    markdown: str | None = None
    result: str | None = None
    dataframe: dict[str, Any] | None = None
    rich_outputs: tuple[RichOutput, ...] = ()
    timed_out: bool = False
    kernel_restarted: bool = False
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    stdout_file: str | None = None
    stderr_file: str | None = None
    limit: str | None = None


class CommandRequest(Contract):
    """Body of `POST /commands/run`.

    With `args`, `command` is executed directly; without, it is shell text for `bash -c`.
    """

    command: str = Field(min_length=1)
    args: tuple[str, ...] | None = None
    timeout: float = Field(default=30.0, gt=0, le=MAX_EXECUTION_SECONDS)
    workdir: WorkingDirectory = ""
    env: EnvVars | None = None
    max_output_bytes: int = Field(default=DEFAULT_OUTPUT_BYTES, ge=0, le=16 * 1024 * 1024)


class CommandResult(Contract):
    """What a command did; same rules as `ExecutionResult`."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    execution_time: float = 0.0
    success: bool = True
    pid: int = 0
    command: str = ""
    timestamp: str = ""
    execution_id: str = ""
    timed_out: bool = False
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    stdout_file: str | None = None
    stderr_file: str | None = None
    limit: str | None = None
