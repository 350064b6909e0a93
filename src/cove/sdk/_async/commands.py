"""Shell commands inside a sandbox."""

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Literal, overload

from cove.models.errors import error
from cove.models.execution import CommandResult
from cove.sdk import _execution_requests as requests
from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._async.primitives import TextCallback
from cove.sdk._failures import parse
from cove.sdk._requests import Call, SandboxPath
from cove.sdk._results import command_result

if TYPE_CHECKING:
    from cove.sdk._async.processes import AsyncProcess
    from cove.sdk._events import ExecutionEvent


class AsyncCommands:
    """Runs commands in one sandbox: shell text, with Bash."""

    def __init__(self, link: AsyncAgentLink) -> None:
        self._link = link

    @overload
    async def run(
        self,
        command: str,
        *,
        timeout: float | None = None,
        background: Literal[False] = False,
        env: Mapping[str, str] | None = None,
        working_dir: SandboxPath | None = None,
        max_output_bytes: int | None = None,
        on_stdout: TextCallback | None = None,
        on_stderr: TextCallback | None = None,
    ) -> CommandResult: ...

    @overload
    async def run(
        self,
        command: str,
        *,
        timeout: float | None = None,
        background: Literal[True],
        env: Mapping[str, str] | None = None,
        working_dir: SandboxPath | None = None,
        name: str | None = None,
    ) -> "AsyncProcess": ...

    async def run(
        self,
        command: str,
        *,
        timeout: float | None = None,
        background: bool = False,
        env: Mapping[str, str] | None = None,
        working_dir: SandboxPath | None = None,
        max_output_bytes: int | None = None,
        on_stdout: TextCallback | None = None,
        on_stderr: TextCallback | None = None,
        name: str | None = None,
    ) -> "CommandResult | AsyncProcess":
        """Run a command and wait for its end. A command that fails is a result, not an exception.

        Args:
            timeout: seconds, else 60, or 300 in the background; then the command and all that it started are ended.
            background: return at once; the command goes on without this client.
            env: variables for this command; they win over those of the sandbox.
            working_dir: /workspace when absent.
            max_output_bytes: cap of stdout and of stderr in the result, each; absent means 1 MiB.
            on_stdout: told of each piece of stdout as it comes; when it raises, the command is ended.
            on_stderr: the same for stderr.
            name: for people, in the background.

        Raises:
            CoveError: the command could not be run; after a lost connection it is not run again.
        """
        if background:
            _require_no_callbacks(on_stdout, on_stderr)
            from cove.sdk import _process_requests
            from cove.sdk._async.background import started

            seconds = requests.BACKGROUND_SECONDS if timeout is None else timeout
            call = _process_requests.command_background(
                command, timeout=seconds, env=env, name=name, working_dir=working_dir
            )
            return await started(self._link, call)
        seconds = 60.0 if timeout is None else timeout
        if on_stdout is None and on_stderr is None:
            call = requests.run_command(
                command, timeout=seconds, env=env, working_dir=working_dir, max_output_bytes=max_output_bytes
            )
            return parse(CommandResult, await self._link.send(call))
        from cove.sdk._async.streaming import run_to_end

        call = _streamed(command, timeout=seconds, env=env, working_dir=working_dir, max_output_bytes=max_output_bytes)
        return command_result(command, await run_to_end(self._link, call, on_stdout=on_stdout, on_stderr=on_stderr))

    def stream(
        self,
        command: str,
        *,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        working_dir: SandboxPath | None = None,
    ) -> "AsyncGenerator[ExecutionEvent, None]":
        """Run a command and read its output as it comes; its result is the last event.

        Leaving the loop ends the command.
        """
        from cove.sdk._async.streaming import event_stream

        return event_stream(self._link, _streamed(command, timeout=timeout, env=env, working_dir=working_dir))


def _require_no_callbacks(*callbacks: TextCallback | None) -> None:
    if any(callback is not None for callback in callbacks):
        raise error(
            "INVALID_REQUEST",
            "A command in the background tells nobody of its output.",
            remedy="Read it with logs(follow=True) or events() of what run() returns.",
        )


def _streamed(
    command: str,
    *,
    timeout: float,
    env: Mapping[str, str] | None,
    working_dir: SandboxPath | None,
    max_output_bytes: int | None = None,
) -> Call:
    """To the agent a command is a program of Bash that is not kept between calls."""
    if not command:
        raise error("INVALID_REQUEST", "The command is empty.")
    return requests.execute_events(
        command,
        language="bash",
        timeout=timeout,
        env=env,
        working_dir=working_dir,
        max_output_bytes=max_output_bytes,
    )
