"""Reaping the orphans that the kernel process adopts.

The kernel is a child subreaper, so that all a call starts can be found below it. Orphans therefore become its
children, and stay zombies unless it waits for them; but a child that the user's program started itself must keep its
status until that program asks for it.
"""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from cove.agent.execution.process_tree import children_of, read_process


class OrphanReaper:
    """Knows the children that this interpreter started and reaps the other ones."""

    def __init__(self) -> None:
        self._own: set[int] = set()

    def install(self) -> None:
        """Take note of every process that Python code starts from now on."""
        for module, name in ((os, "fork"), (os, "forkpty"), (os, "posix_spawn"), (os, "posix_spawnp")):
            setattr(module, name, self._noting(getattr(module, name)))
        fork_exec = getattr(subprocess, "_fork_exec", None)
        if fork_exec is not None:
            setattr(subprocess, "_fork_exec", self._noting(fork_exec))  # noqa: B010

    def reap(self) -> None:
        """Reap dead children that Python code did not start."""
        children = children_of(os.getpid())
        self._own.intersection_update(children)
        for pid in children:
            record = None if pid in self._own else read_process(pid)
            if record is not None and record.state == "Z":
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _note(self, result: object) -> None:
        # forkpty(3) has a pid and a descriptor; 0 is the child itself.
        pid = cast(tuple[int, int], result)[0] if isinstance(result, tuple) else result
        if isinstance(pid, int) and pid:
            self._own.add(pid)

    def _noting(self, start: Callable[..., Any]) -> Callable[..., Any]:
        def started(*arguments: Any, **options: Any) -> Any:
            result = start(*arguments, **options)
            self._note(result)
            return result

        return started
