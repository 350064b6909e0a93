"""The execution engine of a sandbox: one entry for code in any language and for commands."""

import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress

from cove.agent.engine import OutputFlow, OutputListener
from cove.agent.execution.answers import command_result, execution_result
from cove.agent.execution.attempt import SessionCall
from cove.agent.execution.background import BackgroundPrograms
from cove.agent.execution.background_engine import COMMAND_TALLY, BackgroundEngine
from cove.agent.execution.checks import Checks, require_code
from cove.agent.execution.counters import ExecutionCounters, Tally
from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.launchers import Launcher, NodeLauncher, PythonLauncher
from cove.agent.execution.limit_events import LimitCounters, LimitEvents
from cove.agent.execution.outcomes import Outcome, Recording, pass_on, record
from cove.agent.execution.output import OutputFiles
from cove.agent.execution.pipes import Pipes
from cove.agent.execution.prepare import prepare
from cove.agent.execution.process_tree import end_tree
from cove.agent.execution.programs import Programs
from cove.agent.execution.reaper import Reaper
from cove.agent.execution.runners import Runners
from cove.agent.execution.scripts import Scripts
from cove.agent.execution.sessions import Session
from cove.models.agent import AgentBoot
from cove.models.errors import CoveError
from cove.models.execution import CommandRequest, CommandResult, ExecuteRequest, ExecutionResult, Language

MAX_RESULT_CHARACTERS = 1024 * 1024
_REHEARSAL = ExecuteRequest(code="print(end='')", timeout=10.0)
_Runner = Callable[[ExecuteRequest, Recording], Awaitable[Outcome]]


class Executor:
    """Runs programs in the sandbox. Lives on one event loop, in the main thread of its process.

    Python and JavaScript are stateful, one interpreter each; Bash, Go and commands are processes of their own and run
    beside each other. Cancelling a call ends what it started.
    """

    def __init__(
        self,
        boot: AgentBoot,
        environment: SandboxEnvironment,
        *,
        reaper: Reaper | None = None,
        counters: LimitCounters | None = None,
    ) -> None:
        """`counters` tell what the kernel refused this sandbox."""
        self._checks = Checks(boot.languages, boot.workspace, boot.limits)
        self._events = LimitEvents(boot.limits, boot.workspace, counters or LimitCounters())
        self._reaper = reaper or Reaper()
        self._pipes = Pipes()
        self._files = OutputFiles()
        self._programs = Programs(self._reaper, self._pipes)
        self._single = Runners(self._programs, environment, self._checks)
        python = PythonLauncher(self._reaper, environment, boot.workspace)
        node = NodeLauncher(self._reaper, self._pipes, environment, boot.workspace)
        self._launchers: dict[Language, Launcher] = {Language.PYTHON: python, Language.JAVASCRIPT: node}
        self._scripts = Scripts(environment, self._pipes)
        self._background: BackgroundEngine | None = None
        self._python = Session(python, environment, self._pipes)
        self._javascript = Session(node, environment, self._pipes)
        self._tally = Tally()
        self._runners: dict[Language, _Runner] = {
            Language.PYTHON: self._run_python,
            Language.JAVASCRIPT: self._run_javascript,
            Language.BASH: self._single.bash,
            Language.GO: self._single.go,
        }

    async def start(self) -> None:
        """Get ready to run programs. The Python kernel is forked by the first call that needs it, or by `rehearse`.

        Forked here it would cost a sandbox that only waits 5 MB, or 1.8 MB if it slept at once, for 2 ms to 4 ms.
        """
        prepare(())
        self._reaper.start()

    async def execute(
        self, request: ExecuteRequest, *, on_output: OutputListener | None = None, flow: OutputFlow | None = None
    ) -> ExecutionResult:
        """Run code to its end or its timeout, once.

        Args:
            on_output: told of each piece of output that the result will hold, as it comes.
            flow: gets all output; the result then holds none.

        Raises:
            CoveError: UNSUPPORTED_LANGUAGE, REQUEST_TOO_LARGE, INVALID_PATH (working directory), or no process could
                be started. A failing program is a result.
        """
        language = self._checks.language(request.language)
        if language is Language.PYTHON:
            with suppress(CoveError):  # the call itself will say so
                self._python.start()  # it gets ready while the call is being prepared
        require_code(request.code)
        request = self._checks.bounded(request)
        execution_id = f"exec_{uuid.uuid4().hex}"
        recording = self._recording(execution_id, request, on_output, flow)
        began = time.monotonic()
        with self._tally.running(language) as done, self._events.watched() as watch:
            ended = await self._runners[language](request, recording)
            outcome = await watch.judged(ended, recording, seconds=request.timeout)
            done(outcome.exit_code)
        streams = recording.finish(outcome.notes)
        seconds = time.monotonic() - began
        return execution_result(execution_id, language, outcome, streams, seconds)

    async def rehearse(self) -> None:
        """Run an empty Python program, counted nowhere: what the first real one would touch is touched then."""
        if Language.PYTHON in self._checks.languages:
            recording = record("rehearsal", 0, self._files)
            await self._run_python(_REHEARSAL, recording)
            recording.finish(())

    async def run_command(self, request: CommandRequest, *, flow: OutputFlow | None = None) -> CommandResult:
        """Run a command to its end or its timeout; same rules as `execute`."""
        request = self._checks.bounded(request)
        execution_id = f"cmd_{uuid.uuid4().hex}"
        recording = self._recording(execution_id, request, flow=flow)
        began = time.monotonic()
        with self._tally.running(COMMAND_TALLY) as done, self._events.watched() as watch:
            ended = await self._single.command(request, recording)
            outcome = await watch.judged(ended, recording, seconds=request.timeout)
            done(outcome.exit_code)
        streams = recording.finish(outcome.notes)
        return command_result(execution_id, request.command, outcome, streams, time.monotonic() - began)

    @property
    def background(self) -> BackgroundEngine:
        """Programs in the background."""
        if self._background is None:
            self._background = BackgroundEngine(
                BackgroundPrograms(self._tally, self._events),
                checks=self._checks,
                runners=self._single,
                scripts=self._scripts,
                launchers=self._launchers,
            )
        return self._background

    @property
    def python_busy(self) -> bool:
        """Whether the shared Python kernel runs a call."""
        return self._python.busy

    async def close(self) -> None:
        """End everything that was started here, background processes included."""
        if self._background is not None:
            await self._background.close()
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

    def _recording(
        self,
        execution_id: str,
        request: ExecuteRequest | CommandRequest,
        on_output: OutputListener | None = None,
        flow: OutputFlow | None = None,
    ) -> Recording:
        if flow is not None:
            return pass_on(flow)
        return record(execution_id, request.max_output_bytes, self._files, on_output)

    async def _run_python(self, request: ExecuteRequest, recording: Recording) -> Outcome:
        return await self._python.run(self._session_call(request), recording)

    async def _run_javascript(self, request: ExecuteRequest, recording: Recording) -> Outcome:
        return await self._javascript.run(self._session_call(request), recording)

    def _session_call(self, request: ExecuteRequest) -> SessionCall:
        return SessionCall(
            code=request.code,
            timeout=request.timeout,
            workdir=self._checks.directory(request.workdir) if request.workdir else None,
            variables=request.env or {},
            rich=request.capture_rich,
            result_limit=min(request.max_output_bytes, MAX_RESULT_CHARACTERS),
        )
