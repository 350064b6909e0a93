# Generated from src/cove/sdk/_async/commands.py by tools/generate_sync_sdk.py. Do not edit.

"""Shell commands inside a sandbox."""

from collections.abc import Mapping

from cove.models.execution import CommandResult
from cove.sdk import _requests as requests
from cove.sdk._failures import parse
from cove.sdk._sync.agent import AgentLink


class Commands:
    """Runs commands in one sandbox."""

    def __init__(self, link: AgentLink) -> None:
        self._link = link

    def run(
        self,
        command: str,
        *,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        working_dir: requests.SandboxPath | None = None,
    ) -> CommandResult:
        """Run shell text with bash and wait for its end. A command that fails is a result, not an exception.

        Args:
            timeout: seconds; then the command and all that it started are ended.
            env: variables for this command; they win over those of the sandbox.
            working_dir: /workspace when absent.

        Raises:
            CoveError: the command could not be run; after a lost connection it is not run again.
        """
        call = requests.run_command(command, timeout=timeout, env=env, working_dir=working_dir)
        return parse(CommandResult, self._link.send(call))
