"""Frames of the agent's WebSockets (contract §4.4): JSON objects, one a text frame.

Only these types cross the wire. What a client does not know it skips, so frames beyond the contract are sent only to
those who asked for them in the query of the handshake.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from cove.models.base import Contract
from cove.models.environment import EnvVars
from cove.models.execution import MAX_EXECUTION_SECONDS, WorkingDirectory

MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_INPUT_CHARACTERS = 1024 * 1024
MAX_COLUMNS = 1000
MAX_ROWS = 1000
PACE_SECONDS = 0.002
"""Least time between two frames: a client exists that loses what arrives in one read (contract §4.4)."""


class ExecuteFrame(Contract):
    """First frame of `/execute/stream`, `/stream` and `/stream/ipython`."""

    type: Literal["execute"] = "execute"
    code: str
    language: str = "python"
    timeout: float = Field(default=60.0, gt=0, le=MAX_EXECUTION_SECONDS)
    workdir: WorkingDirectory = ""
    env: EnvVars | None = None


class CommandFrame(Contract):
    """First frame of `/commands/stream`; `command` and `args` as for `/commands/run`."""

    type: Literal["execute", "command", "run"] = "execute"
    command: str = Field(min_length=1)
    args: tuple[str, ...] | None = None
    timeout: float = Field(default=60.0, gt=0, le=MAX_EXECUTION_SECONDS)
    workdir: WorkingDirectory = ""
    env: EnvVars | None = None


class OutputFrame(Contract):
    """A piece of a program's output."""

    type: Literal["stdout", "stderr"]
    data: str
    timestamp: str


class ResultFrame(Contract):
    """How the program ended: like an `ExecutionResult` without what was streamed already."""

    type: Literal["result"] = "result"
    exit_code: int
    execution_time: float
    success: bool = True
    timed_out: bool = False
    execution_id: str = ""
    kernel_restarted: bool = False
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    stdout_file: str | None = None
    stderr_file: str | None = None
    limit: str | None = None
    png: str | None = None
    html: str | None = None
    json_output: dict[str, Any] | None = Field(default=None, alias="json")
    result: str | None = None


class CompleteFrame(Contract):
    """The last frame of a stream; the socket is closed after it."""

    type: Literal["complete"] = "complete"
    success: bool


class ErrorFrame(Contract):
    """The platform refused or failed. Where the client waits for one, `complete` or `exit` follows."""

    type: Literal["error"] = "error"
    code: str
    message: str
    remedy: str = ""
    error: str = ""


class TerminalInput(Contract):
    """What is typed."""

    type: Literal["input"]
    data: str = Field(max_length=MAX_INPUT_CHARACTERS)


class TerminalResize(Contract):
    """The window of the client has another size."""

    type: Literal["resize"]
    cols: int = Field(ge=1, le=MAX_COLUMNS)
    rows: int = Field(ge=1, le=MAX_ROWS)


TerminalFrame = Annotated[TerminalInput | TerminalResize, Field(discriminator="type")]


class TerminalOutput(Contract):
    """What the terminal shows."""

    type: Literal["output"] = "output"
    data: str


class TerminalExit(Contract):
    """The shell has ended; 128 + signal number when a signal ended it."""

    type: Literal["exit"] = "exit"
    code: int


class TerminalSession(Contract):
    """First frame to a client that asked for a session (`/terminal?session=new` or `?session=term_...`).

    A terminal with a session outlives its connection; any other ends with it.
    """

    type: Literal["session"] = "session"
    id: str
    cols: int
    rows: int


class WatchFrame(Contract):
    """First frame of `/files/watch`. Links are not followed."""

    action: Literal["watch"] = "watch"
    path: str = "/workspace"
    recursive: bool = True


class WatchingFrame(Contract):
    """To a client that asked for it (`/files/watch?ready=true`): from now on no change is missed."""

    type: Literal["watching"] = "watching"
    path: str


class ChangeFrame(Contract):
    """Something changed below the watched path. A rename inside it is one `renamed` with `old_path`."""

    type: Literal["change"] = "change"
    path: str
    event: Literal["created", "modified", "deleted", "renamed"]
    timestamp: str
    is_directory: bool = False
    old_path: str | None = None


class OverflowFrame(Contract):
    """Changes were lost: more happened than could be kept. List the directory to know its state."""

    type: Literal["overflow"] = "overflow"
    path: str
    timestamp: str
