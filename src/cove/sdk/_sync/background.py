# Generated from src/cove/sdk/_async/background.py by tools/generate_sync_sdk.py. Do not edit.

"""Starting programs that run without the client, and finding them again."""

import builtins

from cove.models.async_executions import AsyncExecutionAccepted
from cove.models.processes import BackgroundStarted, ProcessKilled
from cove.sdk import _process_requests as requests
from cove.sdk._failures import parse
from cove.sdk._process_results import ProcessInfo, ProcessInfos
from cove.sdk._requests import Call
from cove.sdk._sync.agent import AgentLink
from cove.sdk._sync.processes import Process


def started(link: AgentLink, call: Call) -> Process:
    """The program that `call` starts."""
    return Process(link, parse(BackgroundStarted, link.send(call)))


def accepted(link: AgentLink, call: Call) -> AsyncExecutionAccepted:
    """What the server says to the program that it takes over."""
    return parse(AsyncExecutionAccepted, link.send(call))


def listed(link: AgentLink) -> builtins.list[Process]:
    """Programs in the background, newest first."""
    found = parse(ProcessInfos, link.send(requests.list_processes()))
    return [Process(link, info) for info in found.processes]


def found(link: AgentLink, process_id: str) -> Process:
    """One of them."""
    return Process(link, parse(ProcessInfo, link.send(requests.process(process_id))))


def killed(link: AgentLink, process_id: str, signal: int | str | None) -> ProcessKilled:
    """The answer to a kill."""
    return parse(ProcessKilled, link.send(requests.kill_process(process_id, signal)))
