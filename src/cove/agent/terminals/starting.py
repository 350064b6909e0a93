"""Starting a program on a terminal of its own."""

import os
from typing import NoReturn

from cove.agent.execution.spawning import Invocation, become, fork_process
from cove.linux.process import close_range
from cove.linux.terminals import open_terminal, take_as_controlling_terminal
from cove.models.errors import error


def start_on_terminal(invocation: Invocation, *, columns: int, rows: int) -> tuple[int, int]:
    """The pid of the program, which leads a session with a new terminal, and the descriptor of the terminal's far end.

    Raises:
        CoveError: RESOURCE_LIMIT_EXCEEDED, no terminal or no process can be made.
    """
    try:
        shown, used = open_terminal(columns=columns, rows=rows)
    except OSError as problem:
        raise error(
            "RESOURCE_LIMIT_EXCEEDED",
            f"A limit of the sandbox was reached: no terminal can be opened ({problem.strerror}).",
            remedy="Close terminals or files that are no longer needed.",
        ) from problem
    try:
        return fork_process(lambda: _execute(invocation, used)), shown
    except BaseException:
        os.close(shown)
        raise
    finally:
        os.close(used)


def _execute(invocation: Invocation, terminal: int) -> NoReturn:
    take_as_controlling_terminal(terminal)
    for standard in (0, 1, 2):
        os.dup2(terminal, standard, inheritable=True)
    close_range(3)
    become(invocation)
