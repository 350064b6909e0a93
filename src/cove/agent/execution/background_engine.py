"""From requests to background programs."""

from collections.abc import Iterator

from cove.agent.execution.attempt import SessionCall
from cove.agent.execution.background import BackgroundPrograms, command_line, first_line
from cove.agent.execution.background_program import BackgroundProgram
from cove.agent.execution.checks import Checks, arguments_of, require_code, require_text
from cove.agent.execution.launchers import Launcher
from cove.agent.execution.outcomes import Outcome, Recording
from cove.agent.execution.runners import Runners
from cove.agent.execution.scripts import Scripts
from cove.agent.execution.signals import parse_signal
from cove.models.execution import CommandRequest, ExecuteRequest, Language
from cove.models.processes import BackgroundCommand, BackgroundExecute, BackgroundStarted

MAX_RESULT_CHARACTERS = 64 * 1024
COMMAND_TALLY = "command"
SHELL = "shell"


class BackgroundEngine:
    """Starts code and commands in the background, each with a process or an interpreter of its own."""

    def __init__(
        self,
        programs: BackgroundPrograms,
        *,
        checks: Checks,
        runners: Runners,
        scripts: Scripts,
        launchers: dict[Language, Launcher],
    ) -> None:
        """`launchers` start the interpreters of the languages that have one."""
        self._programs = programs
        self._checks = checks
        self._runners = runners
        self._scripts = scripts
        self._launchers = launchers

    def __iter__(self) -> Iterator[BackgroundProgram]:
        """All that are known, the oldest first."""
        return iter(self._programs)

    async def start_code(self, request: BackgroundExecute) -> BackgroundStarted:
        """Start code; returns as soon as its process is there.

        Raises:
            CoveError: UNSUPPORTED_LANGUAGE, REQUEST_TOO_LARGE, INVALID_PATH, INVALID_REQUEST, RESOURCE_LIMIT_EXCEEDED,
                CONFLICT. A failing program is a result.
        """
        language = self._checks.language(request.language)
        request = self._checks.bounded(request)
        require_code(request.code)
        require_text(request.name or "")
        plain = ExecuteRequest(
            code=request.code,
            language=language,
            timeout=request.timeout,
            workdir=request.workdir,
            env=request.env,
            max_output_bytes=request.max_output_bytes,
        )

        async def work(program: BackgroundProgram, recording: Recording) -> Outcome:
            return await self._run(language, plain, program, recording)

        return await self._programs.start(
            work,
            prefix="proc_",
            language=language,
            command=first_line(request.code),
            limit=request.max_output_bytes,
            timeout=request.timeout,
            name=request.name,
            execution_id=request.execution_id,
            tally=language,
        )

    async def start_command(self, request: BackgroundCommand) -> BackgroundStarted:
        """Start a command; same rules as `start_code`."""
        request = self._checks.bounded(request)
        plain = CommandRequest(
            command=request.command,
            args=request.args,
            timeout=request.timeout,
            workdir=request.workdir,
            env=request.env,
            max_output_bytes=request.max_output_bytes,
        )
        arguments_of(plain)
        require_text(request.name or "")

        async def work(program: BackgroundProgram, recording: Recording) -> Outcome:
            return await self._runners.command(plain, recording, program.on_start)

        return await self._programs.start(
            work,
            prefix="cmd_",
            language=SHELL,
            command=command_line(request.command, request.args),
            limit=request.max_output_bytes,
            timeout=request.timeout,
            name=request.name,
            tally=COMMAND_TALLY,
        )

    def find(self, identifier: str) -> BackgroundProgram:
        """The program with that process id or execution id; raises PROCESS_NOT_FOUND."""
        return self._programs.find(identifier)

    async def kill(self, identifier: str, signal: int | str | None) -> tuple[str, str]:
        """As `BackgroundPrograms.kill`; `signal` is a number or a name.

        Raises:
            CoveError: INVALID_REQUEST for what is no signal, PROCESS_NOT_FOUND, FORBIDDEN.
        """
        return await self._programs.kill(identifier, None if signal is None else parse_signal(signal))

    async def close(self) -> None:
        """End all that still run."""
        await self._programs.close()

    async def _run(
        self, language: Language, request: ExecuteRequest, program: BackgroundProgram, recording: Recording
    ) -> Outcome:
        launcher = self._launchers.get(language)
        if launcher is not None:
            return await self._scripts.run(launcher, self._script_call(request), recording, program.on_start)
        run = self._runners.bash if language is Language.BASH else self._runners.go
        return await run(request, recording, program.on_start)

    def _script_call(self, request: ExecuteRequest) -> SessionCall:
        return SessionCall(
            code=request.code,
            timeout=request.timeout,
            workdir=self._checks.directory(request.workdir) if request.workdir else None,
            variables=request.env or {},
            rich=True,
            result_limit=min(request.max_output_bytes, MAX_RESULT_CHARACTERS),
            script=True,
        )
