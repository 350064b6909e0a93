"""The execution engine of a sandbox: one entry for code in any language and for commands."""

import shutil
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from cove.agent.engine import OutputListener
from cove.agent.execution.answers import command_result, execution_result
from cove.agent.execution.counters import ExecutionCounters, Tally
from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.golang import MAIN_FILE, complete_program
from cove.agent.execution.launchers import NodeLauncher, PythonLauncher, missing_language
from cove.agent.execution.outcomes import Outcome, Recording
from cove.agent.execution.output import OutputFiles
from cove.agent.execution.pipes import Pipes
from cove.agent.execution.prepare import prepare
from cove.agent.execution.process_tree import end_tree
from cove.agent.execution.programs import Programs
from cove.agent.execution.reaper import Reaper
from cove.agent.execution.sessions import Session, SessionCall
from cove.agent.execution.spawning import Invocation
from cove.models.agent import AgentBoot
from cove.models.errors import CoveError, error
from cove.models.execution import (
    LANGUAGE_ALIASES,
    MAX_CODE_BYTES,
    CommandRequest,
    CommandResult,
    ExecuteRequest,
    ExecutionResult,
    Language,
)

MAX_RESULT_CHARACTERS = 1024 * 1024
# execve(2): one argument takes at most 128 KiB.
MAX_ARGUMENT_BYTES = 120 * 1024
COMMAND_TALLY = "command"
_REHEARSAL = ExecuteRequest(code="print(end='')", timeout=10.0)
_Runner = Callable[[ExecuteRequest, Recording], Awaitable[Outcome]]


class Executor:
    """Runs programs in the sandbox. Lives on one event loop, in the main thread of its process.

    Python and JavaScript are stateful, one interpreter each; Bash, Go and commands are processes of their own and run
    beside each other. Cancelling a call ends what it started.
    """

    def __init__(self, boot: AgentBoot, environment: SandboxEnvironment, *, reaper: Reaper | None = None) -> None:
        self._languages = frozenset(boot.languages)
        self._workspace = boot.workspace
        self._environment = environment
        self._reaper = reaper or Reaper()
        self._pipes = Pipes()
        self._files = OutputFiles()
        self._programs = Programs(self._reaper, self._pipes)
        python = PythonLauncher(self._reaper, environment, boot.workspace)
        node = NodeLauncher(self._reaper, self._pipes, environment, boot.workspace)
        self._python = Session(python, environment, self._pipes)
        self._javascript = Session(node, environment, self._pipes)
        self._tally = Tally()
        self._runners: dict[Language, _Runner] = {
            Language.PYTHON: self._run_python,
            Language.JAVASCRIPT: self._run_javascript,
            Language.BASH: self._run_bash,
            Language.GO: self._run_go,
        }

    async def start(self) -> None:
        """Get ready to run programs. The Python kernel is forked by the first call that needs it, or by `rehearse`.

        Forked here it would cost a sandbox that only waits 5 MB, or 1.8 MB if it slept at once, for 2 ms to 4 ms.
        """
        prepare(())
        self._reaper.start()

    async def execute(self, request: ExecuteRequest, *, on_output: OutputListener | None = None) -> ExecutionResult:
        """Run code to its end or its timeout, once.

        Args:
            on_output: told of each piece of output that the result will hold, as it comes.

        Raises:
            CoveError: UNSUPPORTED_LANGUAGE, REQUEST_TOO_LARGE, INVALID_PATH (working directory), or no process could
                be started. A failing program is a result.
        """
        language = self._language(request)
        if language is Language.PYTHON:
            with suppress(CoveError):  # the call itself will say so
                self._python.start()  # it gets ready while the call is being prepared
        _require_text(request.code)
        if len(request.code.encode()) > MAX_CODE_BYTES:
            raise error("REQUEST_TOO_LARGE", f"the code is longer than {MAX_CODE_BYTES} bytes")
        execution_id = f"exec_{uuid.uuid4().hex}"
        recording = Recording(execution_id, request.max_output_bytes, self._files, on_output)
        began = time.monotonic()
        with self._tally.running(language) as done:
            outcome = await self._runners[language](request, recording)
            done(outcome.exit_code)
        streams = recording.finish(outcome.notes)
        seconds = time.monotonic() - began
        return execution_result(execution_id, language, outcome, streams, seconds)

    async def rehearse(self) -> None:
        """Run an empty Python program, counted nowhere: what the first real one would touch is touched then."""
        if Language.PYTHON in self._languages:
            recording = Recording("rehearsal", 0, self._files)
            await self._run_python(_REHEARSAL, recording)
            recording.finish(())

    async def run_command(self, request: CommandRequest) -> CommandResult:
        """Run a command to its end or its timeout; same rules as `execute`."""
        argv = ["bash", "-c", request.command] if request.args is None else [request.command, *request.args]
        for argument in argv:
            _require_text(argument)
        execution_id = f"cmd_{uuid.uuid4().hex}"
        recording = Recording(execution_id, request.max_output_bytes, self._files)
        began = time.monotonic()
        invocation = Invocation(argv, self._environment.effective(request.env), self._directory(request.workdir))
        with self._tally.running(COMMAND_TALLY) as done:
            timeout = request.timeout
            outcome = await self._programs.run(invocation, recording, timeout=timeout, limit=timeout)
            done(outcome.exit_code)
        streams = recording.finish(outcome.notes)
        return command_result(execution_id, request.command, outcome, streams, time.monotonic() - began)

    async def close(self) -> None:
        """End everything that was started here, background processes included."""
        await self._python.close()
        await self._javascript.close()
        await self._programs.close()
        for pid in self._reaper.adopted():
            await end_tree(pid)
        self._pipes.close()
        self._reaper.close()

    def counters(self) -> ExecutionCounters:
        """How much was executed so far."""
        return self._tally.counters()

    def _language(self, request: ExecuteRequest) -> Language:
        language = LANGUAGE_ALIASES.get(request.language.lower())
        if language is None or language not in self._languages:
            known = ", ".join(sorted(self._languages))
            raise error(
                "UNSUPPORTED_LANGUAGE",
                f"language {request.language[:40]!r} cannot run in this sandbox",
                remedy=f"Languages here: {known}.",
            )
        return language

    def _directory(self, workdir: str) -> str:
        _require_text(workdir)
        path = Path(self._workspace, workdir)
        if not workdir:
            return self._workspace if path.is_dir() else "/"
        try:
            exists = path.is_dir()
        except OSError:  # too long a name
            exists = False
        if not exists:
            raise error(
                "INVALID_PATH",
                f"the working directory {workdir[:200]!r} does not exist",
                remedy="Create it first (POST /files/mkdir), or leave workdir empty.",
            )
        return str(path)

    async def _run_python(self, request: ExecuteRequest, recording: Recording) -> Outcome:
        return await self._python.run(self._session_call(request), recording)

    async def _run_javascript(self, request: ExecuteRequest, recording: Recording) -> Outcome:
        return await self._javascript.run(self._session_call(request), recording)

    def _session_call(self, request: ExecuteRequest) -> SessionCall:
        return SessionCall(
            code=request.code,
            timeout=request.timeout,
            workdir=self._directory(request.workdir) if request.workdir else None,
            variables=request.env or {},
            rich=request.capture_rich,
            result_limit=min(request.max_output_bytes, MAX_RESULT_CHARACTERS),
        )

    async def _run_bash(self, request: ExecuteRequest, recording: Recording) -> Outcome:
        variables, directory = self._environment.effective(request.env), self._directory(request.workdir)
        if len(request.code.encode()) <= MAX_ARGUMENT_BYTES:
            return await self._run_program(["bash", "-c", request.code], variables, directory, request, recording)
        with tempfile.TemporaryDirectory(prefix="bash-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            script = Path(folder, "script.sh")
            script.write_text(request.code, encoding="utf-8")
            return await self._run_program(["bash", str(script)], variables, directory, request, recording)

    async def _run_program(
        self, argv: list[str], variables: dict[str, str], directory: str, request: ExecuteRequest, recording: Recording
    ) -> Outcome:
        invocation = Invocation(argv, variables, directory)
        return await self._programs.run(invocation, recording, timeout=request.timeout, limit=request.timeout)

    async def _run_go(self, request: ExecuteRequest, recording: Recording) -> Outcome:
        variables = self._environment.effective(request.env)
        directory = self._directory(request.workdir)
        if shutil.which("go", path=variables.get("PATH")) is None:
            raise missing_language("go", "go")
        deadline = time.monotonic() + request.timeout
        with tempfile.TemporaryDirectory(prefix="go-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            Path(folder, MAIN_FILE).write_text(complete_program(request.code), encoding="utf-8")
            build = ["go", "build", "-o", "program", MAIN_FILE]
            outcome = await self._run_program(build, variables, folder, request, recording)
            if outcome.exit_code != 0:
                return outcome
            left = max(deadline - time.monotonic(), 0.0)
            program = Invocation([str(Path(folder, "program"))], variables, directory)
            return await self._programs.run(program, recording, timeout=left, limit=request.timeout)


def _require_text(value: str) -> None:
    if "\0" in value:
        raise error("INVALID_REQUEST", "the request contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise error("INVALID_REQUEST", "the request contains text that is not valid Unicode") from None
