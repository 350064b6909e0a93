"""Starting processes."""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from cove.linux.process import (
    close_range,
    end_first_without_memory,
    set_child_subreaper,
    set_dumpable,
    set_parent_death_signal,
)
from cove.models.errors import error

NOT_FOUND = 127
NOT_EXECUTABLE = 126
CONTROL_DESCRIPTOR = 3
INTERPRETER_OOM_SCORE = 500
PROGRAM_OOM_SCORE = 800
"""Without memory, programs go before interpreters, which hold the user's state, and these before the agent."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """A program to execute.

    Attributes:
        argv: the first one is looked up on PATH of `environment`.
        directory: working directory.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: str


def fork_process(main: Callable[[], object], *, oom_score: int = INTERPRETER_OOM_SCORE) -> int:
    """Run `main` in a forked process, in a session of its own, and return its pid. `main` never returns here.

    The process is a child subreaper, can be traced by its own user, and dies with its parent.

    Raises:
        LimitExceeded: no process can be started (fork(2): EAGAIN, ENOMEM).
    """
    # Signals wait until the child has its own dispositions: Python's would write to the parent's wake-up socket.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        parent = os.getpid()
        pid = _fork()
        if pid == 0:
            _run_child(main, parent, oom_score)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _fork() -> int:
    try:
        return os.fork()
    except OSError as problem:
        raise error(
            "RESOURCE_LIMIT_EXCEEDED",
            f"the sandbox cannot start another process: {problem.strerror} (process or memory limit)",
            remedy="End processes that are no longer needed, or create the sandbox with higher limits.",
        ) from problem


def _run_child(main: Callable[[], object], parent: int, oom_score: int) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        _reset_signals()
        os.setsid()
        set_parent_death_signal(signal.SIGKILL)
        if os.getppid() == parent:
            set_child_subreaper(True)
            set_dumpable(True)
            end_first_without_memory(oom_score)  # a flood of small processes must not cost the agent its life
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            main()
    except BaseException as problem:
        os.write(2, f"the process could not be started: {problem!r}\n".encode())
        code = 127
    finally:
        os._exit(code)


def _reset_signals() -> None:
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)


def spawn(invocation: Invocation, *, stdout: int, stderr: int, control: int | None = None) -> int:
    """Start a program with /dev/null as standard input, and return its pid.

    A program that cannot be executed is a program that failed: exit code 127 (not found) or 126, and a line on
    its standard error, as shells do it.

    Args:
        control: becomes descriptor 3 of the program.

    Raises:
        LimitExceeded: no process can be started.
    """
    score = PROGRAM_OOM_SCORE if control is None else INTERPRETER_OOM_SCORE
    return fork_process(lambda: _execute(invocation, stdout, stderr, control), oom_score=score)


def arrange_descriptors(*, stdout: int, stderr: int, control: int | None) -> None:
    """Make these, and /dev/null as 0, the only open descriptors of this process. 1 and 2 must be open."""
    stdin = os.open("/dev/null", os.O_RDONLY)
    # Copies above all targets first: none is overwritten before it was used.
    highest = [os.dup(descriptor) for descriptor in (stdin, stdout, stderr)]
    spare_control = None if control is None else os.dup(control)
    while spare_control is not None and spare_control <= CONTROL_DESCRIPTOR:
        spare_control = os.dup(spare_control)
    for target, descriptor in enumerate(highest):
        os.dup2(descriptor, target, inheritable=True)
    if spare_control is not None:
        os.dup2(spare_control, CONTROL_DESCRIPTOR, inheritable=True)
        close_range(CONTROL_DESCRIPTOR + 1)
    else:
        close_range(CONTROL_DESCRIPTOR)


def _execute(invocation: Invocation, stdout: int, stderr: int, control: int | None) -> NoReturn:
    arrange_descriptors(stdout=stdout, stderr=stderr, control=control)
    become(invocation)


def become(invocation: Invocation) -> NoReturn:
    """Let this process be the program; where that fails, say so on descriptor 2 and end, as shells do."""
    name = invocation.argv[0]
    try:
        os.chdir(invocation.directory)
        os.execvpe(name, list(invocation.argv), dict(invocation.environment))  # noqa: S606
    except (FileNotFoundError, NotADirectoryError):
        _fail(NOT_FOUND, f"{name}: command not found")
    except PermissionError:
        _fail(NOT_EXECUTABLE, f"{name}: permission denied")
    except (OSError, ValueError) as problem:
        _fail(NOT_EXECUTABLE, f"{name}: {problem}")


def _fail(code: int, message: str) -> NoReturn:
    os.write(2, f"{message}\n".encode(sys.getfilesystemencoding(), "replace"))
    os._exit(code)
