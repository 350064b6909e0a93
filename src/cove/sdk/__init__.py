"""The Python client: sandboxes from a program.

    from cove import Sandbox

    with Sandbox.create() as sandbox:
        print(sandbox.run_code("print(6 * 7)").stdout)

`AsyncSandbox` has the same methods for asynchronous code. `ControlPlane` and `AsyncControlPlane` manage many sandboxes
over one connection.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cove.models.async_executions import AsyncExecutionAccepted, AsyncExecutionInfo
    from cove.models.frames import ChangeFrame, OverflowFrame
    from cove.models.secrets import SandboxSecret
    from cove.sdk import webhooks
    from cove.sdk._async.control import AsyncControlPlane
    from cove.sdk._async.leasing import AsyncLeasedControlPlane
    from cove.sdk._async.processes import AsyncProcess
    from cove.sdk._async.sandbox import AsyncSandbox
    from cove.sdk._async.terminal import AsyncTerminalConnection
    from cove.sdk._events import ExecutionEvent, OutputEvent, ResultEvent
    from cove.sdk._expiry import ExpiryInfo
    from cove.sdk._process_results import ProcessInfo
    from cove.sdk._results import Execution
    from cove.sdk._sync.control import ControlPlane
    from cove.sdk._sync.processes import Process
    from cove.sdk._sync.sandbox import Sandbox
    from cove.sdk._sync.terminal import TerminalConnection
    from cove.sdk._transfers import DirectoryTransfer

__all__ = [
    "AsyncControlPlane",
    "AsyncExecutionAccepted",
    "AsyncExecutionInfo",
    "AsyncLeasedControlPlane",
    "AsyncProcess",
    "AsyncSandbox",
    "AsyncTerminalConnection",
    "ChangeFrame",
    "ControlPlane",
    "DirectoryTransfer",
    "Execution",
    "ExecutionEvent",
    "ExpiryInfo",
    "OutputEvent",
    "OverflowFrame",
    "Process",
    "ProcessInfo",
    "ResultEvent",
    "Sandbox",
    "SandboxSecret",
    "TerminalConnection",
    "webhooks",
]

_MODULES = {
    "AsyncControlPlane": "cove.sdk._async.control",
    "AsyncExecutionAccepted": "cove.models.async_executions",
    "AsyncExecutionInfo": "cove.models.async_executions",
    "AsyncLeasedControlPlane": "cove.sdk._async.leasing",
    "AsyncProcess": "cove.sdk._async.processes",
    "AsyncSandbox": "cove.sdk._async.sandbox",
    "AsyncTerminalConnection": "cove.sdk._async.terminal",
    "ChangeFrame": "cove.models.frames",
    "ControlPlane": "cove.sdk._sync.control",
    "DirectoryTransfer": "cove.sdk._transfers",
    "Execution": "cove.sdk._results",
    "ExecutionEvent": "cove.sdk._events",
    "ExpiryInfo": "cove.sdk._expiry",
    "OutputEvent": "cove.sdk._events",
    "OverflowFrame": "cove.models.frames",
    "Process": "cove.sdk._sync.processes",
    "ProcessInfo": "cove.sdk._process_results",
    "ResultEvent": "cove.sdk._events",
    "Sandbox": "cove.sdk._sync.sandbox",
    "SandboxSecret": "cove.models.secrets",
    "TerminalConnection": "cove.sdk._sync.terminal",
}


def __getattr__(name: str) -> Any:
    """Load what is named and no more: a script that blocks needs no event loop (PEP 562)."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name == "webhooks":
        return import_module("cove.sdk.webhooks")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
