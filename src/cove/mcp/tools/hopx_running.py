"""Running a program for a call: watched, its output cut to what a model can use, its sandbox ended where it is the
call's own."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
import structlog

from cove.mcp.output import printed, shown
from cove.mcp.progress import reported
from cove.mcp.tool import Call, Result
from cove.models.errors import CoveError
from cove.models.execution import CommandResult, ExecutionResult
from cove.sdk import AsyncSandbox

_CLEAN_UP_SECONDS = 30.0
_GONE = frozenset({"SANDBOX_NOT_FOUND", "SANDBOX_EXPIRED", "SANDBOX_DIED"})
_log = structlog.get_logger("cove.mcp")

R = TypeVar("R", bound=ExecutionResult | CommandResult)


class ProgramResult(Result):
    """What a program did.

    Attributes:
        limit: what ended it, for example `memory 512 MiB`, or the time that it had.
        kernel_restarted: the variables and imports of earlier calls are gone.
    """

    stdout: str
    stderr: str
    exit_code: int
    execution_time: float
    success: bool
    timed_out: bool | None = None
    limit: str | None = None
    kernel_restarted: bool | None = None
    sandbox_id: str


async def run_watched(
    call: Call, start: Callable[..., Awaitable[R]], *, what: str, timeout: float, characters: int
) -> R:
    """The result of a program; the client hears of it while it runs.

    Args:
        start: runs it; is told `max_output_bytes`, and `on_stdout` and `on_stderr` where it is watched.
        what: the language, for people.
        characters: of each stream that will be shown.
    """
    async with reported(call, what, seconds=timeout) as watch:
        watching = {} if watch is None else {"on_stdout": watch, "on_stderr": watch}
        return await start(max_output_bytes=characters, **watching)


async def described(
    result: ExecutionResult | CommandResult,
    sandbox: AsyncSandbox,
    *,
    timeout: float,
    characters: int,
    lasting: bool = True,
) -> dict[str, Any]:
    """The fields of a `ProgramResult`."""
    stdout, stderr = [
        await shown(printed(result, stream), characters, sandbox=sandbox, lasting=lasting)
        for stream in ("stdout", "stderr")
    ]
    limit = result.limit or (f"time {timeout:g} s" if result.timed_out else None)
    return {
        "stdout": stdout,
        "stderr": stderr,
        "exit_code": result.exit_code,
        "execution_time": result.execution_time,
        "success": result.success,
        "timed_out": result.timed_out or None,
        "limit": limit,
        "kernel_restarted": getattr(result, "kernel_restarted", False) or None,
        "sandbox_id": sandbox.sandbox_id,
    }


@dataclass(slots=True)
class OwnSandbox:
    """A sandbox for one program.

    Attributes:
        destroyed: after the block: it is gone.
    """

    sandbox: AsyncSandbox
    destroyed: bool = field(default=False)


@asynccontextmanager
async def own_sandbox(call: Call, template: str | None, **options: Any) -> AsyncGenerator[OwnSandbox]:
    """A sandbox that is destroyed at the end of the block, also when the call is cancelled, and also when that
    happens while it is being made."""
    creating = asyncio.ensure_future(call.caller.create(template, **options))
    own: OwnSandbox | None = None
    try:
        own = OwnSandbox(await asyncio.shield(creating))
        yield own
    finally:
        destroyed = False
        with anyio.move_on_after(_CLEAN_UP_SECONDS, shield=True):
            destroyed = await _destroy(call, creating)
        if own is not None:
            own.destroyed = destroyed


async def _destroy(call: Call, creating: "asyncio.Future[AsyncSandbox]") -> bool:
    try:
        sandbox = await asyncio.shield(creating)
    except CoveError:
        # There is none; the block has heard of it.
        return True
    call.caller.forget(sandbox.sandbox_id)
    try:
        await call.caller.control.kill(sandbox.sandbox_id, wait=False)
    except CoveError as failure:
        if failure.code not in _GONE:
            # It still has its deadline.
            _log.warning("sandbox_not_destroyed", sandbox=sandbox.sandbox_id, code=failure.code)
            return False
    return True
