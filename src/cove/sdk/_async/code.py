"""Running code in a sandbox."""

import builtins
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING

from cove.sdk import _execution_requests as requests
from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._async.primitives import TextCallback
from cove.sdk._failures import parse
from cove.sdk._requests import SandboxPath
from cove.sdk._results import Execution

if TYPE_CHECKING:
    from cove.models.async_executions import AsyncExecutionAccepted
    from cove.models.processes import ProcessKilled
    from cove.sdk._async.processes import AsyncProcess
    from cove.sdk._events import ExecutionEvent


class AsyncCode:
    """The methods of a sandbox that run code."""

    _link: AsyncAgentLink

    async def run_code(
        self,
        code: str,
        *,
        language: str = "python",
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        working_dir: SandboxPath | None = None,
        max_output_bytes: int | None = None,
        on_stdout: TextCallback | None = None,
        on_stderr: TextCallback | None = None,
    ) -> Execution:
        """Run a program and wait for its end, in one request. Python and JavaScript keep their state between calls.

        Args:
            code: the program, at most 4 MiB.
            language: `python`, `javascript`, `bash`, `go`.
            timeout: seconds; then the program and all that it started are ended, and the result says `timed_out`.
            env: variables for this call; they win over those of the sandbox.
            working_dir: absent means: where the interpreter is, at first /workspace.
            max_output_bytes: cap of stdout and of stderr in the result, each; absent means 1 MiB.
            on_stdout: told of each piece of stdout as it comes; when it raises, the program is ended.
            on_stderr: the same for stderr.

        Raises:
            CoveError: the code could not be run. After a lost connection it may have run; it is not run again.
        """
        given = {
            "language": language,
            "timeout": timeout,
            "env": env,
            "working_dir": working_dir,
            "max_output_bytes": max_output_bytes,
        }
        if on_stdout is None and on_stderr is None:
            return parse(Execution, await self._link.send(requests.execute(code, **given)))
        from cove.sdk._async.streaming import run_to_end

        call = requests.execute_events(code, **given)
        return await run_to_end(self._link, call, on_stdout=on_stdout, on_stderr=on_stderr)

    def run_code_stream(
        self,
        code: str,
        *,
        language: str = "python",
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        working_dir: SandboxPath | None = None,
    ) -> "AsyncGenerator[ExecutionEvent, None]":
        """Run a program and read its output as it comes: `stdout` and `stderr` events, last the `result`.

        Leaving the loop ends the program. Arguments as for `run_code`.
        """
        from cove.sdk._async.streaming import event_stream

        call = requests.execute_events(code, language=language, timeout=timeout, env=env, working_dir=working_dir)
        return event_stream(self._link, call)

    async def run_code_background(
        self,
        code: str,
        *,
        language: str = "python",
        timeout: float = requests.BACKGROUND_SECONDS,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        working_dir: SandboxPath | None = None,
    ) -> "AsyncProcess":
        """Start a program with an interpreter of its own, and return at once.

        Args:
            timeout: seconds; then the program and all that it started are ended.
            name: for people; need not be unique.
        """
        from cove.sdk import _process_requests
        from cove.sdk._async.background import started

        call = _process_requests.execute_background(
            code, language=language, timeout=timeout, env=env, name=name, working_dir=working_dir
        )
        return await started(self._link, call)

    async def run_code_async(
        self,
        code: str,
        callback_url: str,
        *,
        language: str = "python",
        timeout: float = requests.ASYNC_SECONDS,
        env: Mapping[str, str] | None = None,
        working_dir: SandboxPath | None = None,
        callback_headers: Mapping[str, str] | None = None,
        callback_signature_secret: str | None = None,
    ) -> "AsyncExecutionAccepted":
        """Hand a program to the server, which runs it and sends the result to `callback_url`, also when this client
        has gone and the server was started anew. The receiver checks it with `cove.sdk.webhooks.verify`.

        Args:
            timeout: seconds for the program.
            callback_url: http or https; the server refuses private addresses unless it is configured to allow them.
            callback_headers: sent along with the result.
            callback_signature_secret: what the result is signed with.
        """
        from cove.sdk import _process_requests
        from cove.sdk._async.background import accepted

        call = _process_requests.execute_async(
            code,
            callback_url,
            language=language,
            timeout=timeout,
            env=env,
            working_dir=working_dir,
            callback_headers=callback_headers,
            callback_signature_secret=callback_signature_secret,
        )
        return await accepted(self._link, call)

    async def list_processes(self) -> "builtins.list[AsyncProcess]":
        """Programs in the background, newest first; those that ended are kept for a while."""
        from cove.sdk._async.background import listed

        return await listed(self._link)

    async def get_process(self, process_id: str) -> "AsyncProcess":
        """A program in the background, by its id or its execution's.

        Raises:
            NotFound: there is none, or it ended long ago.
        """
        from cove.sdk._async.background import found

        return await found(self._link, process_id)

    async def kill_process(self, process_id: str, signal: int | str | None = None) -> "ProcessKilled":
        """End a program in the background with all that it started; or send it `signal` (`SIGINT`, `INT`, 2).

        Raises:
            NotFound: there is none.
        """
        from cove.sdk._async.background import killed

        return await killed(self._link, process_id, signal)
