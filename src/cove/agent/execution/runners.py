"""What runs as a process of its own and keeps no state: Bash, Go, commands."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cove.agent.execution.checks import Checks, arguments_of
from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.golang import MAIN_FILE, complete_program
from cove.agent.execution.launchers import missing_language
from cove.agent.execution.outcomes import Outcome, Recording, Started
from cove.agent.execution.programs import Programs
from cove.agent.execution.spawning import Invocation
from cove.models.execution import CommandRequest, ExecuteRequest

# execve(2): one argument takes at most 128 KiB.
MAX_ARGUMENT_BYTES = 120 * 1024


class Runners:
    """Turns requests into programs. Each raises INVALID_PATH for a working directory that does not exist."""

    def __init__(self, programs: Programs, environment: SandboxEnvironment, checks: Checks) -> None:
        self._programs = programs
        self._environment = environment
        self._checks = checks

    async def bash(self, request: ExecuteRequest, recording: Recording, on_start: Started | None = None) -> Outcome:
        """Run the code in a Bash of its own."""
        directory = self._checks.directory(request.workdir)
        if len(request.code.encode()) <= MAX_ARGUMENT_BYTES:
            return await self._run(["bash", "-c", request.code], directory, request, recording, on_start)
        with tempfile.TemporaryDirectory(prefix="bash-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            script = Path(folder, "script.sh")
            script.write_text(request.code, encoding="utf-8")
            return await self._run(["bash", str(script)], directory, request, recording, on_start)

    async def go(self, request: ExecuteRequest, recording: Recording, on_start: Started | None = None) -> Outcome:
        """Build the code and run the program; both together have the request's time."""
        directory = self._checks.directory(request.workdir)
        if shutil.which("go", path=self._environment.effective(request.env).get("PATH")) is None:
            raise missing_language("go", "go")
        deadline = time.monotonic() + request.timeout
        with tempfile.TemporaryDirectory(prefix="go-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            Path(folder, MAIN_FILE).write_text(complete_program(request.code), encoding="utf-8")
            build = ["go", "build", "-o", "program", MAIN_FILE]
            outcome = await self._run(build, folder, request, recording, on_start)
            if outcome.exit_code != 0:
                return outcome
            program, left = [str(Path(folder, "program"))], max(deadline - time.monotonic(), 0.0)
            return await self._run(program, directory, request, recording, on_start, left=left)

    async def command(self, request: CommandRequest, recording: Recording, on_start: Started | None = None) -> Outcome:
        """Run the command."""
        directory = self._checks.directory(request.workdir)
        return await self._run(arguments_of(request), directory, request, recording, on_start)

    async def _run(
        self,
        argv: Sequence[str],
        directory: str,
        request: ExecuteRequest | CommandRequest,
        recording: Recording,
        on_start: Started | None,
        *,
        left: float | None = None,
    ) -> Outcome:
        invocation = Invocation(argv, self._environment.effective(request.env), directory)
        seconds = request.timeout if left is None else left
        return await self._programs.run(
            invocation, recording, timeout=seconds, limit=request.timeout, on_start=on_start
        )
