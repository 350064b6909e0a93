"""Programs that run in the background of a sandbox (the agent's wire, contract §4.2)."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StrictInt, StrictStr, StringConstraints

from cove.models.agent import ProcessEntry
from cove.models.base import Contract
from cove.models.environment import EnvVars
from cove.models.execution import DEFAULT_OUTPUT_BYTES, MAX_EXECUTION_SECONDS, ExecutionResult, WorkingDirectory

MAX_LOG_WAIT_SECONDS = 60.0
ProcessName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class ProcessStatus(StrEnum):
    """What became of a background program."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"


class BackgroundExecute(Contract):
    """Body of `POST /execute/background`.

    The program gets an interpreter of its own: it shares no variables with `/execute`, and neither waits for the other.

    Attributes:
        timeout: seconds; the program and all that it started are ended then.
        name: for people; need not be unique.
        execution_id: chosen by the caller, so that a repeated request starts the program once; absent means a new one.
    """

    code: str
    language: str = "python"
    timeout: float = Field(default=300.0, gt=0, le=MAX_EXECUTION_SECONDS)
    workdir: WorkingDirectory = ""
    env: EnvVars | None = None
    name: ProcessName | None = None
    execution_id: Annotated[str, StringConstraints(pattern=r"^exec_[a-z0-9]{8,64}$")] | None = None
    max_output_bytes: int = Field(default=DEFAULT_OUTPUT_BYTES, ge=0, le=16 * 1024 * 1024)


class BackgroundCommand(Contract):
    """Body of `POST /commands/background`; `command` and `args` as for `/commands/run`."""

    command: str = Field(min_length=1)
    args: tuple[str, ...] | None = None
    timeout: float = Field(default=300.0, gt=0, le=MAX_EXECUTION_SECONDS)
    workdir: WorkingDirectory = ""
    env: EnvVars | None = None
    name: ProcessName | None = None
    max_output_bytes: int = Field(default=DEFAULT_OUTPUT_BYTES, ge=0, le=16 * 1024 * 1024)


class BackgroundStarted(Contract):
    """Answer to a background start. `process_id` begins with `proc_` for code and `cmd_` for commands."""

    process_id: str
    execution_id: str
    status: ProcessStatus = ProcessStatus.RUNNING
    start_time: str
    message: str
    name: str | None = None


class BackgroundProcess(Contract):
    """One background program, running or ended. Both spellings of a time: clients read different ones.

    Attributes:
        stdout, stderr: the last part of each, for lists; `GET /execute/processes/{id}/logs` has the rest.
        duration, execution_time: seconds, until now for one that runs.
        signal: number of the signal that ended it.
        limit: the limit of the sandbox that ended it, in words, for example `memory 512 MiB`.
    """

    process_id: str
    execution_id: str
    name: str | None = None
    status: ProcessStatus
    language: str
    command: str = ""
    pid: int = 0
    start_time: str
    end_time: str | None = None
    started_at: str
    completed_at: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    duration: float = 0.0
    execution_time: float = 0.0
    timed_out: bool = False
    limit: str | None = None
    stdout: str = ""
    stderr: str = ""
    result: ExecutionResult | None = None
    """Only of `GET /execute/processes/{id}`, once it has ended."""


class BackgroundList(Contract):
    """Answer to `GET /execute/processes`: newest first; those that ended are kept for a while."""

    processes: tuple[BackgroundProcess, ...]
    count: int
    timestamp: str


class MergedProcess(ProcessEntry):
    """A process of `GET /processes`; one that was started in the background carries its ids too."""

    process_id: str | None = None
    execution_id: str | None = None
    background_name: str | None = None


class MergedProcesses(Contract):
    """Answer to `GET /processes`."""

    processes: tuple[MergedProcess, ...]
    count: int


class ProcessLogs(Contract):
    """Answer to `GET /execute/processes/{id}/logs`: the next part of one stream.

    Attributes:
        offset: byte position in the stream at which `text` begins: the one asked for, or later if that is not kept.
        next_offset: where to go on.
        complete: nothing comes after this part.
    """

    process_id: str
    stream: str
    text: str
    offset: int
    next_offset: int
    complete: bool
    status: ProcessStatus


class KillProcess(Contract):
    """Optional body of the kill routes.

    Attributes:
        signal: number or name (`SIGINT`, `INT`, `2`); absent ends the whole tree for certain (SIGTERM, then SIGKILL).
    """

    signal: StrictInt | StrictStr | None = None


class ProcessKilled(Contract):
    """Answer to a kill."""

    success: bool = True
    message: str
    process_id: str
    timestamp: str
