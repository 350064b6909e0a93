"""The Python client: sandboxes from a program.

    from cove import Sandbox

    with Sandbox.create() as sandbox:
        print(sandbox.run_code("print(6 * 7)").stdout)

`AsyncSandbox` has the same methods for asynchronous code. `ControlPlane` and `AsyncControlPlane` manage many sandboxes
over one connection.
"""

from cove.sdk._async.control import AsyncControlPlane
from cove.sdk._async.sandbox import AsyncSandbox
from cove.sdk._results import Execution
from cove.sdk._sync.control import ControlPlane
from cove.sdk._sync.sandbox import Sandbox

__all__ = ["AsyncControlPlane", "AsyncSandbox", "ControlPlane", "Execution", "Sandbox"]
