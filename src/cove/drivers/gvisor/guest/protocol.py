"""Messages between the gVisor driver and a sandbox that is not born yet, one JSON object a line.

    sandbox -> driver (its standard output)  {"ready": true, "threads": 1, "failed": ["module", ...]} after the imports
    driver -> sandbox (its standard input)   `Birth`
    sandbox -> driver                        {"ok": true} when its agent's socket accepts, or {"error": {...}}

The end of standard input before a birth message means that the driver has gone: the sandbox ends. Both pipes are
closed at the birth.
An error is {"step": what was being done, "errno": number, "message": text}.
"""

from typing import Any, Final

from cove.models.agent import AgentBoot
from cove.models.base import Contract

MAX_BIRTH: Final = 4 * 1024 * 1024
MAX_LINE: Final = 64 * 1024

SOCKET_DIRECTORY: Final = "/run/cove"
SOCKET: Final = f"{SOCKET_DIRECTORY}/agent.sock"
"""Where the agent listens, in a directory that the host shares with this one sandbox until its birth."""

PLACEHOLDER: Final = "/tmp/.cove-start"
"""Keeps `runsc` from mounting memory over an empty /tmp; gone before any foreign code runs."""

BACKLOG: Final = 128
USER_ID: Final = 1000
"""As which programs run, unless they run as root."""


class Birth(Contract):
    """What a sandbox is told before it becomes one.

    Attributes:
        hostname: its own.
        open_files, processes: resource limits (setrlimit(2)).
    """

    hostname: str
    open_files: int
    processes: int
    boot: AgentBoot


def failure(step: str, problem: BaseException) -> dict[str, Any]:
    """An error as it is put on the wire."""
    number = problem.errno if isinstance(problem, OSError) else None
    return {"error": {"step": step, "errno": number or 0, "message": str(problem)}}
