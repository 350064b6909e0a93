"""Cells that are plain Python, which is nearly all of them, run without IPython's machinery.

What compiles as it stands needs no input transformation. Running it directly takes a fraction of the time, and touches
a fraction of the memory that a fresh kernel shares with the process it was forked from. Everything else (magics,
`!commands`, top-level await, cells while extensions watch) goes through IPython.
"""

import ast
import inspect
import sys
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cove.agent.execution.interpreter.shell import KernelShell

# Callbacks of these want IPython's own account of the cell. The other events are triggered here too.
_WATCHED_EVENTS = ("pre_run_cell", "post_run_cell")


class PlainCells:
    """Compiles and runs plain cells in a shell's namespace."""

    def __init__(self, shell: "KernelShell") -> None:
        self._shell = shell

    def compile(self, code: str) -> list[CodeType] | None:
        """The cell's parts, to be run in order; None when the cell is not plain."""
        shell: Any = self._shell
        tree: Any
        if shell.ast_transformers or any(shell.events.callbacks[event] for event in _WATCHED_EVENTS):
            return None
        name = shell.compile.get_code_name(code, code, shell.execution_count)
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        try:
            tree = compile(code, name, "exec", int(shell.compile.flags) | flags)
            if not isinstance(tree, ast.Module):
                return None
            parts = [self._compile_part(part, name) for part in _split(tree)]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None  # IPython either understands it or reports it
        return None if any(part.co_flags & inspect.CO_COROUTINE for part in parts) else parts

    def run(self, code: str, parts: list[CodeType]) -> BaseException | None:
        """Run a compiled cell; returns how it failed, after reporting it."""
        shell: Any = self._shell
        shell.compile.cache(code, shell.execution_count, code)
        for history in (shell.history_manager.input_hist_parsed, shell.history_manager.input_hist_raw):
            history.append(code)
        shell.execution_count += 1
        shell.events.trigger("pre_execute")
        namespace = self._shell.namespace
        before = sys.displayhook
        sys.displayhook = shell.displayhook
        try:
            with shell.builtin_trap:
                for part in parts:
                    exec(part, namespace)  # noqa: S102
        except BaseException as problem:
            shell.showtraceback()
            return problem
        finally:
            sys.displayhook = before
            shell.events.trigger("post_execute")
        return None

    def _compile_part(self, part: ast.Module | ast.Interactive, name: str) -> CodeType:
        mode = "exec" if isinstance(part, ast.Module) else "single"
        compiler: Any = self._shell.compile
        with compiler.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
            # The shell's own compiler remembers `from __future__` imports for later cells.
            return compiler(part, name, mode)


def _split(tree: ast.Module) -> list[ast.Module | ast.Interactive]:
    """The statements, and the expression at the end, whose value is shown."""
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return [tree]
    last = ast.Interactive([tree.body[-1]])
    rest = ast.Module(tree.body[:-1], tree.type_ignores)
    return [rest, last] if rest.body else [last]
