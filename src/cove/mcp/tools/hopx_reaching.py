"""The way to a sandbox that a call names."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from cove.mcp.tool import Answer, Call
from cove.models.errors import CoveError, error
from cove.models.sandboxes import SandboxStatus
from cove.sdk import AsyncSandbox

T = TypeVar("T")
_DOES_NOT_RUN = frozenset({"INVALID_STATE", "SANDBOX_NOT_FOUND"})


async def inside(call: Call, sandbox_id: str, use: Callable[[AsyncSandbox], Awaitable[T]]) -> T:
    """What `use` makes of the sandbox. A paused one is resumed, once; a request that a paused sandbox refused had no
    effect, so that it may be made again.

    Raises:
        CoveError: NotFound, and whatever `use` raises.
    """
    try:
        return await use(await call.caller.sandbox(sandbox_id))
    except CoveError as failure:
        call.caller.forget_after(failure, sandbox_id)
        if failure.code not in _DOES_NOT_RUN or not await _resumed(call, sandbox_id):
            raise
    return await use(await call.caller.sandbox(sandbox_id))


async def answered(call: Call, sandbox_id: str, use: Callable[[AsyncSandbox], Awaitable[Answer]]) -> Answer:
    """As `inside`; the answer says which wall stands around the sandbox."""

    async def with_isolation(sandbox: AsyncSandbox) -> Answer:
        return (await use(sandbox)).with_meta(isolation=str(sandbox.isolation))

    return await inside(call, sandbox_id, with_isolation)


async def _resumed(call: Call, sandbox_id: str) -> bool:
    """Whether it was paused, and is so no more.

    Raises:
        CoveError: it does not run; the control plane knows why, where the gateway does not.
    """
    info = await call.caller.control.get(sandbox_id)
    if info.status is SandboxStatus.STOPPED:
        raise error("INVALID_STATE", f"Sandbox {sandbox_id} is stopped.", remedy="Start it again, or use another one.")
    if info.status is not SandboxStatus.PAUSED:
        return False
    await call.caller.control.resume(sandbox_id)
    return True
