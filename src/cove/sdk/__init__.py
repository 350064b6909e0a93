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
    from cove.sdk._async.control import AsyncControlPlane
    from cove.sdk._async.sandbox import AsyncSandbox
    from cove.sdk._results import Execution
    from cove.sdk._sync.control import ControlPlane
    from cove.sdk._sync.sandbox import Sandbox

__all__ = ["AsyncControlPlane", "AsyncSandbox", "ControlPlane", "Execution", "Sandbox"]

_MODULES = {
    "AsyncControlPlane": "cove.sdk._async.control",
    "AsyncSandbox": "cove.sdk._async.sandbox",
    "ControlPlane": "cove.sdk._sync.control",
    "Execution": "cove.sdk._results",
    "Sandbox": "cove.sdk._sync.sandbox",
}


def __getattr__(name: str) -> Any:
    """Load what is named and no more: a script that blocks needs no event loop (PEP 562)."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
