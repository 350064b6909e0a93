"""Where code and commands of a sandbox run."""

import json

from cove.models.errors import error
from cove.sdk import AsyncSandbox

WORKDIR_VARIABLE = "MICROSANDBOX_WORKDIR"
"""Holds, in the sandbox, the directory that its configuration named; commands begin there."""


async def enter(sandbox: AsyncSandbox, directory: str) -> None:
    """Have the Python interpreter go on in `directory`. One that is lost later begins where the template says.

    Raises:
        InvalidRequest: it cannot be entered.
    """
    # JSON's way to write a text is also Python's, where nothing of it is escaped that both can carry as it is.
    text = json.dumps(directory, ensure_ascii=False)
    entered = await sandbox.run_code(f"__import__('os').chdir({text})")
    if not entered.success:
        raise error("INVALID_PATH", f"The working directory {directory[:200]!r} cannot be entered.", field="workdir")
