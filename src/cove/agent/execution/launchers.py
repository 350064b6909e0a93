"""How the interpreters of the stateful languages are started."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cove.agent.execution.channel import Interpreter
from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.interpreter.kernel import run_kernel
from cove.agent.execution.pipes import Pipes
from cove.agent.execution.reaper import Reaper
from cove.agent.execution.spawning import Invocation, fork_process, spawn
from cove.models.errors import error

NODE_KERNEL = Path(__file__).with_name("javascript_kernel.cjs")


class Launcher(Protocol):
    """Starts interpreters of one language.

    Attributes:
        language: for notes.
        interruptible: SIGINT ends a call and keeps the state.
    """

    @property
    def language(self) -> str: ...

    @property
    def interruptible(self) -> bool: ...

    def launch(self) -> Interpreter:
        """A new interpreter; it may still be starting.

        Raises:
            CoveError: it cannot be started.
        """
        ...


class PythonLauncher:
    """Forks kernels off this very process, which has the shell and the preloaded modules in its memory."""

    language = "python"
    interruptible = True

    def __init__(self, reaper: Reaper, environment: SandboxEnvironment, workspace: str) -> None:
        self._reaper = reaper
        self._environment = environment
        self._workspace = workspace

    def launch(self) -> Interpreter:
        variables = self._environment.effective()

        def start(control: int) -> int:
            return fork_process(lambda: run_kernel(control, variables, self._workspace))

        control, pid = _with_channel(start)
        return Interpreter(pid, control, self._reaper.watch(pid), environment=variables)


class NodeLauncher:
    """Starts Node.js with a kernel script of ours."""

    language = "javascript"
    interruptible = False

    def __init__(self, reaper: Reaper, pipes: Pipes, environment: SandboxEnvironment, workspace: str) -> None:
        self._reaper = reaper
        self._pipes = pipes
        self._environment = environment
        self._workspace = workspace

    def launch(self) -> Interpreter:
        variables = self._environment.effective()
        if shutil.which("node", path=variables.get("PATH", os.defpath)) is None:
            raise missing_language("javascript", "node")
        invocation = Invocation(["node", str(NODE_KERNEL)], variables, self._workspace)
        stdout, stdout_end = self._pipes.open(None)
        stderr, stderr_end = self._pipes.open(None)

        def start(control: int) -> int:
            return spawn(invocation, stdout=stdout_end, stderr=stderr_end, control=control)

        try:
            control, pid = _with_channel(start)
        except BaseException:
            self._pipes.release(stdout)
            self._pipes.release(stderr)
            raise
        finally:
            os.close(stdout_end)
            os.close(stderr_end)
        return Interpreter(pid, control, self._reaper.watch(pid), environment=variables, streams=(stdout, stderr))


def missing_language(language: str, program: str) -> Exception:
    """The error for a language whose program is not on PATH."""
    return error(
        "UNSUPPORTED_LANGUAGE",
        f"{language} cannot run here: there is no `{program}` on the sandbox's PATH",
        remedy=f"Use a template that contains {program}, or set PATH in the sandbox's environment.",
    )


def _with_channel(start: Callable[[int], int]) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        return ours, start(theirs.fileno())
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
