"""Starting programs that run without the client, and finding them again."""

import builtins

from cove.models.async_executions import AsyncExecutionAccepted
from cove.models.processes import BackgroundStarted, ProcessKilled
from cove.sdk import _process_requests as requests
from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._async.processes import AsyncProcess
from cove.sdk._failures import parse
from cove.sdk._process_results import ProcessInfo, ProcessInfos
from cove.sdk._requests import Call


async def started(link: AsyncAgentLink, call: Call) -> AsyncProcess:
    """The program that `call` starts."""
    return AsyncProcess(link, parse(BackgroundStarted, await link.send(call)))


async def accepted(link: AsyncAgentLink, call: Call) -> AsyncExecutionAccepted:
    """What the server says to the program that it takes over."""
    return parse(AsyncExecutionAccepted, await link.send(call))


async def listed(link: AsyncAgentLink) -> builtins.list[AsyncProcess]:
    """Programs in the background, newest first."""
    found = parse(ProcessInfos, await link.send(requests.list_processes()))
    return [AsyncProcess(link, info) for info in found.processes]


async def found(link: AsyncAgentLink, process_id: str) -> AsyncProcess:
    """One of them."""
    return AsyncProcess(link, parse(ProcessInfo, await link.send(requests.process(process_id))))


async def killed(link: AsyncAgentLink, process_id: str, signal: int | str | None) -> ProcessKilled:
    """The answer to a kill."""
    return parse(ProcessKilled, await link.send(requests.kill_process(process_id, signal)))
